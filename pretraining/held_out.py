"""Weights -> how well frozen pooled features tell apart drawn kinds that training never met.

Recipes and lengths of runs are chosen by these numbers alone; photos (`benchmarks/probe.py`) only report.
As a command: `python pretraining/held_out.py FILE.h5|random`, accuracy per task as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from generator import Settings, World, build_world, draw_scenes
from network import MobileNetV2, import_h5
from torch import Tensor, nn

Task = tuple[Tensor, np.ndarray]  # pictures (n, 3, SIDE, SIDE) uint8, labels (n,)
HELD_OUT_SEED = 9_000
SIDE = 160
EACH = 40


def calibrate(network: MobileNetV2, batches: list[Tensor]) -> None:
    """Set BatchNorm's statistics to the plain mean over batches of uint8 pictures."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    network.train()
    with torch.no_grad():
        for batch in batches:
            network(scale_pixels(batch.to(device_of(network))))
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum


def device_of(network: MobileNetV2) -> torch.device:
    """Return where the network's weights lie."""
    return network.Conv1.weight.device


def scale_pixels(images: Tensor) -> Tensor:
    """Map uint8 pictures to [-1, 1], channels last in memory."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def pool_features(network: MobileNetV2, images: Tensor) -> np.ndarray:
    """Return the pooled features, (n, 1280), of uint8 pictures."""
    network.eval()
    with torch.no_grad():
        device = device_of(network)
        rows = [network(scale_pixels(part.to(device)))[2].mean((2, 3)) for part in images.split(32)]
    return torch.cat(rows).cpu().numpy()


def score_quickly(features: np.ndarray, labels: np.ndarray, *, folds: int = 4) -> float:
    """Cross-validate a ridge classifier on standardised features: seconds cheaper than a logistic one."""
    rows = (features - features.mean(0)) / (features.std(0) + 1e-6)
    products = rows @ rows.T / rows.shape[1]
    targets = (labels[:, None] == np.unique(labels)).astype(np.float64)
    part = np.random.default_rng(0).permutation(len(rows)) % folds
    right = 0
    for fold in range(folds):
        train, test = part != fold, part == fold
        solved = np.linalg.solve(products[np.ix_(train, train)] + 0.1 * np.eye(train.sum()), targets[train] - 0.5)
        right += ((products[np.ix_(test, train)] @ solved).argmax(1) == targets[test].argmax(1)).sum()
    return float(right / len(rows))


def draw_tasks() -> dict[str, Task]:
    """Draw the held-out tasks, at 160 px.

    Twelve kinds of all families, six creatures, twelve grounds, and four times one creature among other things.
    """
    world = build_world(shapes=60, textures=30, seed=HELD_OUT_SEED)
    creatures = list(range(30, 60, 5))
    tasks = {
        "mixed12": _draw_task(world, 7, shape=_repeat(range(12, 24))),
        "creatures6": _draw_task(world, 8, shape=_repeat(creatures)),
        "grounds12": _draw_task(world, 9, ground=_repeat(range(12, 24))),
    }
    for number, kind in enumerate(creatures[:4]):
        others = torch.tensor([each for each in range(30) if each != kind] * 2)
        shape = torch.cat([torch.full_like(others, kind), others])
        images, _ = _draw_task(world, 10 + number, shape=shape)
        tasks[f"among{number}"] = images, (shape == kind).numpy().astype(np.int64)
    return tasks


def _repeat(kinds: Iterable[int]) -> Tensor:
    return torch.tensor(list(kinds)).repeat(EACH)


def _draw_task(world: World, stream: int, *, shape: Tensor | None = None, ground: Tensor | None = None) -> Task:
    labels = ground if shape is None else shape
    images = []
    for index, part in enumerate(labels.split(40)):
        name = "ground" if shape is None else "shape"
        images.append(draw_scenes(world, Settings(len(part), SIDE, 0.8), index, stream=stream, **{name: part}).images)
    return torch.cat(images), labels.numpy()


def probe_network(network: MobileNetV2, tasks: dict[str, Task]) -> dict[str, float]:
    """Score each task quickly; `among` is the mean of its four."""
    scores: dict[str, float] = {}
    for name, (images, labels) in tasks.items():
        score = score_quickly(pool_features(network, images), labels)
        if name.startswith("among"):
            scores["among"] = scores.get("among", 0) + score / 4
        else:
            scores[name] = score
    return {name: round(score, 4) for name, score in scores.items()}


def main() -> None:
    """Score one file, or a random network calibrated on the pictures of the task itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="an h5 file, or the word random")
    parser.add_argument("--alpha", type=float, default=0.35, help="its width (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of random (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tasks = draw_tasks()
    torch.manual_seed(options.seed)
    network = MobileNetV2(alpha=options.alpha)
    if options.weights == "random":
        images = torch.cat([images for images, _ in tasks.values()])
        calibrate(network, list(images[torch.randperm(len(images))[:640]].split(64)))
    else:
        import_h5(network, Path(options.weights))
    sys.stdout.write(json.dumps(probe_network(network, tasks)) + "\n")


if __name__ == "__main__":
    main()
