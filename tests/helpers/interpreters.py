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


def after_commands(*commands):
    """The packages that an interpreter has imported after some commands, each given as its words; all succeed."""
    code = "import json, sys; from pronk.cli import run_command\n"
    code += "for words in json.loads(sys.argv[1]): assert run_command(words) == 0, words\nsys.stdout.flush()"
    return modules_after(code, json.dumps([list(map(str, words)) for words in commands]))
