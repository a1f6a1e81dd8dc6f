"""The catalogue is whole: every verdict is in it, and every entry says why it matters."""

import re
from pathlib import Path

import pytest

import pronk
from pronk.dataset.findings import CATALOGUE, SEVERITIES, describe_fault, find, group_findings
from pronk.errors import Reason

SOURCES = Path(pronk.__file__).parent


def test_every_reason_to_leave_a_file_out_is_an_error():
    for reason in set(Reason) - {Reason.OK, Reason.OK_WITH_WARNING}:
        assert CATALOGUE[reason].severity == "error"


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_fault_has_a_title_and_a_why(code):
    fault = CATALOGUE[code]
    assert fault.severity in SEVERITIES
    assert fault.title[0].isupper()
    assert fault.why.endswith(".")
    assert re.fullmatch("[a-z_]+", code)
    assert not (fault.movable and fault.severity == "info"), "what is harmless stays"


def test_only_codes_of_the_catalogue_are_found():
    """Each call names its code in the source, and each code is named somewhere."""
    text = "".join(path.read_text() for path in SOURCES.rglob("*.py") if path.name != "findings.py")
    assert [code for code in CATALOGUE if f'"{code}"' not in text and code not in set(Reason)] == []
    with pytest.raises(KeyError):
        find("a", "no_such_code", "wrong")


def test_groups_come_in_the_order_of_the_catalogue_and_strange_codes_last():
    codes = ["rotated", "my_own", "blurred", "zero_byte", "leak", "rotated"]
    groups = group_findings([find(code, code, code) for code in codes if code in CATALOGUE])
    assert [fault.code for fault, _ in groups] == ["leak", "zero_byte", "blurred", "rotated"]
    assert [len(found) for _, found in groups] == [1, 1, 1, 2]
    assert describe_fault("my_own", "warning").severity == "warning"
