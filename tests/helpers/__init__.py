"""Drawn data, small models and programs that tests share; `from helpers.pictures import ...`."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
FIXTURES = TESTS / "fixtures"
