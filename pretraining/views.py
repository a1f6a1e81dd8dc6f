"""Scenes -> views: random crops in changing colours, with what is still known about each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from generator import Scenes
from painting import Dice
from torch import Tensor
from torch.nn import functional

VISIBLE = 0.02  # least share of a view its object covers to be named


@dataclass(frozen=True)
class Views:
    """v views of side s; the second half shows the same pictures as the first."""

    images: Tensor  # (v, 3, s, s) float32 in [-1, 1], channels last
    mask: Tensor  # (v, s/8, s/8) share of each cell covered by the main object
    shape: Tensor  # (v,) kind of the main object, -1 where none is seen
    texture: Tensor  # (v,) its texture, -1 where none is seen
    ground: Tensor  # (v,) texture of the background, -1 where it has two
    code: Tensor  # (v, CODE * CODE) silhouette of the main object in its own frame


def cut_views(scenes: Scenes, *, size: int, number: int, least: float = 0.25) -> Views:
    """Cut two views out of each picture.

    Args:
        scenes: b pictures.
        size: side of the views in pixels, a multiple of 32.
        number: seed of the choices.
        least: smallest share of a picture's area in a view.
    """
    dice = Dice(torch.Generator().manual_seed(number), 2 * len(scenes.shape), scenes.images.device)
    matrix = _place_crops(dice, least)
    sources = scenes.images.float().div_(255).repeat(2, 1, 1, 1)
    cover = scenes.mask.float().div_(255)[:, None].repeat(2, 1, 1, 1)
    images = _sample(sources, matrix, size)
    mask = _sample(cover, matrix, size // 8)[:, 0]
    seen = mask.mean((1, 2)) > VISIBLE
    return Views(
        images=(_change_colours(dice, images) * 2 - 1).contiguous(memory_format=torch.channels_last),
        mask=mask,
        shape=torch.where(seen, scenes.shape.repeat(2), -1),
        texture=torch.where(seen, scenes.texture.repeat(2), -1),
        ground=scenes.ground.repeat(2),
        code=scenes.code.flatten(1).float().div(255).repeat(2, 1),
    )


def _place_crops(dice: Dice, least: float) -> Tensor:
    """Draw the affine maps from view to picture, (v, 2, 3): place, size, proportion, turn, mirror."""
    side, ratio = dice.uniform(least, 1).sqrt(), torch.exp(dice.uniform(-0.15, 0.15))
    width, height = (side * ratio).clamp(max=1), (side / ratio).clamp(max=1)
    x, y = dice.uniform(-1, 1) * (1 - width), dice.uniform(-1, 1) * (1 - height)
    turn, mirror = dice.normal() * 0.08, dice.chance(0.5) * 2 - 1
    c, s = turn.cos(), turn.sin()
    first = torch.stack([c * width * mirror, -s * height, x], 1)
    second = torch.stack([s * width * mirror, c * height, y], 1)
    return torch.stack([first, second], 1)


def _sample(values: Tensor, matrix: Tensor, size: int) -> Tensor:
    grid = functional.affine_grid(matrix, [len(values), 1, size, size], align_corners=False)
    return functional.grid_sample(values, grid, padding_mode="reflection", align_corners=False)


def _change_colours(dice: Dice, images: Tensor) -> Tensor:
    """Change exposure, contrast, tint and saturation; some views lose all colour, some their sharpness."""
    gain = torch.exp(0.1 * dice.normal(3) + 0.2 * dice.normal(1))[:, :, None, None]
    images = images * gain
    middle = images.mean((1, 2, 3), keepdim=True)
    images = middle + (images - middle) * torch.exp(0.2 * dice.normal())[:, None, None, None]
    grey = images.mean(1, keepdim=True)
    saturation = torch.exp(0.4 * dice.normal()) * (1 - dice.chance(0.1))
    images = grey + (images - grey) * saturation[:, None, None, None]
    soft = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    images = images + (dice.chance(0.3) * dice.uniform(0, 1))[:, None, None, None] * (soft - images)
    return images.clamp_(0, 1)
