"""Seed -> kinds of textures -> a bank of grey fields: noise, gratings, cells, leaves, small random programs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

SIDE = 160


@dataclass(frozen=True)
class Bank:
    """Grey fields in [0, 1]: (kinds, instances, SIDE, SIDE)."""

    fields: Tensor

    def __len__(self) -> int:
        return len(self.fields)


def draw_bank(count: int, *, seed: int, instances: int = 4) -> Bank:
    """Draw `instances` fields of each of `count` kinds, families in turn.

    Example:
        >>> draw_bank(3, seed=1, instances=1).fields.shape
        torch.Size([3, 1, 160, 160])
    """
    families = (_noise, _grating, _cells, _leaves, _program)
    fields = np.zeros((count, instances, SIDE, SIDE), np.float32)
    for kind in range(count):
        for instance in range(instances):
            plan = np.random.default_rng((seed, kind))
            rng = np.random.default_rng((seed, kind, instance))
            fields[kind, instance] = _stretch(families[kind % len(families)](plan, rng))
    return Bank(torch.from_numpy(fields))


def describe_kinds(bank: Bank, *, size: int) -> Tensor:
    """Describe each kind by `size` whitened numbers taken from its spectrum and grey values."""
    values = (bank.fields - bank.fields.mean((2, 3), keepdim=True)) / bank.fields.std((2, 3), keepdim=True)
    power = torch.fft.fft2(values).abs().square() / SIDE**2
    fy, fx = torch.meshgrid(torch.fft.fftfreq(SIDE), torch.fft.fftfreq(SIDE), indexing="ij")
    octave = torch.hypot(fx, fy).clamp(min=0.02, max=0.5).log2().add(5.65).mul(0.9).floor().long()
    sector = torch.atan2(fy, fx).mul(4 / torch.pi).round().long() % 4
    group = functional.one_hot((octave * 4 + sector).flatten()).float()
    energy = power.flatten(2) @ (group / group.sum(0).clamp(min=1))
    moments = torch.stack([values.pow(3).mean((2, 3)).abs(), values.pow(4).mean((2, 3))], -1)
    table = torch.cat([(energy + 0.01).log(), moments], -1).mean(1)
    table = (table - table.mean(0)) / (table.std(0) + 1e-3)
    left, _, _ = torch.linalg.svd(table, full_matrices=False)
    return (left[:, :size] * len(table) ** 0.5).clamp(-3, 3)


def _stretch(values: np.ndarray) -> np.ndarray:
    low, high = np.quantile(values, [0.02, 0.98])
    return np.clip((values - low) / max(high - low, 1e-6), 0, 1)


def _filtered(
    rng: np.random.Generator, *, slope: float, centre: float, angle: float = 0.0, stretch: float = 1.0
) -> np.ndarray:
    """Filter white noise: a power law, or a ring at `centre` cycles a pixel, squeezed along `angle`."""
    fy, fx = np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE), indexing="ij")
    along, across = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
    frequency = np.hypot(along * stretch, across / stretch) + 1.0 / SIDE
    gain = np.exp(-(np.log(frequency / centre) ** 2) / 0.15) if centre else frequency**-slope
    gain[0, 0] = 0
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIDE, SIDE))) * gain).real
    return noise / noise.std()


def _noise(plan: np.random.Generator, rng: np.random.Generator) -> np.ndarray:
    """Power-law or band-passed noise, isotropic or fur-like, through one of five curves."""
    centre = plan.choice([0.0, 1.0]) * np.exp(plan.uniform(np.log(0.03), np.log(0.25)))
    values = _filtered(rng, slope=plan.uniform(0.7, 2.2), centre=centre, angle=plan.uniform(0, np.pi),
                       stretch=np.exp(plan.choice([0.0, 1.0]) * plan.uniform(0.5, 1.4)))  # fmt: skip
    curve, strength = plan.integers(5), plan.uniform(2, 6)
    if curve == 1:
        return np.tanh(strength * values)
    if curve == 2:
        return np.abs(values) ** 0.7
    if curve == 3:
        return np.sin(strength * values)
    if curve == 4:
        return np.maximum(values, plan.uniform(-0.5, 1.0))
    return values


def _grating(plan: np.random.Generator, rng: np.random.Generator) -> np.ndarray:
    """Stripes, checks or bands of a given wave form, warped by smooth noise."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    warp = plan.choice([0.2, 1.0, 2.5])
    bend = [warp * _filtered(rng, slope=2.5, centre=0) for _ in range(2)]
    angle = plan.uniform(0, np.pi) + rng.normal(0, 0.1)
    rate = 2 * np.pi * np.exp(plan.uniform(np.log(0.04), np.log(0.2)))
    phase = rng.uniform(0, 2 * np.pi, 2)
    along = rate * (x * np.cos(angle) + y * np.sin(angle)) + bend[0] + phase[0]
    other = rate * plan.choice([0.5, 1.0])
    across = other * (y * np.cos(angle) - x * np.sin(angle)) + bend[1] + phase[1]
    form, pattern, duty = plan.integers(3), plan.integers(4), plan.uniform(-0.6, 0.6)
    shape = [np.sin, lambda t: np.tanh(5 * (np.sin(t) - duty)), lambda t: (t / (2 * np.pi)) % 1.0][form]
    if pattern == 0:
        return shape(along)
    if pattern == 1:
        return shape(along) * shape(across)
    if pattern == 2:
        return np.maximum(shape(along), shape(across))
    return shape(along + 1.5 * np.sin(across))


def _cells(plan: np.random.Generator, rng: np.random.Generator) -> np.ndarray:
    """Spots, cracks or mosaics: functions of the two nearest points of a jittered grid."""
    period, jitter, squeeze = plan.uniform(7, 26), plan.choice([0.1, 0.5, 1.0]), np.exp(plan.normal(0, 0.35))
    columns, lines = int(SIDE / period) + 3, int(SIDE / period / squeeze) + 3
    gy, gx = np.mgrid[:lines, :columns].astype(np.float64)
    gx += plan.choice([0.0, 0.5]) * (gy % 2)
    points = np.stack([gx, gy * squeeze], -1).reshape(-1, 2) - 1
    points += jitter * rng.uniform(-0.5, 0.5, points.shape)
    points = torch.tensor(points * period, dtype=torch.float32)
    axis = torch.arange(SIDE, dtype=torch.float32)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2)
    near, index = torch.cdist(grid, points).topk(2, largest=False)
    first, second = (near / period).numpy().reshape(SIDE, SIDE, 2).transpose(2, 0, 1)
    tone = rng.random(len(points))[index[:, 0].numpy()].reshape(SIDE, SIDE)
    mode, size = plan.integers(5), plan.uniform(0.2, 0.45)
    gap = second - first
    return (first, np.tanh(12 * (first - size)), gap, np.tanh(15 * (gap - 0.12)), tone + 0.3 * first)[mode]


def _leaves(plan: np.random.Generator, rng: np.random.Generator) -> np.ndarray:
    """Dead leaves: shapes of power-law size fallen over one another, each with a tone and a slope of its own.

    Source: Lee, Mumford and Huang, "Occlusion models for natural images", 2001.
    """
    power, smallest, largest = plan.uniform(1.5, 3.5), plan.uniform(2, 5), plan.uniform(10, 40)
    squeeze, corner, slope = np.exp(plan.normal(0, 0.5)), plan.choice([1.0, 2.0, 6.0]), plan.uniform(0, 1.0)
    direction, loose = plan.uniform(0, np.pi), plan.choice([0.1, 3.0])
    values = np.full((SIDE, SIDE), 0.5)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    edge = 1 - power
    draws = rng.random(int(min(1500, 12 * (SIDE / smallest) ** 2 / 10)))
    sizes = (smallest**edge + draws * (largest**edge - smallest**edge)) ** (1 / edge)
    for size in sizes:
        cx, cy = rng.uniform(0, SIDE, 2)
        reach = int(size * max(squeeze, 1 / squeeze)) + 2
        rows = slice(max(0, int(cy) - reach), int(cy) + reach)
        columns = slice(max(0, int(cx) - reach), int(cx) + reach)
        turn = direction + loose * rng.uniform(-0.5, 0.5)
        dx, dy = x[rows, columns] - cx, y[rows, columns] - cy
        u = (dx * np.cos(turn) + dy * np.sin(turn)) / (size * squeeze)
        v = (dy * np.cos(turn) - dx * np.sin(turn)) / (size / squeeze)
        inside = np.abs(u) ** corner + np.abs(v) ** corner < 1
        values[rows, columns][inside] = (rng.random() + slope * (u - 0.5 * v))[inside]
    return values


def _program(plan: np.random.Generator, rng: np.random.Generator) -> np.ndarray:
    """Run a random little program: waves and noise bent by one another, folded and joined.

    Source of the idea: Baradad et al., "Procedural Image Programs for Representation Learning", 2022.
    """
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64) / SIDE * 2 - 1
    x, y = x + rng.uniform(-0.5, 0.5), y + rng.uniform(-0.5, 0.5)
    turn = plan.uniform(0, np.pi) + rng.normal(0, 0.1)
    x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    rate = np.exp(plan.uniform(np.log(6), np.log(40), 3))
    for step in range(plan.integers(2, 5)):
        bend, phase = plan.uniform(0.05, 0.3), rng.uniform(0, 2 * np.pi)
        action = plan.integers(5)
        if action == 0:
            x, y = x + bend * np.sin(rate[step % 3] * y / 3 + phase), y
        elif action == 1:
            x, y = np.hypot(x, y) - 0.5, np.arctan2(y, x) / 3
        elif action == 2:
            x, y = np.abs((x * 2 + 1) % 2 - 1) - 0.5, y
        elif action == 3:
            x, y = x + bend * _filtered(rng, slope=2.0, centre=0), y + bend * _filtered(rng, slope=2.0, centre=0)
        else:
            x, y = x * y + bend, x - y
    first = np.sin(rate[0] * x + rng.uniform(0, 6)) + plan.uniform(0, 1) * np.sin(rate[1] * y + rng.uniform(0, 6))
    second = _filtered(rng, slope=plan.uniform(0.8, 2.0), centre=0)
    join = plan.integers(5)
    joined = (first, first + second, np.maximum(first, second), first * second, np.where(second > 0, first, -first))
    values = joined[join]
    return np.tanh(plan.uniform(2, 6) * values) if plan.random() < 0.4 else values


def sample_bank(bank: Bank, kinds: Tensor, *, size: int, zoom: Tensor, rng: torch.Generator) -> Tensor:
    """Cut a window of each kind, shifted, turned by up to 25 degrees and scaled: (b, size, size).

    Args:
        bank: the fields.
        kinds: (b,) rows of the bank.
        size: side of the window in pixels.
        zoom: (b,) pixels of the bank per pixel of the window.
        rng: source of the choices.
    """
    count = len(kinds)
    which = torch.randint(bank.fields.shape[1], (count,), generator=rng)
    turn = (torch.rand(count, generator=rng) - 0.5) * 0.9
    span = zoom * size / SIDE
    shift = (torch.rand(count, 2, generator=rng) * 2 - 1) * (1 - span).clamp(min=0)[:, None]
    c, s = span * turn.cos(), span * turn.sin()
    matrix = torch.stack([torch.stack([c, -s, shift[:, 0]], 1), torch.stack([s, c, shift[:, 1]], 1)], 1)
    grid = functional.affine_grid(matrix, [count, 1, size, size], align_corners=False)
    source = bank.fields[kinds, which][:, None]
    return functional.grid_sample(source, grid, padding_mode="reflection", align_corners=False)[:, 0]
