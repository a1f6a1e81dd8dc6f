"""(seed, batch number) -> pictures by formula and what is in them: shaded objects on textured grounds.

No photograph is involved anywhere. `World` holds what stays the same over a run (the kinds of shapes and
textures); `draw_scenes` is a pure function of (world, settings, batch number).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from painting import (
    Dice,
    Stencil,
    World,
    degrade_pictures,
    draw_ground,
    occlude_scene,
    paint_objects,
    spread_axes,
)
from shapes import Pose, draw_kinds, measure_distance, pose_instances
from textures import draw_bank
from torch import Tensor
from torch.nn import functional

CODE = 12  # side of the shape code, a small silhouette of the main object in its own frame
PRESENT = 0.7  # share of the pictures with a main object; the others show their ground


@dataclass(frozen=True)
class Settings:
    """How one batch is drawn.

    Attributes:
        count: pictures.
        size: side in pixels, a multiple of 32.
        hardness: 0 large centred objects on quiet grounds .. 1 everything.
    """

    count: int
    size: int
    hardness: float


@dataclass(frozen=True)
class Scenes:
    """Pictures and what is known about them (b pictures of side s)."""

    images: Tensor  # (b, 3, s, s) uint8
    mask: Tensor  # (b, s/4, s/4) uint8, 255 where the main object covers the 4x4 pixels
    shape: Tensor  # (b,) kind of the main object, -1 without one
    texture: Tensor  # (b,) its texture, -1 without one
    ground: Tensor  # (b,) texture of the background, -1 where it has two
    code: Tensor  # (b, CODE, CODE) uint8 silhouette of the main object in its own frame


def build_world(*, shapes: int, textures: int, seed: int) -> World:
    """Draw up the kinds."""
    return World(draw_kinds(shapes, seed=seed), draw_bank(textures, seed=seed + 1), seed)


@dataclass(frozen=True)
class Placement:
    """Where objects stand: all (b,), in units where the picture spans [-1, 1]."""

    x: Tensor
    y: Tensor
    scale: Tensor
    turn: Tensor
    flip: Tensor
    aspect: Tensor


def draw_scenes(
    world: World,
    settings: Settings,
    number: int,
    *,
    stream: int = 0,
    shape: Tensor | None = None,
    ground: Tensor | None = None,
) -> Scenes:
    """Draw batch `number` of `stream`.

    Args:
        world: the kinds.
        settings: size and hardness.
        number: number of the batch.
        stream: 0 training; others never meet it.
        shape: (b,) kinds of the main objects; None draws them, or none at all in some pictures.
        ground: (b,) textures of the backgrounds; None draws them.

    Example:
        >>> world = build_world(shapes=5, textures=5, seed=1)
        >>> draw_scenes(world, Settings(count=2, size=64, hardness=0.5), 0).images.shape
        torch.Size([2, 3, 64, 64])
    """
    rng = torch.Generator().manual_seed(((world.seed * 31 + stream) * 1_000_003 + number) % 2**63)
    dice, size, hard = Dice(rng, settings.count), settings.size, settings.hardness
    kind = dice.choose(len(world.shapes)) if shape is None else shape
    skins, floor = dice.choose(len(world.textures)), dice.choose(len(world.textures))
    image, known = draw_ground(world, dice, floor if ground is None else ground, size, hard)
    image = _add_bystander(world, dice, image, hard)

    pose = pose_instances(world.shapes, kind, rng=rng, variation=0.6 + 0.4 * hard)
    stencil = _measure_object(pose, _place_main(dice, hard), size=size, grid=min(size, 64))
    present = dice.chance(PRESENT if shape is None else 1.0)
    image, mask = paint_objects(world, dice, image, stencil, skins, hard, present)
    image, mask = occlude_scene(world, dice, image, mask, hard)
    image = degrade_pictures(dice, image, hard)

    axis = torch.linspace(-1, 1, CODE).expand(settings.count, CODE, CODE)
    code = (measure_distance(pose, axis, axis.transpose(1, 2))[0] * -8).sigmoid()
    return Scenes(
        images=_round_pixels(image),
        mask=_round_pixels(functional.avg_pool2d(mask[:, None], 4)[:, 0]),
        shape=torch.where(present > 0, kind, -1),
        texture=torch.where(present > 0, skins, -1),
        ground=known,
        code=_round_pixels(code),
    )


def _round_pixels(values: Tensor) -> Tensor:
    return (values * 255).round().clamp(0, 255).to(torch.uint8)


def _add_bystander(world: World, dice: Dice, image: Tensor, hard: float) -> Tensor:
    """Paint a smaller object near the rim of some of the pictures."""
    size = image.shape[2]
    active = dice.chance(0.8 * hard)
    side = torch.sign(dice.uniform(-1, 1))
    place = Placement(
        x=side * dice.uniform(0.45, 1.0),
        y=dice.uniform(-0.6, 0.9),
        scale=dice.uniform(0.12, 0.4),
        turn=dice.normal() * 0.3,
        flip=dice.chance(0.5) * 2 - 1,
        aspect=1 + 0.1 * dice.normal(),
    )
    pose = pose_instances(world.shapes, dice.choose(len(world.shapes)), rng=dice.rng)
    stencil = _measure_object(pose, place, size=size, grid=min(size, 48))
    return paint_objects(world, dice, image, stencil, dice.choose(len(world.textures)), hard, active)[0]


def _place_main(dice: Dice, hard: float) -> Placement:
    spread = 0.1 + 0.3 * hard
    return Placement(
        x=dice.uniform(-spread, spread),
        y=dice.uniform(-spread, spread),
        scale=dice.uniform(0.75 - 0.35 * hard, 0.95),
        turn=dice.normal() * (0.05 + 0.15 * hard),
        flip=dice.chance(0.5) * 2 - 1,
        aspect=torch.exp(0.1 * dice.normal()),
    )


def _measure_object(pose: Pose, place: Placement, *, size: int, grid: int) -> Stencil:
    """Measure placed objects in picture units, on a coarse grid that is then enlarged."""
    x, y = spread_axes(len(place.x), grid)
    dx, dy = x - place.x[:, None, None], y - place.y[:, None, None]
    c, s = (place.turn.cos() / place.scale)[:, None, None], (place.turn.sin() / place.scale)[:, None, None]
    u = (dx * c + dy * s) * (place.flip * place.aspect)[:, None, None]
    distance, part = measure_distance(pose, u, dy * c - dx * s)
    distance = distance * place.scale[:, None, None]
    if grid != size:
        distance = functional.interpolate(distance[:, None], size=(size, size), mode="bilinear")[:, 0]
        part = functional.interpolate(part[:, None], size=(size, size), mode="nearest")[:, 0]
    return Stencil(distance, part, place.scale)
