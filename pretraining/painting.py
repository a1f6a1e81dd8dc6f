"""Random numbers + distance fields -> pixels: grounds, textured shaded objects, occluders, degradation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from shapes import PARTS, Kinds
from textures import Bank, sample_bank
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class World:
    """The kinds of shapes and textures pictures are made of."""

    shapes: Kinds
    textures: Bank
    seed: int


class Dice:
    """Shorthand for the random numbers of one batch, drawn on the CPU wherever they are used."""

    def __init__(self, rng: torch.Generator, count: int, device: torch.device | str = "cpu") -> None:
        self.rng, self.count, self.device = rng, count, device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Draw (count, *shape) numbers between low and high."""
        return torch.rand(self.count, *shape, generator=self.rng).to(self.device) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        """Draw (count, *shape) standard normal numbers."""
        return torch.randn(self.count, *shape, generator=self.rng).to(self.device)

    def choose(self, limit: int) -> Tensor:
        """Draw (count,) integers below limit."""
        return torch.randint(limit, (self.count,), generator=self.rng).to(self.device)

    def chance(self, probability: float) -> Tensor:
        """Draw (count,) ones with the given probability, else zeros."""
        return (torch.rand(self.count, generator=self.rng) < probability).float().to(self.device)


@dataclass(frozen=True)
class Stencil:
    """Measured objects: distance and nearest part, (b, s, s), and scale, (b,)."""

    distance: Tensor
    part: Tensor
    scale: Tensor


def spread_axes(count: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the x and y of the pixel centres, (count, size, size) each, from -1 to 1."""
    axis = (torch.arange(size) * 2 + 1) / size - 1
    return axis.expand(count, size, size), axis[:, None].expand(count, size, size)


def draw_ground(world: World, dice: Dice, ground: Tensor, size: int, hard: float) -> tuple[Tensor, Tensor]:
    """One texture, or two with a horizon between them; returns also its texture (-1: two)."""
    contrast = dice.uniform(0.1, 0.3 + 0.4 * hard)
    layers = []
    for kinds in (ground, dice.choose(len(world.textures))):
        values = sample_bank(world.textures, kinds, size=size, zoom=_zoom(dice, size), rng=dice.rng)
        layers.append(_colour(values, _palette(dice, contrast=contrast)[1]))
    x, y = spread_axes(dice.count, size)
    divided = dice.chance(0.5 * hard)
    level = dice.uniform(-0.6, 0.5)[:, None, None]
    for k in range(1, 4):
        level = (
            level + (0.12 * dice.normal() / k)[:, None, None] * (3.0 * k * x + dice.uniform(0, 6)[:, None, None]).sin()
        )
    upper = ((level - y) * dice.uniform(3, 40)[:, None, None]).sigmoid()[:, None] * divided[:, None, None, None]
    image = layers[0] + upper * (layers[1] - layers[0])
    slope = 0.25 * dice.normal(2)[:, :, None, None]
    image = image * (1 + slope[:, :1] * x[:, None] + slope[:, 1:] * y[:, None])
    return image.clamp_(0, 1), torch.where(divided > 0, -1, ground)


def paint_objects(
    world: World, dice: Dice, image: Tensor, stencil: Stencil, skins: Tensor, hard: float, active: Tensor
) -> tuple[Tensor, Tensor]:
    """Lay textured, shaded objects with shadows where `active` is 1; return also what they cover, (b, s, s)."""
    size = image.shape[2]
    values = sample_bank(world.textures, skins, size=size, zoom=_zoom(dice, size), rng=dice.rng)
    base, stops = _palette(dice, contrast=dice.uniform(0.1, 0.5 + 0.3 * hard))
    push = _set_apart(base.mean(1), image.mean((1, 2, 3)), least=0.3 - 0.2 * hard)
    base, stops = base + push[:, None], stops + push[:, None, None]
    rough = dice.chance(0.5) * dice.uniform(0, 0.07)
    distance = stencil.distance + rough[:, None, None] * (values - 0.5)

    shades = 1 + 0.25 * dice.normal(PARTS + 1) * dice.chance(0.6)[:, None]
    skin = _colour(values, stops)
    skin = skin * shades.gather(1, stencil.part.flatten(1).long()).view_as(stencil.part)[:, None]
    light = functional.normalize(dice.normal(2) + torch.tensor([0.0, -0.8]), dim=1) * dice.uniform(0.1, 0.6, 1)
    skin = skin * (1 + 0.7 * _shade(distance, stencil.scale, light))[:, None]
    mask = (distance * (-size / 2)).sigmoid() * active[:, None, None]
    offset, depth = max(1, size // 20), active * dice.uniform(0, 0.5)
    shadow = (distance.roll((offset, offset // 2), (1, 2)) * -12).sigmoid() * depth[:, None, None]
    image = image * (1 - shadow)[:, None]
    image = image + mask[:, None] * (skin - image)
    return image.clamp_(0, 1), mask


def _set_apart(base: Tensor, ground: Tensor, *, least: float) -> Tensor:
    """Return the change of brightness that keeps objects visible on their ground."""
    gap = base - ground
    push = torch.where(gap.abs() < least, torch.where(gap < 0, -0.25, 0.25), 0.0)
    return torch.where((base + push - 0.5).abs() > 0.45, -push, push)


def _shade(distance: Tensor, scale: Tensor, light: Tensor) -> Tensor:
    """Light the relief a distance field stands for: -1 in the dark .. 1 towards the light."""
    size = distance.shape[2]
    height = (distance.clamp(-0.3, 0) * -2 / scale[:, None, None]).clamp(0, 1).sqrt()
    slope_x = functional.pad(height[:, :, 2:] - height[:, :, :-2], (1, 1)) * (size / 10)
    slope_y = functional.pad(height[:, 2:] - height[:, :-2], (0, 0, 1, 1)) * (size / 10)
    return (slope_x * light[:, :1, None] + slope_y * light[:, 1:, None]).clamp(-1, 1)


def occlude_scene(world: World, dice: Dice, image: Tensor, mask: Tensor, hard: float) -> tuple[Tensor, Tensor]:
    """Lay a strip (a post, a fence, high grass) over some of the pictures."""
    size = image.shape[2]
    x, y = spread_axes(dice.count, size)
    turned, active = dice.chance(0.5)[:, None, None], dice.chance(0.3 * hard)[:, None, None]
    along, across = torch.where(turned > 0, x, y), torch.where(turned > 0, y, x)
    wave = (across * dice.uniform(2, 40)[:, None, None]).sin() * dice.uniform(0, 0.08)[:, None, None]
    centre, width = dice.uniform(0.2, 1.0)[:, None, None], dice.uniform(0.03, 0.15)[:, None, None]
    strip = ((width - (along + wave - centre).abs()) * (size / 2)).sigmoid() * active
    values = sample_bank(
        world.textures, dice.choose(len(world.textures)), size=size, zoom=_zoom(dice, size), rng=dice.rng
    )
    colours = _colour(values, _palette(dice, contrast=dice.uniform(0.1, 0.5))[1])
    return image + strip[:, None] * (colours - image), mask * (1 - strip)


def degrade_pictures(dice: Dice, image: Tensor, hard: float) -> Tensor:
    """Tint, gamma, loss of colour, blur and noise."""
    gain = torch.exp(0.12 * dice.normal(3) + 0.12 * dice.normal(1))[:, :, None, None]
    image = (image * gain).clamp_(1e-3, 1).pow(torch.exp(0.2 * dice.normal())[:, None, None, None])
    grey = dice.chance(0.1)[:, None, None, None]
    image = image + grey * (image.mean(1, keepdim=True) - image)
    blur = (dice.chance(0.35) * dice.uniform(0.2, 1))[:, None, None, None]
    soft = functional.avg_pool2d(functional.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)
    image = image + blur * (soft - image)
    noise = torch.randn(image.shape, generator=dice.rng)
    return (image + noise * (dice.uniform(0, 0.01 + 0.03 * hard)[:, None, None, None])).clamp_(0, 1)


def _palette(dice: Dice, *, contrast: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a base colour and the three stops of a texture's colour ramp, (b, 3) and (b, 3, 3)."""
    grey, tint = dice.uniform(0.12, 0.88, 1), dice.normal(3) * dice.uniform(0.02, 0.2, 1)
    base = (grey + tint).clamp(0.03, 0.97)
    swing = (dice.uniform(0.3, 1.0, 1) * torch.sign(dice.uniform(-1, 1, 1)) + 0.35 * dice.normal(3)) * contrast[:, None]
    middle = base + (0.4 * dice.chance(0.5) * contrast)[:, None] * dice.normal(3)
    return base, torch.stack([base - swing / 2, middle, base + swing / 2], 1)


def _colour(values: Tensor, stops: Tensor) -> Tensor:
    """Map (b, h, w) in [0, 1] to (b, 3, h, w) along a ramp of three colours."""
    low, middle, high = (stop[:, :, None, None] for stop in stops.unbind(1))
    below, above = (values * 2).clamp(max=1)[:, None], (values * 2 - 1).clamp(min=0)[:, None]
    return low + below * (middle - low) + above * (high - middle)


def _zoom(dice: Dice, size: int) -> Tensor:
    """Draw pixels of the bank per pixel of the picture: fine grain, for a cell is to hold some periods."""
    return torch.exp(dice.uniform(0.0, 0.9)) * (64 / size) ** 0.5
