"""Programs outside of the package, opened as modules."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

from helpers import ROOT

BENCHMARKS = ROOT / "benchmarks"


def load_script(path: Path) -> ModuleType:
    """Import a program that is in no package, so that its functions can be called; it finds its neighbours."""
    sys.path.insert(0, str(path.parent))
    try:
        return importlib.import_module(path.stem)
    finally:
        sys.path.remove(str(path.parent))


def load_benchmark(name: str) -> ModuleType:
    """Import a program in benchmarks/."""
    return load_script(BENCHMARKS / f"{name}.py")
