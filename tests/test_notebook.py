import json
import os
import re
import socket
from pathlib import Path

import pytest

from helpers.scripts import load_script

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
NAME = "transfer_learning_mobilenetv2"
PICTURES = 9
PER_CLASS = 40
REAL_PER_CLASS = 24  # enough to tell alpacas from other things
# More and larger photos, more views and epochs take minutes and show the same.
SMALLER = {
    "photos_per_class=120": f"photos_per_class={PER_CLASS}",
    "SEED, SIZE = 42, 160": "SEED, SIZE = 42, 96",
    "settings.replace(image_size": "settings.replace(views=2, epochs=2, image_size",
}
# What the cells computed, printed by a last cell of its own.
PRINT_RECORD = """
import json
record = {
    "real": bool(real), "alpha": ALPHA, "moved": list(moved.values()), "norms": int(strips.shape[1]),
    "unfrozen": 2 * sum(isinstance(layer, layers.BatchNormalization) for layer in base.layers[first:]),
    "trainable": sorted({type(layer).__name__ for layer in base.layers if layer.trainable and layer.weights}),
    "gap": float(gap), "guess": guess, "held_out": len(truth), "plain": right / len(truth), "fit_epochs": len(epochs),
    "pronk": float(((alpaca > 0.5) == truth).mean()), "pronk_test": result.metrics.test["accuracy"],
    "losses": phase_1["val_loss"] + phase_2["val_loss"], "seconds": [plain_seconds, pronk_seconds],
    "wilson": wilson(47, 49), "report": (result.folder / "report.html").is_file(),
}
print(json.dumps(record))
"""

pytestmark = pytest.mark.more


@pytest.fixture(scope="module")
def regenerate():
    return load_script(NOTEBOOKS / "regenerate.py")


@pytest.fixture(scope="module")
def saved():
    import nbformat

    return nbformat.read(NOTEBOOKS / f"{NAME}.ipynb", as_version=4)


def run_all_cells(regenerate, outer, **variables):
    """Run the notebook in a folder of its own; return it and the record that its last cell prints."""
    notebook, folder = regenerate.read_source(), outer / "notebooks"
    folder.mkdir()
    for cell in notebook.cells:
        for former, smaller in SMALLER.items():
            cell.source = cell.source.replace(former, smaller)
    notebook.cells.append(
        type(notebook.cells[0])(cell_type="code", id="record", metadata={}, source=PRINT_RECORD, outputs=[])
    )
    # Nothing comes from, or goes to, the user's folders; a download would fail.
    variables |= {"KERAS_HOME": str(folder / "keras"), "https_proxy": "http://127.0.0.1:9"}
    regenerate.execute(notebook, folder, variables={**os.environ, **variables})
    said = [output.text for output in notebook.cells[-1].outputs if output.get("name") == "stdout"]
    return notebook, json.loads("".join(said))


def outputs_of(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures_in(notebook):
    return [output.data["image/jpeg"] for output in outputs_of(notebook) if "image/jpeg" in output.get("data", {})]


def check_record(record):
    """What holds for any photos."""
    frozen, unfrozen, still = record["moved"]
    assert (record["norms"], frozen, still) == (104, 0, 0)
    assert unfrozen == record["unfrozen"] == 26
    assert record["trainable"] == ["Conv2D", "DepthwiseConv2D"]
    assert record["gap"] < 1e-4
    assert len(record["losses"]) == record["fit_epochs"] == 10
    assert record["losses"][-1] < record["losses"][0]
    assert min(record["plain"], record["pronk"]) >= 0.6 > record["guess"]
    assert record["pronk_test"]["n"] == record["held_out"], "pronk was judged on the photos that were held out"
    assert record["pronk_test"]["value"] == pytest.approx(record["pronk"])
    assert record["wilson"] == pytest.approx([0.863, 0.989], abs=5e-4)
    assert record["report"]


# Where there are real photos it runs on these in every check, and on drawn ones by hand.
@(pytest.mark.slow if "PRONK_PHOTOS" in os.environ else pytest.mark.more)
def test_it_runs_on_drawn_photos_without_a_network(regenerate, tmp_path):
    notebook, record = run_all_cells(regenerate, tmp_path)
    assert (record["real"], record["alpha"], record["held_out"]) == (False, 0.35, 16)
    check_record(record)
    assert len(pictures_in(notebook)) == PICTURES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notebooks"]


def test_it_runs_on_real_photos(regenerate, tmp_path, real_photos, real_weights):
    if not ((real_weights / "mobilenet_v2_1.0_224_no_top.h5").is_file() and (real_photos / "alpaca").is_dir()):
        pytest.skip("$PRONK_WEIGHTS holds no mobilenet_v2_1.0_224_no_top.h5, or $PRONK_PHOTOS no folder named alpaca")
    for label in ("alpaca", "not_alpaca"):
        (tmp_path / "dataset" / label).mkdir(parents=True)
        for path in sorted((real_photos / label).resolve().iterdir())[:REAL_PER_CLASS]:
            (tmp_path / "dataset" / label / path.name).symlink_to(path)
    before = sorted(path.relative_to(real_photos) for path in real_photos.rglob("*"))
    notebook, record = run_all_cells(regenerate, tmp_path, PRONK_WEIGHTS=str(real_weights.resolve()))
    assert (record["real"], record["alpha"]) == (True, 1.0)
    check_record(record)
    assert len(pictures_in(notebook)) == PICTURES
    assert sorted(path.relative_to(real_photos) for path in real_photos.rglob("*")) == before


def test_the_saved_notebook_has_the_cells_of_the_script(regenerate, saved):
    source = regenerate.read_source()
    cells = [(cell.cell_type, cell.id, cell.source) for cell in saved.cells]
    assert cells == [(cell.cell_type, cell.id, cell.source) for cell in source.cells], "run make notebook"
    assert saved.metadata.jupytext.formats == "ipynb,py:percent"


def test_the_saved_outputs_are_those_of_one_whole_run(saved):
    code = [cell for cell in saved.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = outputs_of(saved)
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert {output.name for output in outputs if output.output_type == "stream"} == {"stdout"}
    assert len(pictures_in(saved)) == PICTURES
    assert "drawn photos" in outputs[0].text, "no photo of anyone is kept in the repository"
    assert any("| pronk |" in output.get("data", {}).get("text/markdown", "") for output in outputs)
    assert (NOTEBOOKS / f"{NAME}.ipynb").stat().st_size < 1_500_000


def test_the_saved_notebook_tells_nothing_of_the_machine_it_ran_on(saved):
    pictures = set(pictures_in(saved))
    text = json.dumps(saved)
    for picture in pictures:
        text = text.replace(json.dumps(picture)[1:-1], "")
    assert len(text) < 100_000
    assert not re.search(r"/(home|root|tmp|var|mnt|opt|usr|Users)/|\b[A-Z]:\\", text)
    for own in (str(Path.home()), str(NOTEBOOKS.parent), socket.gethostname()):
        assert len(own) < 5 or own not in text
    assert set(saved.metadata) == {"jupytext", "kernelspec", "language_info"}
    assert all(cell.metadata == {} for cell in saved.cells)
