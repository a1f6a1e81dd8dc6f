import itertools
import pkgutil
import re
import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import click
import pytest

import pronk
from helpers.scripts import load_script
from pronk.analysis.metrics import wilson_interval
from pronk.cli import cli

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *sorted(DOCS.rglob("*.md"))]
WRITTEN = [page for page in PAGES if page.parent.name != "reference"]
PICTURES = sorted((DOCS / "pictures").glob("*.svg"))
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
OTHER_COMMANDS = re.compile(r"[|&;<>()]+")  # what a shell splits a line at


def each_page(pages):
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.relative_to(ROOT).as_posix())


@pytest.fixture(scope="module")
def generate():
    return load_script(DOCS / "generate.py")


def read(page):
    return page.read_text(encoding="utf-8")


def everything(pages=PAGES):
    return "\n".join(map(read, pages))


def prose(text):
    """Remove the blocks of code."""
    return "\n".join(line for line in FENCED.sub("", text).splitlines() if not line.startswith("    "))


def code_lines(text):
    """List the lines of all blocks of code but Python's."""
    fenced = "".join(code for language, code in FENCED.findall(text) if language != "python")
    indented = [line for line in FENCED.sub("", text).splitlines() if line.startswith("    ")]
    return [*fenced.splitlines(), *indented]


def commands(line):
    """List the arguments of each `pronk` in a line of shell, which may have pipes and a remark.

    >>> commands("find . | .venv/bin/pronk predict RUN -  # a remark")
    [['predict', 'RUN', '-']]
    """
    if not re.search(r"(?:^|[|&;])\s*(?:\S*/bin/)?pronk\s", line):
        return []
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found, words = [], []
    for word in [*lexer, ";"]:
        if not OTHER_COMMANDS.fullmatch(word):
            words.append(word)
            continue
        if words and re.fullmatch(r"(?:.*/bin/)?pronk", words[0]):
            found.append(words[1:])
        words = []
    return found


def parse(arguments, *, whole=True):
    """Parse a command line as click would, without running it; what is only mentioned may lack arguments."""
    flags = list(itertools.takewhile(lambda word: word.startswith("-"), arguments))
    name, *rest = arguments[len(flags) :] or [""]
    known = {option for param in cli.params for option in param.opts} | {"--help"}
    if not set(flags) <= known or (name not in cli.commands and not (flags and not name)):
        raise click.UsageError(f"no {name or flags} in pronk")
    try:
        if name:
            cli.commands[name].make_context(name, rest)
    except click.MissingParameter:
        if whole:
            raise


def anchors(page):
    """List the names that headings get: lower case, words joined by hyphens, no punctuation."""
    headings = re.findall(r"^#+ (.*)$", prose(read(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_reference_says_what_the_program_says_and_the_same_everywhere(generate):
    commands_page, python_page = generate.commands_page(), generate.python_page()
    assert read(DOCS / "reference" / "commands.md") == commands_page, "run make docs"
    assert read(DOCS / "reference" / "python.md") == python_page, "run make docs"
    assert [own for own in (" at 0x", str(ROOT), f"{Path.home()}/") if own in commands_page + python_page] == []


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_is_told_in_a_page_written_by_hand(name):
    assert f"pronk {name}" in everything(WRITTEN) or f"make {name}" in everything(WRITTEN)


def test_every_room_has_its_place_in_how_it_works():
    page = read(DOCS / "how-it-works.md")
    headings = [name for line in re.findall(r"^## (.*)$", page, re.MULTILINE) for name in line.split(", ")]
    rooms = {module.name for module in pkgutil.iter_modules(pronk.__path__)} - {"__main__"}
    assert sorted(headings) == sorted(rooms)


@each_page(PAGES)
def test_python_in_pages_compiles(page):
    for number, (language, snippet) in enumerate(FENCED.findall(read(page))):
        if language == "python" and page.name != "python.md":  # there they are signatures
            compile(snippet, f"{page.name}, snippet {number}", "exec")


@each_page(PAGES)
def test_links_lead_somewhere(page):
    text = prose(read(page))
    for target in [*re.findall(r"\]\(\s*([^)\s]+)", text), *re.findall(r"(?:src|href)=\"([^\"]+)\"", text)]:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@each_page(PAGES)
def test_commands_in_blocks_are_ones_that_pronk_takes(page):
    for line in code_lines(read(page)):
        for arguments in commands(line):
            try:
                parse(arguments)
            except click.ClickException as error:
                pytest.fail(f"{line.strip()}: {error.format_message()}")


@each_page(WRITTEN)
def test_commands_and_options_in_sentences_exist(page):
    known = {option for command in cli.commands.values() for param in command.params for option in param.opts}
    for span in INLINE.findall(prose(read(page))):
        if re.match(r"--[a-z]", span):
            assert shlex.split(span)[0] in known | {"--version", "--help"}, span
        for arguments in commands(span):
            try:
                parse(arguments, whole=False)
            except click.ClickException as error:
                pytest.fail(f"{span}: {error.format_message()}")


@pytest.mark.parametrize(
    "line",
    ["pronk train photos --no-such-option", "cat list | pronk predict", "pronk bake cake", "pronk --loud cache"],
)
def test_commands_that_pronk_does_not_take_are_found(line):
    with pytest.raises(click.UsageError):
        parse(*commands(line))


def test_the_intervals_in_the_guide_are_right():
    page = read(DOCS / "guides" / "small-and-unequal-classes.md")
    rows = re.findall(r"^\| (\d+) \| (\S+) % to (\S+) % \| (\S+) % to (\S+) % \|$", page, re.MULTILINE)
    assert len(rows) >= 4
    for n, *shown in rows:
        for hits, ends in ((int(n), shown[:2]), (round(0.9 * int(n)), shown[2:])):
            assert [f"{100 * end:.1f}" for end in wilson_interval(hits, int(n))] == ends, n


@each_page(PICTURES)
def test_pictures_load_nothing_and_run_nothing(page):
    text = read(page)
    elements = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(text).iter()}
    assert elements.isdisjoint({"script", "image", "foreignObject", "a"})
    assert not re.search(r"url\((?!#)|@import|@font-face|\bon\w+=", text)
    assert not re.search(r"https?://", text.replace("http://www.w3.org/", ""))
    assert "title" in elements, "say in words what it shows"
