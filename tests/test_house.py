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


def find_above(most, numbers):
    """List the places whose number is above the most that is allowed."""
    return {place: number for place, number in sorted(numbers.items()) if number > most}


def test_no_module_is_longer_than_one_thing_needs():
    lines = {str(path.relative_to(SOURCE)): path.read_text("utf-8").count("\n") for path in SOURCE.rglob("*.py")}
    assert find_above(MODULE_LINES, lines) == {}


def test_no_function_is_long_or_has_many_positional_parameters():
    functions = list(read_functions())
    lines = {place: node.end_lineno - node.lineno + 1 for place, node, _ in functions}
    assert find_above(FUNCTION_LINES, lines) == {}
    given = {place: count_positional(node, is_method=method) for place, node, method in functions}
    assert find_above(POSITIONAL, given) == {}


def test_the_house_has_few_rooms():
    assert len(list(SOURCE.glob("*/__init__.py"))) <= PACKAGES
    assert len([path for path in SOURCE.glob("*.py") if not path.stem.startswith("__")]) <= MODULES
