"""What a fresh interpreter has imported."""

import json
import subprocess
import sys

FRAMEWORKS = {"keras", "tensorflow", "torch", "jax"}
TRAINING_ONLY = FRAMEWORKS | {"h5py", "onnx", "scipy", "loky", "sklearn"}
REPORT = "\nimport json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"


def modules_after(code, *arguments):
    """The packages that a fresh interpreter has imported after some code."""
    command = [sys.executable, "-X", "importtime", "-c", code + REPORT, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return set(json.loads(done.stdout.splitlines()[-1]))


def after_command(*arguments):
    return modules_after(
        "import sys; from pronk.cli import cli\n"
        "try: cli.main(sys.argv[1:], standalone_mode=False)\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "sys.stdout.flush()",
        *arguments,
    )
