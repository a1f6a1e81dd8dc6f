"""A random state -> the outlines of an animal in some pose.

A figure stands on the ground line y = 0, y points up, and one unit is about the height of its body. Each
builder returns its parts from back to front. Sizes do not matter: whoever places a figure scales it by its
area.
"""

import numpy as np

from pronk.photos.drawing.outlines import Builder, Part, ellipse, eye, limb, polygon


def _legs(rng: np.random.Generator, xs: tuple[float, ...], top: float, width: float) -> list[Part]:
    """Four legs as two parts: the far pair in the shade, then the near pair."""
    pairs = []
    for shade, shift in ((0.66, 0.07), (0.92, 0.0)):
        legs = []
        for x in xs:
            step, lift = rng.uniform(-0.07, 0.07), shift * 0.35
            hip, knee, foot = x + shift, x + shift + step * 0.3, x + shift + step
            legs.append(limb((hip, top, width * 1.9), (knee, top * 0.5, width), (foot, lift + width, width * 0.9)))
        pairs.append(Part(tuple(legs), shade=shade, fuzz=0.3))
    return pairs


def _alpaca(rng: np.random.Generator) -> list[Part]:
    if rng.random() < 0.18:
        return _alpaca_from_front(rng)
    u = rng.uniform
    x, y = 0.36 + u(-0.05, 0.14), 0.66 + u(0.46, 0.66)
    nod, plump = u(-0.05, 0.03), u(0.19, 0.25)
    body = limb((-0.34, 0.6, plump * 0.86), (-0.05, 0.6, plump), (0.22, 0.62, plump * 0.92))
    neck = limb((0.2, 0.6, 0.18), (0.5 * (x + 0.3), 0.5 * (y + 0.72), u(0.105, 0.14)), (x, y, 0.1))
    head = limb((x - 0.03, y + 0.03, 0.115), (x + 0.1, y + 0.01 + nod, 0.085), (x + 0.2, y - 0.03 + nod, 0.06))
    topknot = ellipse(x - 0.02, y + 0.12, u(0.07, 0.11), u(0.06, 0.09))
    ear = u(0.17, 0.25)
    base, tip = y + 0.1, y + 0.12 + ear
    ears = [
        Part((limb((x + s, base, 0.035), (x + s - 0.03, base + ear * 0.6, 0.04), (x + s, tip, 0.008)),), shade=b)
        for s, b in ((0.035, 0.75), (-0.075, 1.05))
    ]
    tail = Part((limb((-0.5, 0.68, 0.06), (-0.57, 0.6, 0.06), (-0.57, 0.48, 0.03)),), shade=0.85, fuzz=0.7)
    far, near = _legs(rng, (-0.36, 0.18), 0.46, u(0.042, 0.055))
    coat = Part((body, neck, head, topknot), fuzz=u(0.6, 1.0))
    muzzle = Part((ellipse(x + 0.21, y - 0.035 + nod, 0.055, 0.045),), "second", shade=0.95)
    nose = Part((ellipse(x + 0.25, y - 0.02 + nod, 0.018, 0.013),), "dark", fuzz=0)
    return [
        far,
        tail,
        ears[0],
        near,
        coat,
        ears[1],
        muzzle,
        nose,
        *eye(x + 0.075, y + 0.045 + nod * 0.4, 0.026),
    ]


def _alpaca_from_front(rng: np.random.Generator) -> list[Part]:
    u = rng.uniform
    x, y, turn = u(-0.06, 0.06), 0.72 + u(0.44, 0.6), u(-0.04, 0.04)
    far, near = _legs(rng, (-0.17, 0.13), 0.42, 0.05)
    body = ellipse(0, 0.56, u(0.24, 0.29), 0.28)
    neck = limb((0, 0.66, 0.2), (x * 0.6, 0.9, 0.12), (x, y, 0.11))
    head = limb((x, y + 0.06, 0.125), (x + turn, y - 0.06, 0.085))
    topknot = ellipse(x, y + 0.15, u(0.09, 0.12), 0.075)
    ears = tuple(
        limb((x + s * 0.09, y + 0.12, 0.035), (x + s * 0.15, y + 0.24, 0.04), (x + s * 0.14, y + 0.36, 0.008))
        for s in (-1, 1)
    )
    muzzle = Part((ellipse(x + turn * 1.3, y - 0.08, 0.065, 0.055),), "second")
    nose = Part((ellipse(x + turn * 1.5, y - 0.06, 0.03, 0.016),), "dark", fuzz=0)
    eyes = eye(x - 0.075 + turn, y + 0.03, 0.024) + eye(x + 0.075 + turn, y + 0.03, 0.024)
    return [far, near, Part(ears), Part((body, neck, head, topknot), fuzz=u(0.6, 1.0)), muzzle, nose, *eyes]


def _bird(rng: np.random.Generator) -> list[Part]:
    u = rng.uniform
    tilt, plump, leg = u(-0.15, 0.65), u(0.2, 0.27), u(0.16, 0.34)
    across, up = np.cos(tilt), np.sin(tilt)
    y = leg + plump * 0.9
    head = (0.3 * across + 0.05, y + 0.3 * up + u(0.12, 0.2))
    body = limb((-0.36 * across, y - 0.36 * up, 0.07), (-0.02, y, plump), (0.2 * across, y + 0.22 * up, plump * 0.75))
    neck = limb((0.16 * across, y + 0.18 * up, plump * 0.7), (*head, 0.13))
    reach, tail = u(0.3, 0.5), u(-0.25, 0.1)
    root = (-0.3 * across, y - 0.3 * up)
    end = (root[0] - reach * np.cos(tilt + tail), root[1] - reach * np.sin(tilt + tail))
    wing = limb(
        (0.16 * across, y + 0.14 * up, 0.1),
        (-0.08, y - 0.03, plump * 0.62),
        (root[0] - 0.14 * across, root[1] - 0.1 * up, 0.015),
    )
    beak, droop = u(0.1, 0.2), u(-0.05, 0.03)
    bill = polygon(
        (head[0] + 0.09, head[1] + 0.05),
        (head[0] + 0.12 + beak, head[1] + droop),
        (head[0] + 0.09, head[1] - 0.055),
    )
    legs = []
    for x in (-0.07, 0.07):
        foot = x + u(-0.05, 0.08)
        legs += [limb((x, y, 0.018), (x - 0.02, leg * 0.5, 0.014), (foot, 0.02, 0.014))]
        legs += [
            limb((foot, 0.02, 0.012), (foot + toe, drop, 0.008))
            for toe, drop in ((0.13, 0.0), (0.09, -0.035), (-0.06, 0.01))
        ]
    return [
        Part(tuple(legs), "accent", shade=0.8, fuzz=0),
        Part((limb((*root, 0.07), (*end, 0.05)),), "second", shade=0.8, fuzz=0.2),
        Part((body, neck, ellipse(*head, 0.135, 0.125)), fuzz=u(0.3, 0.8)),
        Part((wing,), "second", shade=0.9, fuzz=0.3),
        Part((bill,), "accent", fuzz=0),
        *eye(head[0] + 0.05, head[1] + 0.03, 0.026),
    ]


ANIMALS: dict[str, Builder] = {"alpaca": _alpaca, "bird": _bird}
