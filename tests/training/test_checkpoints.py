import hashlib
import logging

import numpy as np
import pytest

from pronk.errors import RunError
from pronk.training.phase_two import load_checkpoint, save_checkpoint


def save(folder, epoch):
    save_checkpoint(folder, epoch, {"kernel": np.full(500, epoch, np.float32)}, {"epoch": epoch, "history": [1.5]})


def newest(folder):
    return folder / "checkpoint-0.npz", folder / "checkpoint-1.npz"


def test_the_newest_of_two_generations_is_taken(tmp_path):
    assert load_checkpoint(tmp_path) is None
    for epoch in range(1, 6):
        save(tmp_path, epoch)
        arrays, state = load_checkpoint(tmp_path)
        assert state == {"epoch": epoch, "history": [1.5]}
        np.testing.assert_array_equal(arrays["kernel"], np.full(500, epoch, np.float32))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-0.npz", "checkpoint-1.npz"]


def spoilings():
    rng = np.random.default_rng(0)
    for number in range(50):
        yield "cut" if number % 2 else "flip", float(rng.random())


@pytest.mark.parametrize(("how", "where"), list(spoilings()))
def test_a_torn_or_altered_generation_falls_back_to_the_one_before(tmp_path, caplog, how, where):
    save(tmp_path, 1)
    save(tmp_path, 2)
    path = tmp_path / "checkpoint-0.npz"
    data = bytearray(path.read_bytes())
    place = int(where * len(data))
    if how == "cut":
        data = data[:place]
    else:
        data[place] ^= 0x40
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING, "pronk"):
        _, state = load_checkpoint(tmp_path)
    assert state["epoch"] == 1
    assert len(caplog.records) == 1
    assert "checkpoint-0.npz is damaged" in caplog.text


def test_both_damaged_is_an_error_with_a_way_out(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"checkpoint-0\.npz, checkpoint-1\.npz") as caught:
        load_checkpoint(tmp_path)
    assert "train again" in caught.value.hint


def test_the_only_one_damaged_is_an_error(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "checkpoint-1.npz").write_bytes(b"")
    with pytest.raises(RunError, match="damaged"):
        load_checkpoint(tmp_path)


def test_a_whole_file_that_is_no_checkpoint_is_refused(tmp_path):
    body = b"not a zip file"
    (tmp_path / "checkpoint-1.npz").write_bytes(hashlib.sha256(body).digest() + body)
    with pytest.raises(RunError, match="damaged"):
        load_checkpoint(tmp_path)


def test_pickles_are_not_loaded(tmp_path):
    import io

    buffer = io.BytesIO()
    np.savez(buffer, state=np.array([{"a": 1}], dtype=object))
    body = buffer.getvalue()
    (tmp_path / "checkpoint-1.npz").write_bytes(hashlib.sha256(body).digest() + body)
    with pytest.raises(RunError, match="damaged"):
        load_checkpoint(tmp_path)


def test_an_unknown_name_in_the_folder_is_ignored(tmp_path):
    save(tmp_path, 3)
    (tmp_path / ".checkpoint-0.npz.77.tmp").write_bytes(b"half")
    assert load_checkpoint(tmp_path)[1]["epoch"] == 3
