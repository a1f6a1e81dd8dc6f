"""Help texts and docstrings -> docs/reference, so that neither can say something else than the program."""

import inspect
import re
from pathlib import Path

import click

import pronk
from pronk.cli import cli

REFERENCE = Path(__file__).parent / "reference"
WIDTH = 80


def commands_page() -> str:
    """Write one section per command: its --help."""
    root = click.Context(cli, info_name="pronk", terminal_width=WIDTH, **cli.context_settings)
    pages = [
        "# Commands\n\nEach command's `--help`, written by `make docs`. "
        "Exit codes: 0 done; 1 the work failed; 2 usage; 130 after Ctrl-C.\n"
        "Results go to standard output, progress and messages to standard error.\n",
        _help(cli, root),
    ]
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None, "list_commands names only what get_command finds"
        pages.append(_help(command, click.Context(command, root, info_name=name, terminal_width=WIDTH)))
    return "\n".join(pages)


def python_page() -> str:
    """Write one section per public name: its signature, its docstring, its methods."""
    pages = ["# Python\n\nEverything that `import pronk` offers, written by `make docs` from the docstrings.\n"]
    for name in pronk.__all__:
        value = getattr(pronk, name)
        pages.append(f"## pronk.{name}\n\n{_describe(name, value)}")
        if inspect.isclass(value):
            pages += [f"### {name}.{key}\n\n{_describe(key, part)}" for key, part in _methods(value)]
    return "\n".join(pages)


def _help(command: click.Command, context: click.Context) -> str:
    return f"## {context.command_path}\n\n```text\n{command.get_help(context)}\n```\n"


def _methods(kind: type) -> list[tuple[str, object]]:
    found = []
    for key, value in vars(kind).items():
        part = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if not key.startswith("_") and (inspect.isfunction(part) or isinstance(part, property)):
            found.append((key, part))
    return found


def _describe(name: str, value: object) -> str:
    signature = "" if isinstance(value, property) else f"```python\n{name}{_signature(value)}\n```\n\n"
    return f"{signature}```text\n{inspect.getdoc(value)}\n```\n"


def _signature(value: object) -> str:
    try:
        text = str(inspect.signature(value))  # type: ignore[arg-type]
    except ValueError:
        return "(...)"
    text = re.sub(r"<function (\w+) at 0x[0-9a-f]+>", r"\1", text)
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+([A-Za-z_]\w*)", r"\1", text)


if __name__ == "__main__":
    REFERENCE.mkdir(exist_ok=True)
    (REFERENCE / "commands.md").write_text(commands_page(), encoding="utf-8")
    (REFERENCE / "python.md").write_text(python_page(), encoding="utf-8")
