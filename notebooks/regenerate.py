"""Percent script -> the notebook with its outputs: pictures, curves and numbers of a run on drawn photos.

    python notebooks/regenerate.py     (make notebook)

The script is the source; edit that one. The run happens in an empty folder, so it finds no photos and draws its own.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbformat import NotebookNode

SOURCE = Path(__file__).parent / "transfer_learning_mobilenetv2.py"
NOTEBOOK = SOURCE.with_suffix(".ipynb")


def read_source() -> NotebookNode:
    """Read the script as a notebook without outputs; equal scripts give equal notebooks."""
    notebook = jupytext.read(SOURCE)
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:02d}"
    return notebook


def execute(notebook: NotebookNode, folder: Path, *, variables: Mapping[str, str]) -> NotebookNode:
    """Run all cells from a fresh kernel that starts in `folder`; the first error ends it.

    Args:
        notebook: the notebook to fill with outputs.
        folder: the kernel's working directory.
        variables: the kernel's environment, all of it.
    """
    # IPython's start-up files and history are the user's, and no part of this.
    variables = {**variables, "IPYTHONDIR": str(folder / ".ipython")}
    client = NotebookClient(
        notebook,
        timeout=600,  # per cell
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=variables)
    return notebook


def clean(notebook: NotebookNode) -> NotebookNode:
    """Remove what belongs to this machine and run alone: notes on stderr, versions, times."""
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    kept = ("jupytext", "kernelspec")
    notebook.metadata = {name: value for name, value in notebook.metadata.items() if name in kept}
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main() -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PRONK_")}
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer) / "notebooks"  # the notebook looks for photos one folder above it, too
        folder.mkdir()
        notebook = execute(read_source(), folder, variables=variables | {"PRONK_CACHE": f"{outer}/cache"})
    jupytext.write(clean(notebook), NOTEBOOK, fmt="ipynb")


if __name__ == "__main__":
    main()
