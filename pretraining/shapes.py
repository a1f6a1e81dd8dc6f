"""Seed -> kinds of shapes -> distance fields: articulated unions of rounded boxes around a wavy body.

A kind fixes the plan (which parts hang where, how long, how thick); an instance varies it (joints, lengths).
Coordinates: x to the right, y down, an instance fits into [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

PARTS = 10
HARMONICS = 6  # cos(2t) .. cos(7t)
FAMILIES = ("creature", "plant", "thing", "contour", "chain")


@dataclass(frozen=True)
class Kinds:
    """Tables of shape kinds, one row per kind; part p hangs on parent[p] (0 is the body, p + 1 is part p)."""

    body: Tensor  # (n, 2) half axes
    waves: Tensor  # (n, HARMONICS, 2) amplitude, phase
    parent: Tensor  # (n, PARTS) int64
    attach: Tensor  # (n, PARTS, 2) fractions of the body's half axes, or (fraction of the part's length, 0)
    joint: Tensor  # (n, PARTS, 4) angle to the parent, half length, half width (0: absent), looseness
    round: Tensor  # (n, PARTS) 1 capsule .. 0 box

    def __len__(self) -> int:
        return len(self.body)


@dataclass(frozen=True)
class Pose:
    """Placed instances: the body's half axes, waves and centre, the parts' centres, directions and sizes."""

    body: Tensor  # (b, 4) centre, half axes
    waves: Tensor  # (b, HARMONICS, 2)
    parts: Tensor  # (b, PARTS, 6) centre x, y, cos, sin, half length, half width
    round: Tensor  # (b, PARTS)


@dataclass
class Plan:
    """One kind while it is being drawn up."""

    body: tuple[float, float] = (0.3, 0.3)
    waves: np.ndarray = field(default_factory=lambda: np.zeros((HARMONICS, 2)))
    parts: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, parent: int, at: tuple[float, float], angle: float, length: float, width: float, *,
            loose: float = 0.15, round: float = 1.0) -> int:  # fmt: skip
        """Append a part (angle in radians, half length, half width) and return its index as a parent."""
        if len(self.parts) < PARTS:
            self.parts.append((parent, *at, angle, length, width, loose, round))
        return len(self.parts)


def draw_kinds(count: int, *, seed: int) -> Kinds:
    """Draw up `count` kinds, families in turn.

    Example:
        >>> len(draw_kinds(5, seed=1))
        5
    """
    draws = {"creature": _creature, "plant": _plant, "thing": _thing, "contour": _contour, "chain": _chain}
    plans = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        plan = Plan()
        draws[FAMILIES[number % len(FAMILIES)]](plan, rng)
        plans.append(plan)
    table = np.zeros((count, PARTS, 8))
    for row, plan in zip(table, plans, strict=True):
        row[: len(plan.parts)] = np.reshape(plan.parts, (-1, 8))
    tensor = torch.tensor(table, dtype=torch.float32)
    return Kinds(
        body=torch.tensor([plan.body for plan in plans], dtype=torch.float32),
        waves=torch.tensor(np.stack([plan.waves for plan in plans]), dtype=torch.float32),
        parent=tensor[..., 0].long(),
        attach=tensor[..., 1:3].clone(),
        joint=tensor[..., 3:7].clone(),
        round=tensor[..., 7].clone(),
    )


def _wave(plan: Plan, rng: np.random.Generator, *, strength: float) -> None:
    decay = np.arange(2, 2 + HARMONICS) ** -0.5
    plan.waves[:, 0] = rng.normal(0, strength, HARMONICS) * decay * (rng.random(HARMONICS) < 0.5)
    plan.waves[:, 1] = rng.uniform(-np.pi, np.pi, HARMONICS)


def _creature(plan: Plan, rng: np.random.Generator) -> None:
    """A body on legs with a front end, a rear end and extras, all of random number and proportion."""
    a, b = rng.uniform(0.3, 0.7), rng.uniform(0.14, 0.36)
    plan.body = (a, b)
    _wave(plan, rng, strength=0.06)
    legs, length, width = rng.choice([0, 1, 2, 3, 4]), rng.uniform(0.1, 0.35), rng.uniform(0.03, 0.1)
    spread, slant, round_ = rng.uniform(0.4, 0.85), rng.uniform(-0.4, 0.4), rng.choice([1.0, 0.2])
    for t in np.linspace(-spread, spread, legs) if legs > 1 else [0.0] * legs:
        lean = slant * rng.choice([-1, 1]) * t
        plan.add(0, (t, 0.5), np.pi / 2 + lean, length, width, loose=0.25, round=round_)
    front, rear = rng.uniform(-1.5, 0.7), rng.uniform(-1.2, 1.2)
    neck = 0
    if rng.random() < 0.7:
        neck = plan.add(0, (0.75, -0.3), front, rng.uniform(0.05, 0.4), rng.uniform(0.05, 0.14))
    if rng.random() < 0.85:
        at = (1.0, 0.0) if neck else (0.9, rng.uniform(-0.8, 0.4))
        turn = rng.uniform(0, 1.6) if neck else rng.uniform(-0.5, 0.5)
        size = rng.uniform(0.03, 0.22), rng.uniform(0.07, 0.2)
        head = plan.add(neck, at, turn, *size, round=rng.choice([1.0, 0.3]))
        for side in range(rng.choice([0, 1, 2])):
            rise, size = rng.uniform(-2.2, -0.8), (rng.uniform(0.03, 0.18), rng.uniform(0.02, 0.07))
            plan.add(head, (0.1 + 0.3 * side, 0), rise, *size)
    if rng.random() < 0.7:
        plan.add(0, (-0.85, -0.2), np.pi + rear, rng.uniform(0.05, 0.35), rng.uniform(0.02, 0.12), loose=0.4)
    if rng.random() < 0.35:
        at, rise = (rng.uniform(-0.6, 0.5), -0.6), rng.uniform(-2.4, -0.7)
        plan.add(0, at, rise, rng.uniform(0.02, 0.3), rng.uniform(0.05, 0.2))


def _plant(plan: Plan, rng: np.random.Generator) -> None:
    """A stem with branches and a crown (which may be missing)."""
    crown, stem = rng.uniform(0.05, 0.5), rng.uniform(0.2, 0.5)
    plan.body = (crown, crown * rng.uniform(0.5, 1.6))
    _wave(plan, rng, strength=0.15)
    trunk = plan.add(0, (0.0, 0.3), np.pi / 2 + rng.normal(0, 0.1), stem, rng.uniform(0.02, 0.12), round=0.3)
    count, angle, length = rng.integers(0, 8), rng.uniform(0.4, 1.3), rng.uniform(0.08, 0.4)
    width, both = rng.uniform(0.02, 0.12), rng.random() < 0.7
    for number in range(count):
        side = (1 if number % 2 else -1) if both else 1
        at = (0.1 + 0.8 * number / max(count, 1), 0.0)
        plan.add(trunk, at, np.pi + side * angle, length * rng.uniform(0.7, 1.2), width)


def _thing(plan: Plan, rng: np.random.Generator) -> None:
    """Boxes and discs put together at right or half right angles."""
    plan.body = (rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5))
    if rng.random() < 0.5:
        plan.body = (0.08, 0.08)
    soft = rng.choice([0.05, 0.3])
    last = 0
    for _ in range(rng.integers(2, 7)):
        if last == 0:
            at = (rng.choice([-0.8, -0.4, 0.0, 0.4, 0.8]), rng.choice([-0.9, 0.0, 0.9]))
        else:
            at = (rng.choice([0.0, 0.5, 1.0]), 0.0)
        turn = rng.choice([0, 0.5, 1.0, -0.5, 0.25]) * np.pi
        round_ = 1.0 if rng.random() < 0.25 else soft
        size = rng.uniform(0.01, 0.4), rng.uniform(0.04, 0.28)
        part = plan.add(last, at, turn, *size, loose=0.04, round=round_)
        last = 0 if rng.random() < 0.6 else part


def _contour(plan: Plan, rng: np.random.Generator) -> None:
    """A closed wavy line with few or no additions."""
    plan.body = (rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.8))
    _wave(plan, rng, strength=0.25)
    for _ in range(rng.choice([0, 0, 1, 2])):
        angle = rng.uniform(-np.pi, np.pi)
        at = (0.7 * np.cos(angle), 0.7 * np.sin(angle))
        plan.add(0, at, angle, rng.uniform(0.1, 0.4), rng.uniform(0.03, 0.15))


def _chain(plan: Plan, rng: np.random.Generator) -> None:
    """Parts grown one on another at random."""
    plan.body = (rng.uniform(0.06, 0.25), rng.uniform(0.06, 0.25))
    for _ in range(rng.integers(3, 9)):
        parent = int(rng.integers(0, len(plan.parts) + 1))
        at = (1.0 if parent else 0.0, 0.0)
        size = rng.uniform(0.08, 0.35), rng.uniform(0.03, 0.14)
        angle = rng.uniform(-2.0, 2.0) if parent else rng.uniform(-np.pi, np.pi)
        plan.add(parent, at, angle, *size, round=rng.choice([1.0, 0.1]))


def pose_instances(kinds: Kinds, ids: Tensor, *, rng: torch.Generator, variation: float = 1.0) -> Pose:
    """Bend and stretch one instance of each kind in `ids`, and fit it into [-1, 1].

    Args:
        kinds: the tables.
        ids: (b,) rows of the tables.
        rng: source of the variation.
        variation: 0 leaves the plan as it is.
    """
    count = len(ids)
    noise = torch.randn(count, PARTS + 1, 3, generator=rng) * variation
    joint, attach, parent = kinds.joint[ids], kinds.attach[ids], kinds.parent[ids]
    body = kinds.body[ids] * torch.exp(0.12 * noise[:, 0, :2])
    waves = kinds.waves[ids].clone()
    waves[..., 0] *= torch.exp(0.2 * noise[:, :HARMONICS, 2])
    angle = torch.zeros(count, PARTS + 1)
    start = torch.zeros(count, PARTS + 1, 2)
    length = torch.zeros(count, PARTS + 1)
    rows = torch.arange(count)
    for part in range(PARTS):
        above = parent[:, part]
        turn = angle[rows, above] + joint[:, part, 0] + joint[:, part, 3] * noise[:, part + 1, 0]
        heading = torch.stack([angle[rows, above].cos(), angle[rows, above].sin()], -1)
        along = start[rows, above] + 2 * attach[:, part, :1] * length[rows, above, None] * heading
        start[:, part + 1] = torch.where((above == 0)[:, None], attach[:, part] * body, along)
        angle[:, part + 1] = turn
        length[:, part + 1] = joint[:, part, 1] * torch.exp(0.15 * noise[:, part + 1, 1])
    width = joint[..., 2] * torch.exp(0.15 * noise[:, 1:, 2])
    direction = torch.stack([angle[:, 1:].cos(), angle[:, 1:].sin()], -1)
    centre = start[:, 1:] + length[:, 1:, None] * direction
    parts = torch.cat([centre, direction, length[:, 1:, None], width[..., None]], -1)
    return _fit(body, waves, parts, kinds.round[ids])


def _fit(body: Tensor, waves: Tensor, parts: Tensor, round_: Tensor) -> Pose:
    reach = parts[..., 2:4].abs() * parts[..., 4:5] + parts[..., 5:6]
    present = (parts[..., 5:6] > 0).float()
    swell = 1 + 0.7 * waves[..., 0].abs().sum(1, keepdim=True)
    low = torch.minimum(-body * swell, ((parts[..., :2] - reach) * present).amin(1))
    high = torch.maximum(body * swell, ((parts[..., :2] + reach) * present).amax(1))
    scale = 2 / (high - low).amax(1)
    middle = (low + high) / 2
    grown = scale[:, None, None]
    moved = torch.cat([(parts[..., :2] - middle[:, None]) * grown, parts[..., 2:4], parts[..., 4:] * grown], -1)
    return Pose(torch.cat([-middle, body], 1) * scale[:, None], waves, moved, round_)


def measure_distance(pose: Pose, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return signed distance (negative inside) and nearest part, (b, h, w) as x and y."""
    place = [value[:, None, None] for value in pose.body.unbind(1)]
    u, v = (x - place[0]) / place[2], (y - place[1]) / place[3]
    radius = (u * u + v * v).add_(1e-6).sqrt_()
    c, s = u / radius, v / radius
    real, imaginary, rim = c, s, torch.ones_like(c)
    for k in range(HARMONICS):
        real, imaginary = real * c - imaginary * s, real * s + imaginary * c
        amplitude, phase = pose.waves[:, k, 0, None, None], pose.waves[:, k, 1, None, None]
        rim += amplitude * phase.cos() * real - amplitude * phase.sin() * imaginary
    best = (radius - rim) * torch.minimum(place[2], place[3])
    nearest = torch.zeros_like(best)
    for part in range(PARTS):
        rows = (pose.parts[:, part, 5] > 0).nonzero()[:, 0]
        if len(rows):
            distance = _box_distance(pose.parts[rows, part], pose.round[rows, part], x[rows], y[rows])
            before = best[rows]
            best[rows] = torch.minimum(before, distance)
            nearest[rows] = torch.where(distance < before, float(part + 1), nearest[rows])
    return best, nearest


def _box_distance(part: Tensor, round_: Tensor, x: Tensor, y: Tensor) -> Tensor:
    cx, cy, c, s, length, width = (value[:, None, None] for value in part.unbind(1))
    inner = (1 - round_)[:, None, None] * width
    dx, dy = x - cx, y - cy
    p = (dx * c + dy * s).abs_() - (length + inner)
    q = (dy * c - dx * s).abs_() - inner
    inside = torch.maximum(p, q).clamp_(max=0)
    outside = (p.clamp_(min=0).square_() + q.clamp_(min=0).square_()).sqrt_()
    return outside + inside - round_[:, None, None] * width
