"""Pre-training: the generator is a pure function, and the h5 file is Keras's own layout."""

import sys

import numpy as np
import pytest

from helpers import ROOT
from helpers.scripts import load_script

torch = pytest.importorskip("torch", reason="pre-training needs torch, which the extra `torch` installs")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def scripts():
    """Import the modules of pretraining/, which are no package."""
    names = (
        "shapes", "textures", "painting", "generator", "pool", "views", "descriptors", "network", "objectives",
        "held_out", "train",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "pretraining")  # processes that they start import them too
        yield {name: load_script(ROOT / "pretraining" / f"{name}.py") for name in names}
    for name in names:  # others may be called alike
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def world(scripts):
    return scripts["generator"].build_world(shapes=10, textures=5, seed=5)


def draw(scripts, world, number, **options):
    settings = scripts["generator"].Settings(count=4, size=64, hardness=1.0)
    return scripts["generator"].draw_scenes(world, settings, number, **options)


def test_same_batch_number_draws_the_same_scenes(scripts, world):
    again = scripts["generator"].build_world(shapes=10, textures=5, seed=5)
    for name, value in vars(draw(scripts, world, 7)).items():
        assert torch.equal(value, getattr(draw(scripts, again, 7), name)), name


@pytest.fixture(scope="module")
def pool(scripts, world, tmp_path_factory):
    return scripts["pool"].open_pool(world, tmp_path_factory.mktemp("pool"), count=200)


def test_pool_holds_what_the_generator_draws(scripts, world, pool):
    settings = scripts["generator"].Settings(count=100, size=128, hardness=0.5)
    drawn = scripts["generator"].draw_scenes(world, settings, 1)
    taken = pool.take(np.arange(100, 200))
    for name, value in vars(drawn).items():
        assert torch.equal(value, getattr(taken, name)), name


def test_unfinished_pool_is_drawn_on(scripts, world, pool, tmp_path):
    again = scripts["pool"].open_pool(world, tmp_path, count=200)
    assert (again.arrays["shape"] >= -1).all()
    # As a kill leaves it: the pictures of the second batch are there in part, its names are not.
    images, names = (np.load(tmp_path / f"{name}.npy", mmap_mode="r+") for name in ("images", "shape"))
    images[150:], names[100:] = 0, -2
    resumed = scripts["pool"].open_pool(world, tmp_path, count=200)
    for name, array in pool.arrays.items():
        np.testing.assert_array_equal(resumed.arrays[name], array)


def test_pool_of_another_world_is_refused(scripts, world, tmp_path):
    (tmp_path / "world.txt").write_text("1 600 240 200000\n")
    with pytest.raises(ValueError, match="remove it"):
        scripts["pool"].open_pool(world, tmp_path, count=200)


def test_views_show_the_same_pictures_twice(scripts, pool):
    scenes = pool.take(np.arange(20))
    views = scripts["views"].cut_views(scenes, size=64, number=3)
    assert views.images.shape == (40, 3, 64, 64)
    assert views.mask.shape == (40, 8, 8)
    assert views.images.abs().max() <= 1
    assert torch.equal(views.ground[:20], views.ground[20:])
    assert torch.equal(views.code[:20], scenes.code.flatten(1).float() / 255)
    assert not torch.equal(views.images[:20], views.images[20:])
    again = scripts["views"].cut_views(scenes, size=64, number=3)
    assert torch.equal(views.images, again.images)
    assert not torch.equal(views.images, scripts["views"].cut_views(scenes, size=64, number=4).images)


def test_mask_moves_with_its_picture(scripts):
    white = torch.zeros(30, 3, 128, 128, dtype=torch.uint8)
    white[:, :, :64] = 255  # an object in the upper half, and nothing else
    mask = torch.zeros(30, 32, 32, dtype=torch.uint8)
    mask[:, :16] = 255
    nothing = torch.zeros(30, dtype=torch.int64)
    scenes = scripts["generator"].Scenes(white, mask, nothing, nothing, nothing, torch.zeros(30, 12, 12))
    views = scripts["views"].cut_views(scenes, size=64, number=1)
    bright = torch.nn.functional.avg_pool2d(views.images.mean(1, keepdim=True), 8)[:, 0] > 0
    assert (bright == (views.mask > 0.5)).float().mean() > 0.95


def make_recipe(scripts, **changes):
    few = {"steps": 10, "shapes": 10, "textures": 5, "styles": 3, "warm_up": 1, "pictures": 200, "processes": 1}
    return scripts["train"].Recipe(**few | {"phases": ((1.0, 64, 8),)} | changes)


def test_one_step_changes_the_network(scripts, world, pool):
    train, recipe = scripts["train"], make_recipe(scripts)
    state = train.build_state(recipe, world)
    before = state.network.Conv_1.weight.clone()
    log = train.take_step(state, recipe, train.make_views(pool, recipe, 0, 0, "cpu"))
    assert all(np.isfinite(value) for value in log.values())
    assert not torch.equal(before, state.network.Conv_1.weight)
    assert state.step == 1


def test_run_goes_on_where_it_was_stopped(scripts, pool, tmp_path, monkeypatch):
    pytest.importorskip("h5py", reason="the file format needs h5py, which comes with keras")
    train = scripts["train"]
    monkeypatch.setattr(train, "draw_tasks", dict)
    monkeypatch.setattr(train, "available_cores", lambda: 1)

    def run(name, until, *, resume=False):
        recipe = make_recipe(scripts, steps=4, seed=5)
        train.train(0, train.Job(recipe, tmp_path / name, tmp_path / "pool", resume, until, "cpu"))
        return (tmp_path / name).read_bytes()

    whole = run("whole.h5", 4)
    run("parts.h5", 2)
    assert run("parts.h5", 4, resume=True) == whole


def randomise(network):
    """Give every parameter and statistic a value of its own, as training would."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.dtype == torch.float32 and value.dim() == 1:
                low = 0.5 if name.endswith(("weight", "running_var")) else -0.2
                value.copy_(torch.rand(value.shape, generator=generator) * 0.7 + low)


@pytest.mark.parametrize("size", [64, 96])
def test_export_agrees_with_keras(scripts, tmp_path, size):
    keras = pytest.importorskip("keras", reason="the comparison needs keras, which the extra `train` installs")
    pytest.importorskip("h5py", reason="the file format needs h5py, which comes with keras")
    torch.manual_seed(0)
    network = scripts["network"].MobileNetV2().eval()
    randomise(network)
    scripts["network"].export_h5(network, tmp_path / "weights.h5")
    again = scripts["network"].MobileNetV2().eval()
    scripts["network"].import_h5(again, tmp_path / "weights.h5")

    model = keras.applications.MobileNetV2(
        weights=str(tmp_path / "weights.h5"), alpha=0.35, include_top=False, input_shape=(size, size, 3)
    )
    images = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        ours = again(torch.from_numpy(images).permute(0, 3, 1, 2))[2].permute(0, 2, 3, 1).numpy()
    theirs = np.asarray(model(images, training=False))
    assert theirs.std() > 0.01
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
