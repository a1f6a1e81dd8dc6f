import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest

import pronk
from pronk.cli import cli
from pronk.config import Settings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = [page for page in PAGES if page.parent.name != "reference"]


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def everything(pages=PAGES):
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def test_the_reference_says_what_the_program_says(generate):
    reference = ROOT / "docs" / "reference"
    assert (reference / "commands.md").read_text(encoding="utf-8") == generate.commands_page(), "run make docs"
    assert (reference / "python.md").read_text(encoding="utf-8") == generate.python_page(), "run make docs"


def test_the_reference_is_the_same_everywhere(generate):
    page = generate.python_page() + generate.commands_page()
    assert " at 0x" not in page
    assert str(ROOT) not in page
    assert str(Path.home()) + "/" not in page


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_is_told_in_a_page_written_by_hand(name):
    assert f"pronk {name}" in everything(WRITTEN) or f"make {name}" in everything(WRITTEN)


@pytest.mark.parametrize("name", pronk.__all__)
def test_every_public_name_occurs(name):
    assert re.search(rf"\bpronk\.{name}\b", everything())


def test_every_module_has_its_place_in_how_it_works():
    page = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    headings = [name for line in re.findall(r"^## (.*)$", page, re.MULTILINE) for name in line.split(", ")]
    top = {module.name for module in pkgutil.iter_modules(pronk.__path__)} - {"training", "__main__"}
    inner = {f"training.{module.name}" for module in pkgutil.iter_modules([str(Path(pronk.__path__[0]) / "training")])}
    assert sorted(headings) == sorted(top | inner)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_pages_compiles(page):
    for number, snippet in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.M)):
        if page.name != "python.md":  # there they are signatures
            compile(snippet, f"{page.name}, snippet {number}", "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_options_in_pages_exist(page):
    known = {option for command in cli.commands.values() for param in command.params for option in param.opts}
    known |= {"--version", "--help"}
    for line in page.read_text(encoding="utf-8").splitlines():
        if "pronk" in line or "`--" in line:
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)) <= known, line


def test_every_setting_can_be_found_in_the_reference():
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    for name in Settings.__dataclass_fields__:
        assert f"    {name}: " in page, name
