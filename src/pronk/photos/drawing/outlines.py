"""Knots, corners and radii -> outlines: the few shapes that every figure is put together from."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """Some outlines that are filled, shaded and textured as one body.

    Args:
        outlines: polygons, each float64 [n, 2].
        tone: the colour it takes of the material: coat, second, accent, dark or glint.
        shade: brightness; below one for what lies behind.
        fuzz: how far the edge is frayed, from 0 (clean) to 1 (woolly).
    """

    outlines: tuple[Points, ...]
    tone: str = "coat"
    shade: float = 1.0
    fuzz: float = 0.15


def ellipse(x: float, y: float, rx: float, ry: float, *, angle: float = 0.0) -> Points:
    """Outline an ellipse, turned by `angle` radians."""
    turn = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    dx, dy = rx * np.cos(turn), ry * np.sin(turn)
    return np.stack([x + dx * np.cos(angle) - dy * np.sin(angle), y + dx * np.sin(angle) + dy * np.cos(angle)], 1)


def limb(*knots: tuple[float, float, float]) -> Points:
    """Outline a smooth tube through knots of (x, y, radius), with round ends."""
    given = np.array(knots, float)
    padded = np.vstack([2 * given[0] - given[1], given, 2 * given[-1] - given[-2]])
    t = np.linspace(0, 1, 8, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        # Catmull-Rom: the curve meets every knot, so that a pose can be written down as points on the body.
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    spine = np.vstack([*pieces, given[-1:]])
    centre, radius = spine[:, :2], np.maximum(spine[:, 2:], 0.002)
    along = np.gradient(centre, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    side = np.stack([-along[:, 1], along[:, 0]], 1)
    bend = np.linspace(0, np.pi, 9)[1:-1, None]
    tip = centre[-1] + radius[-1] * (side[-1] * np.cos(bend) + along[-1] * np.sin(bend))
    root = centre[0] - radius[0] * (side[0] * np.cos(bend) + along[0] * np.sin(bend))
    return np.vstack([centre + side * radius, tip, (centre - side * radius)[::-1], root])


def polygon(*points: tuple[float, float]) -> Points:
    """Outline straight edges between the points."""
    return np.array(points, float)


def eye(x: float, y: float, radius: float) -> list[Part]:
    """Draw an eye with a glint in it."""
    return [
        Part((ellipse(x, y, radius, radius),), "dark", fuzz=0),
        Part((ellipse(x + radius * 0.3, y + radius * 0.4, radius * 0.3, radius * 0.3),), "glint", fuzz=0),
    ]


Builder = Callable[[np.random.Generator], list[Part]]
