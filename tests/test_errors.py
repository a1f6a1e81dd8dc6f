"""The error tree, the closed list of reasons, and what travels between processes."""

import pickle
import re
import tomllib
from pathlib import Path

import pronk.errors
from pronk.errors import EXTRAS, ImageError, PronkError, Reason

ROOT = Path(__file__).parent.parent


def test_reasons_are_the_closed_list():
    reasons = "ok ok_with_warning zero_byte not_an_image truncated too_many_pixels too_large unsupported_format "
    reasons += "unreadable not_regular_file vanished decode_error changed leak"
    assert " ".join(reason.value for reason in Reason) == reasons


# Other modules may have errors of their own, and which are imported by now depends on the other tests.
KINDS = [error for error in PronkError.__subclasses__() if error.__module__ == "pronk.errors"]


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = set(re.findall(r"[├└]── (\w+)", pronk.errors.__doc__))
    assert drawn == {error.__name__ for error in KINDS}


def test_image_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(ImageError(Reason.TRUNCATED, "cut off", hint="copy it again")))
    assert (error.reason, str(error), error.hint) == (Reason.TRUNCATED, "cut off", "copy it again")


def test_extras_are_those_of_the_package():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert EXTRAS.keys() <= declared.keys()
    other = {"starlette", "upath"}  # of fastapi and universal_pathlib
    for extra, modules in EXTRAS.items():
        names = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in declared[extra]} | other
        assert set(modules) <= names
