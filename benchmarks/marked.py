"""The command line of pronk -> the same run, and a JSON file of the moments at which its steps began and ended.

    python benchmarks/marked.py MOMENTS.json train DATA --out RUN ...

Functions of the story in recipe.py are wrapped so that they note the time, some twenty times in all.
Moments are seconds since the process was started, the interpreter's own start included.
"""

import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Moments = dict[str, tuple[float, float]]
# Those that train() calls by name.
WATCHED = (
    "list_photos",
    "load_dataset",
    "extract_features",
    "solve_head",
    "fine_tune",
    "write_kept",
    "judge",
    "write_results",
)
# Those that run beside it.
WATCHED_BESIDE = ("import_network", "compare_frameworks")


def read_clock() -> float:
    """Return seconds since this process was started."""
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


@contextlib.contextmanager
def watch_training(moments: Moments) -> Iterator[None]:
    """Note in `moments` when each step of a run began and ended."""
    from pronk.training import recipe, schedule
    from pronk.training.phase_two import FineTuning

    watched = [(recipe, name) for name in WATCHED] + [(schedule, name) for name in WATCHED_BESIDE]
    originals = [(module, name, getattr(module, name)) for module, name in watched]
    run_epoch = FineTuning.run_epoch
    for module, name, work in originals:
        setattr(module, name, _watch(name, work, moments))
    FineTuning.run_epoch = _watch_first_step(run_epoch, moments)
    try:
        yield
    finally:
        FineTuning.run_epoch = run_epoch
        for module, name, work in originals:
            setattr(module, name, work)


def _watch(name: str, work: Any, moments: Moments) -> Any:
    @functools.wraps(work)
    def watched(*args: Any, **kwargs: Any) -> Any:
        began = read_clock()
        try:
            return work(*args, **kwargs)
        finally:
            moments[name] = (began, read_clock())

    return watched


def _watch_first_step(run_epoch: Any, moments: Moments) -> Any:
    @functools.wraps(run_epoch)
    def watched(state: Any, batches: Any, steps: int, on_step: Any) -> Any:
        began = read_clock()

        def tell(step: int) -> None:
            if "first_step" not in moments:
                moments["first_step"] = (began, read_clock())
            on_step(step)

        return run_epoch(state, batches, steps, tell)

    return watched


def main() -> None:
    target, *arguments = sys.argv[1:]
    moments: Moments = {}
    with watch_training(moments):
        from pronk.cli import cli

        cli.main(arguments, prog_name="pronk", standalone_mode=False)
    Path(target).write_text(json.dumps(moments, indent=2) + "\n", encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # as the command itself ends, without waiting for the framework's threads


if __name__ == "__main__":
    main()
