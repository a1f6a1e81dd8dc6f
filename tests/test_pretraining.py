"""Pre-training: the generator is a pure function, and the h5 file is Keras's own layout."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pre-training needs torch, which the extra `torch` installs")
torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "src" / "pronk" / "weights" / "offline_mobilenet_v2_0.35.h5"


@pytest.fixture(scope="module")
def scripts() -> dict[str, ModuleType]:
    """Import the modules of pretraining/, which are no package."""
    names = ("generator", "shapes", "textures", "network", "objectives", "probe", "train")
    sys.path.insert(0, str(ROOT / "pretraining"))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(ROOT / "pretraining"))
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def world(scripts: dict[str, ModuleType]) -> object:
    return scripts["generator"].build_world(shapes=10, textures=3, seed=5)


def draw(scripts: dict[str, ModuleType], world: object, number: int, **options: object) -> object:
    settings = scripts["generator"].Settings(count=4, size=64, hardness=1.0)
    return scripts["generator"].draw_scenes(world, settings, number, **options)


def test_same_batch_number_draws_the_same_scenes(scripts: dict[str, ModuleType], world: object) -> None:
    again = scripts["generator"].build_world(shapes=10, textures=3, seed=5)
    for name, value in vars(draw(scripts, world, 7)).items():
        assert torch.equal(value, getattr(draw(scripts, again, 7), name)), name


def test_other_batches_and_streams_differ(scripts: dict[str, ModuleType], world: object) -> None:
    images = draw(scripts, world, 7).images
    assert not torch.equal(images, draw(scripts, world, 8).images)
    assert not torch.equal(images, draw(scripts, world, 7, stream=3).images)


def test_scenes_have_the_promised_shapes_and_types(scripts: dict[str, ModuleType], world: object) -> None:
    scenes = draw(scripts, world, 0)
    shapes = {name: tuple(value.shape) for name, value in vars(scenes).items()}
    code, attributes = scripts["generator"].CODE, scripts["generator"].ATTRIBUTES
    assert shapes == {
        "images": (4, 3, 64, 64),
        "shape": (4,), "texture": (4,), "ground": (4,), "attributes": (4, attributes),
        "code": (4, code, code),
        "mask": (4, 8, 8), "cover": (4, 8, 8), "edges": (4, 12, 8, 8), "colour": (4, 3, 8, 8),
    }  # fmt: skip
    assert scenes.images.dtype == torch.uint8
    assert scenes.shape.dtype == scenes.cover.dtype == torch.int64
    assert all(torch.isfinite(value.float()).all() for value in vars(scenes).values())
    assert scenes.mask.min() >= 0
    assert scenes.mask.max() <= 1


def test_main_object_is_of_the_kind_asked_for_and_visible(scripts: dict[str, ModuleType], world: object) -> None:
    wanted = torch.tensor([1, 2, 3, 4])
    easy = scripts["generator"].Settings(count=4, size=64, hardness=0.0)
    scenes = scripts["generator"].draw_scenes(world, easy, 0, shape=wanted)
    assert torch.equal(scenes.shape, wanted)
    assert (scenes.mask.flatten(1).amax(1) > 0.2).all()


def test_pictures_without_main_object_have_no_labels_for_it(scripts: dict[str, ModuleType], world: object) -> None:
    settings = scripts["generator"].Settings(count=40, size=64, hardness=0.0)
    scenes = scripts["generator"].draw_scenes(world, settings, 1)
    absent = scenes.shape < 0
    assert 0 < absent.sum() < 40
    assert (scenes.mask[absent] == 0).all()
    assert (scenes.texture[absent] == -1).all()


def test_textures_fill_the_grey_range(world: object) -> None:
    fields = world.textures.fields
    assert fields.shape == (3, 5, 160, 160)
    assert fields.amin((2, 3)).max() < 0.05
    assert fields.amax((2, 3)).min() > 0.95


def test_one_step_changes_the_network(scripts: dict[str, ModuleType], world: object) -> None:
    train = scripts["train"]
    recipe = train.Recipe(steps=10, shapes=10, textures=3, styles=3, warm_up=1)
    state = train.build_state(recipe, world)
    before = state.network.Conv_1.weight.clone()
    log = train.take_step(state, recipe, draw(scripts, world, 0))
    assert all(np.isfinite(value) for value in log.values())
    assert not torch.equal(before, state.network.Conv_1.weight)
    assert state.step == 1


def test_checkpoint_restores_the_state(scripts: dict[str, ModuleType], world: object, tmp_path: Path) -> None:
    train = scripts["train"]
    recipe = train.Recipe(steps=10, shapes=10, textures=3, styles=3, warm_up=1)
    state = train.build_state(recipe, world)
    train.take_step(state, recipe, draw(scripts, world, 0))
    train.write_checkpoint(state, tmp_path / "checkpoint")
    other = train.build_state(train.Recipe(steps=10, seed=2, shapes=10, textures=3, styles=3), world)
    other.unpack(torch.load(tmp_path / "checkpoint", weights_only=True))
    losses = [train.take_step(each, recipe, draw(scripts, world, 1)) for each in (state, other)]
    assert losses[0] == losses[1]


def randomise(network: object) -> None:
    """Give every parameter and statistic a value of its own, as training would."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.dtype == torch.float32 and value.dim() == 1:
                low = 0.5 if name.endswith(("weight", "running_var")) else -0.2
                value.copy_(torch.rand(value.shape, generator=generator) * 0.7 + low)


@pytest.mark.parametrize("size", [64, 96])
def test_export_agrees_with_keras(scripts: dict[str, ModuleType], tmp_path: Path, size: int) -> None:
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


def test_shipped_file_is_small_and_loads() -> None:
    keras = pytest.importorskip("keras", reason="loading needs keras, which the extra `train` installs")
    assert SHIPPED.stat().st_size <= 2_000_000
    model = keras.applications.MobileNetV2(weights=str(SHIPPED), alpha=0.35, include_top=False, input_shape=(96, 96, 3))
    assert all(np.isfinite(value).all() for value in model.get_weights())
    assert np.asarray(model(np.zeros((1, 96, 96, 3), np.float32), training=False)).max() > 0
