"""Views -> classical descriptions of them: energies of gradients of two orders, colours.

What computer vision described pictures by before networks learned to: cheap to compute from any picture, and a
network whose features let a line read them off knows at least as much.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

OCTAVES = 3
EDGES = OCTAVES * 4  # octaves and orientations
WORDS = 10  # of a local binary pattern
LEVELS, COARSE = 4, 3  # of each colour in the joint histograms of a view and of its quarters
GLOBAL = 2 * EDGES + 16 * EDGES + 48 + 2 * EDGES + OCTAVES * WORDS + LEVELS**3 + 4 * COARSE**3 + 4 * 6
RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


def slope(maps: Tensor) -> Tensor:
    """Return the size of the gradient in four orientations, (n, 4 c, h, w) of maps (n, c, h, w)."""
    dx = functional.pad(maps[..., 2:] - maps[..., :-2], (1, 1))
    dy = functional.pad(maps[..., 2:, :] - maps[..., :-2, :], (0, 0, 1, 1))
    return torch.cat([dx, dy, (dx + dy) * 0.5**0.5, (dx - dy) * 0.5**0.5], 1).abs_()


def measure_slopes(images: Tensor) -> list[Tensor]:
    """Return the slopes of the brightness in OCTAVES octaves: (n, 4, s >> octave, s >> octave) each."""
    grey = images.mean(1, keepdim=True).contiguous()
    slopes = []
    for _ in range(OCTAVES):
        slopes.append(slope(grey))
        grey = functional.avg_pool2d(grey, 2)
    return slopes


def measure_cells(slopes: list[Tensor]) -> Tensor:
    """Return the log energy of each octave and orientation per 8x8 cell: (n, EDGES, s/8, s/8)."""
    pooled = [functional.avg_pool2d(part, 8 >> octave) for octave, part in enumerate(slopes)]
    return (torch.cat(pooled, 1) + 0.02).log()


def describe_views(images: Tensor, slopes: list[Tensor], cells: Tensor) -> Tensor:
    """Describe whole views: (n, GLOBAL), each number standardised over the views.

    Gradients (whole, spread, on a 4x4 grid as in Dalal and Triggs, "Histograms of oriented gradients", 2005),
    gradients of gradients (a scattering transform of two orders: Bruna and Mallat, "Invariant scattering convolution
    networks", 2013), gradients of colour, local binary patterns (Ojala et al., 2002), colours of the whole and by
    quarter.
    """
    grid = functional.adaptive_avg_pool2d(cells, 4).flatten(1)
    halves = functional.avg_pool2d(slopes[0], 2), functional.avg_pool2d(slopes[1], 2)
    coarse = halves[0], functional.avg_pool2d(halves[0], 2), halves[1]
    second = [(slope(part).mean((2, 3)) + 0.005).log() for part in coarse]
    small = functional.avg_pool2d(images, 4)
    mean = functional.adaptive_avg_pool2d(small, 2).flatten(1)
    spread = (functional.adaptive_avg_pool2d(small.square(), 2).flatten(1) - mean.square()).clamp(min=1e-4).sqrt()
    half = small.shape[2] // 2
    quarters = small.unfold(2, half, half).unfold(3, half, half)
    quarters = quarters.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    parts = [
        cells.mean((2, 3)),
        cells.std((2, 3)),
        grid,
        *second,
        _measure_colour_slopes(images),
        _count_patterns(images),
        count_colours(small, levels=LEVELS),
        count_colours(quarters, levels=COARSE).unflatten(0, (len(images), 4)).flatten(1),
        mean,
        spread,
    ]
    everything = torch.cat(parts, 1)
    return (everything - everything.mean(0)) / (everything.std(0) + 1e-3)


def count_colours(images: Tensor, *, levels: int) -> Tensor:
    """Return the joint histogram of the colours with soft borders: root of the shares, (n, levels ** 3)."""
    centres = torch.linspace(-1, 1, levels, device=images.device)[:, None, None]
    gap = 2 / (levels - 1)
    red, green, blue = ((1 - (images[:, i, None] - centres).abs() / gap).clamp(min=0).flatten(2) for i in range(3))
    pairs = (red[:, :, None] * green[:, None]).flatten(1, 2)
    return (pairs @ blue.transpose(1, 2) / blue.shape[2]).flatten(1).clamp(min=1e-4).sqrt()


def _measure_colour_slopes(images: Tensor) -> Tensor:
    """Return the log energy of the gradients of the two opponent colours in each octave: (n, 2 EDGES)."""
    red, green, blue = images.unbind(1)
    maps = torch.stack([red - green, (red + green) / 2 - blue], 1)
    energies = []
    for _ in range(OCTAVES):
        maps = functional.avg_pool2d(maps, 2)
        energies.append(slope(maps).mean((2, 3)))
    return (torch.cat(energies, 1) + 0.01).log()


def _count_patterns(images: Tensor) -> Tensor:
    """Return the shares of uniform local binary patterns in each octave: root, (n, OCTAVES * WORDS)."""
    grey = images.mean(1)
    shares = []
    for _ in range(OCTAVES):
        inner = grey[:, 1:-1, 1:-1] + 0.01
        around = [grey[:, 1 + dy : grey.shape[1] - 1 + dy, 1 + dx : grey.shape[2] - 1 + dx] for dy, dx in RING]
        brighter = torch.stack([each > inner for each in around], 1)
        changes = (brighter != brighter.roll(1, 1)).sum(1)
        word = torch.where(changes <= 2, brighter.sum(1), WORDS - 1).flatten(1)
        shares.append(torch.stack([(word == number).float().mean(1) for number in range(WORDS)], 1))
        grey = functional.avg_pool2d(grey[:, None], 2)[:, 0]
    return torch.cat(shares, 1).sqrt()
