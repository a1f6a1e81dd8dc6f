"""What keeps the source readable: short functions, few parameters, modules of one thing, few rooms."""

import ast

from helpers import ROOT

SOURCE = ROOT / "src" / "pronk"
MODULE_LINES, FUNCTION_LINES, POSITIONAL, PACKAGES, MODULES = 500, 45, 5, 12, 5
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def read_functions():
    """Yield every function of the package with its place, and whether it is a method."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        methods = {child for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for child in node.body}
        for node in ast.walk(tree):
            if isinstance(node, FUNCTIONS):
                yield f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}", node, node in methods


def count_positional(function, *, is_method):
    """Count the parameters that may be given by position, without self or cls.

    >>> count_positional(ast.parse("def f(self, a, /, b, *, c): ...").body[0], is_method=True)
    2
    """
    names = {getattr(one, "id", "") for one in function.decorator_list}
    given = len(function.args.posonlyargs) + len(function.args.args)
    return given - (is_method and "staticmethod" not in names)


def complain(what, found):
    assert not found, "\n".join([f"{what}:", *(f"  {place}: {number}" for place, number in sorted(found.items()))])


def test_no_module_is_longer_than_one_thing_needs():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCE.rglob("*.py")}
    long = {str(path.relative_to(SOURCE)): number for path, number in lines.items() if number > MODULE_LINES}
    complain(f"more than {MODULE_LINES} lines", long)


def test_no_function_is_long():
    lines = {place: node.end_lineno - node.lineno + 1 for place, node, _ in read_functions()}
    complain(f"more than {FUNCTION_LINES} lines", {place: n for place, n in lines.items() if n > FUNCTION_LINES})


def test_no_function_has_many_positional_parameters():
    given = {place: count_positional(node, is_method=method) for place, node, method in read_functions()}
    complain(
        f"more than {POSITIONAL} positional parameters", {place: n for place, n in given.items() if n > POSITIONAL}
    )


def test_the_house_has_few_rooms():
    packages = {path.parent.name: 1 for path in SOURCE.glob("*/__init__.py")}
    modules = {path.stem: 1 for path in SOURCE.glob("*.py") if not path.stem.startswith("__")}
    complain(f"more than {PACKAGES} packages", packages if len(packages) > PACKAGES else {})
    complain(f"more than {MODULES} modules", modules if len(modules) > MODULES else {})
