"""A random state -> the outlines of a plant, a building or another thing; they stand like the animals."""

from dataclasses import replace

import numpy as np

from pronk.photos.drawing.outlines import Builder, Part, ellipse, limb, polygon


def _mushroom(rng: np.random.Generator) -> list[Part]:
    parts = _one_mushroom(rng)
    if rng.random() < 0.35:
        size, shift = rng.uniform(0.35, 0.6), rng.choice([-1, 1]) * rng.uniform(0.35, 0.55)
        small = [
            replace(part, outlines=tuple(line * size + [shift, 0] for line in part.outlines))
            for part in _one_mushroom(rng)
        ]
        parts = small + parts
    return parts


def _one_mushroom(rng: np.random.Generator) -> list[Part]:
    u = rng.uniform
    wide, high, stem, lean = u(0.36, 0.52), u(0.2, 0.42), u(0.4, 0.75), u(-0.1, 0.1)
    width, angle = u(0.07, 0.13), -lean * 0.8
    turn = np.linspace(0, np.pi, 24)
    pointed = u(0.75, 1.25)
    dome = np.stack([wide * np.cos(turn), high * np.sin(turn) ** pointed], 1)
    brim = np.stack([wide * np.cos(turn + np.pi), u(0.06, 0.13) * np.sin(turn + np.pi)], 1)
    tilt = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    top = np.array([lean, stem])
    cap = np.vstack([dome, brim]) @ tilt + top
    gills = ellipse(lean, stem - 0.035, wide * 0.9, 0.1, angle=angle)
    stalk = limb((0, 0.05, width * u(1.1, 1.7)), (lean * 0.4, stem * 0.5, width), (lean, stem + 0.02, width * 0.9))
    parts = [Part((gills,), "second", shade=0.62), Part((stalk,), "second", fuzz=u(0.1, 0.5))]
    if rng.random() < 0.4:
        parts.append(Part((ellipse(lean * 0.8, stem * 0.72, width * 1.5, 0.035),), "second", shade=0.88, fuzz=0.4))
    parts.append(Part((cap,), fuzz=u(0.1, 0.6)))
    if rng.random() < 0.5:
        spots = []
        for _ in range(rng.integers(4, 9)):
            at, rise = u(-0.7, 0.7), u(0.12, 0.75)
            spot = np.array([[wide * at, high * rise * np.sqrt(1 - at * at)]]) @ tilt + top
            spots.append(ellipse(spot[0, 0], spot[0, 1], u(0.025, 0.05), u(0.018, 0.035)))
        parts.append(Part(tuple(spots), "second", shade=1.05, fuzz=0.1))
    return parts


def _house(rng: np.random.Generator) -> list[Part]:
    u = rng.uniform
    wide, wall, roof, door = u(0.4, 0.6), u(0.45, 0.65), u(0.3, 0.5), u(-0.15, 0.15)
    front = polygon((-wide, 0), (-wide, wall), (wide, wall), (wide, 0))
    gable = polygon((-wide - 0.08, wall), (0, wall + roof), (wide + 0.08, wall))
    chimney = polygon((wide * 0.45, wall), (wide * 0.45, wall + roof), (wide * 0.65, wall + roof), (wide * 0.65, wall))
    panes = [polygon((s, 0.25), (s, 0.42), (s + 0.14, 0.42), (s + 0.14, 0.25)) for s in (-wide + 0.07, wide - 0.21)]
    entrance = polygon((door - 0.08, 0), (door - 0.08, 0.3), (door + 0.08, 0.3), (door + 0.08, 0))
    return [
        Part((chimney,), shade=0.8, fuzz=0),
        Part((front,), fuzz=0),
        Part((gable,), "second", shade=0.85, fuzz=0.1),
        Part((*panes, entrance), "accent", shade=0.7, fuzz=0),
    ]


def _tree(rng: np.random.Generator) -> list[Part]:
    u = rng.uniform
    trunk = limb((0, 0, 0.1), (u(-0.05, 0.05), 0.3, 0.065), (u(-0.05, 0.05), 0.75, 0.05))
    crown = [ellipse(u(-0.3, 0.3), u(0.65, 1.15), u(0.16, 0.26), u(0.14, 0.22)) for _ in range(8)]
    return [
        Part((trunk,), "second", shade=0.75, fuzz=0.3),
        Part(tuple(crown), shade=0.85, fuzz=1),
        Part(tuple(crown[:4]), fuzz=1),
    ]


def _rock(rng: np.random.Generator) -> list[Part]:
    turn = np.linspace(0, np.pi, 9)
    edge = rng.uniform(0.75, 1.1, 9)
    return [Part((np.stack([0.6 * edge * np.cos(turn), 0.4 * edge * np.sin(turn) - 0.02], 1),), fuzz=0.2)]


def _bush(rng: np.random.Generator) -> list[Part]:
    u = rng.uniform
    return [
        Part(
            tuple(ellipse(u(-0.5, 0.5), u(0.1, 0.35), u(0.2, 0.35), u(0.15, 0.3)) for _ in range(6)),
            "leaf",
            fuzz=1,
        )
    ]


def _fir(rng: np.random.Generator) -> list[Part]:
    tiers = [polygon((-w, y), (0, y + 0.55), (w, y)) for y, w in ((0.2, 0.42), (0.5, 0.34), (0.8, 0.25))]
    return [
        Part((limb((0, 0, 0.06), (0, 0.4, 0.05)),), "wood", shade=0.7),
        Part(tuple(tiers), "leaf", shade=rng.uniform(0.6, 0.9), fuzz=0.9),
    ]


def _broadleaf(rng: np.random.Generator) -> list[Part]:
    return [replace(part, tone="wood" if part.tone == "second" else "leaf") for part in _tree(rng)]


def _fence(rng: np.random.Generator) -> list[Part]:
    posts = [polygon((x, 0), (x, 0.62), (x + 0.1, 0.62), (x + 0.1, 0)) for x in np.arange(-3, 3, rng.uniform(0.5, 0.9))]
    rails = [polygon((-3, y), (-3, y + 0.09), (3, y + 0.09), (3, y)) for y in (0.18, 0.42)]
    return [Part(tuple(rails), "wood", shade=0.9, fuzz=0.1), Part(tuple(posts), "wood", fuzz=0.1)]


THINGS: dict[str, Builder] = {
    "mushroom": _mushroom,
    "house": _house,
}

# What stands about in a landscape; these have colours of their own.
PROPS: dict[str, Builder] = {
    "rock": _rock,
    "bush": _bush,
    "fir": _fir,
    "broadleaf": _broadleaf,
    "fence": _fence,
}
