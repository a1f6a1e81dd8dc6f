import numpy as np
import pytest
from PIL import Image, ImageOps

from pronk import check
from pronk.errors import DataError, SettingsError, StorageError
from pronk.photos.drawing import KINDS, draw_photo, draw_photos
from pronk.photos.drawing.brush import silhouette

SMALL = (120, 90)


def read_all(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def load_upright(path):
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("drawn") / "photos", photos_per_class=30, size=SMALL)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_fills_a_photo_of_any_asked_size_and_is_drawn_the_same_again(kind):
    for size in ((130, 170), (33, 32), (700, 35)):
        image, again, other = (draw_photo(kind, np.random.default_rng(seed), size) for seed in (3, 3, 4))
        assert (image.mode, image.size) == ("RGB", size)
        assert np.asarray(image).std() > 10
        assert image.tobytes() == again.tobytes() != other.tobytes()


def test_figures_are_large_lie_in_the_frame_and_no_kind_is_larger(monkeypatch):
    shares = {kind: [] for kind in KINDS}

    def measure(canvas, parts, *, place, **_):
        height, width = canvas.shape[:2]
        outlines = [place.put(outline) for part in parts for outline in part.outlines]
        inside = np.asarray(silhouette(outlines, (width, height)), bool).sum()
        roomy = [outline + np.array([width, height]) for outline in outlines]
        everything = np.asarray(silhouette(roomy, (3 * width, 3 * height)), bool).sum()
        assert inside > 0.9 * everything
        shares[kind].append(inside / min(width, height) ** 2)

    monkeypatch.setattr("pronk.photos.drawing.photos.paint", measure)
    for kind in KINDS:
        for seed in range(6):
            draw_photo(kind, np.random.default_rng(seed), SMALL if seed % 3 else SMALL[::-1])
    means = {kind: np.mean(values) for kind, values in shares.items()}
    assert min(min(values) for values in shares.values()) > 0.08
    assert max(means.values()) < 1.35 * min(means.values())


def test_photos_are_whole_jpegs_in_both_formats_upright_after_transposing(photos):
    shown, tags, upper_is_bluer = [], [], []
    for path in photos.glob("*/*.jpg"):
        with Image.open(path) as image:
            assert image.format == "JPEG"
            tags.append(image.getexif().get(0x0112, 1))
        shown.append(load_upright(path).size)
        if tags[-1] != 1:
            pixels = np.asarray(load_upright(path), float)
            blue = pixels[..., 2] - pixels[..., 1]
            upper_is_bluer.append(blue[: len(blue) // 8].mean() > blue[-len(blue) // 8 :].mean())
    assert set(shown) == {SMALL, SMALL[::-1]}
    assert {1, 3, 6, 8} == set(tags)
    assert np.mean(np.array(tags) == 1) > 0.6
    assert np.mean(upper_is_bluer) > 0.8


def test_a_photo_depends_on_its_number_and_the_seed_and_not_on_others(tmp_path):
    many = read_all(draw_photos(tmp_path / "many", photos_per_class=3, size=SMALL, kinds=("bird", "house")))
    seen, few = [], {"photos_per_class": 2, "size": SMALL, "kinds": ("house",)}
    drawn = draw_photos(tmp_path / "few", on_progress=lambda *at: seen.append(at), **few)
    assert read_all(drawn).items() <= many.items()
    assert sorted(many) == [f"{kind}/{kind}_000{n}.jpg" for kind in ("bird", "house") for n in (1, 2, 3)]
    assert set(read_all(draw_photos(tmp_path / "other", seed=2, **few)).values()).isdisjoint(many.values())
    assert seen == [(1, 2), (2, 2)]


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(DataError, match="not an empty folder") as caught:
        draw_photos(tmp_path, photos_per_class=1, size=SMALL)
    assert caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(DataError, match="not an empty folder"):
        draw_photos(tmp_path / "mine.txt", size=SMALL)
    with pytest.raises(StorageError):
        draw_photos(tmp_path / "mine.txt" / "below", photos_per_class=1, size=SMALL)


KINDS_REFUSED = (("dragon",), (), ("bird", "bird"))
OTHERS_REFUSED = ({"photos_per_class": 0}, {"seed": -1}, {"size": (640, 8)})


@pytest.mark.parametrize("settings", [*({"kinds": kinds} for kinds in KINDS_REFUSED), *OTHERS_REFUSED])
def test_impossible_settings_are_refused_before_drawing(tmp_path, settings):
    with pytest.raises(SettingsError) as caught:
        draw_photos(tmp_path / "out", **settings)
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


def test_nothing_but_the_shape_tells_the_class(photos):
    found = check(photos).shortcuts
    assert {shortcut.kind for shortcut in found} >= {"file_size", "dimensions", "colour", "border"}
    assert max(shortcut.value for shortcut in found) <= 0.5, "chance is one in three"
