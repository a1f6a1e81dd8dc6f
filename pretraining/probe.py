"""Weights -> how well frozen pooled features tell apart drawn kinds that training never met.

As a command: `python pretraining/probe.py FILE.h5|random [--photos FOLDER]`, accuracy per task as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from generator import Settings, build_world, draw_scenes
from network import MobileNetV2, import_h5
from torch import Tensor, nn

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
            network(scale_pixels(batch))
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum


def scale_pixels(images: Tensor) -> Tensor:
    """Map uint8 pictures to [-1, 1], channels last in memory."""
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def pool_features(network: MobileNetV2, images: Tensor) -> np.ndarray:
    """Return the pooled features, (n, 1280), of uint8 pictures."""
    network.eval()
    with torch.no_grad():
        rows = [network(scale_pixels(part))[2].mean((2, 3)) for part in images.split(32)]
    return torch.cat(rows).numpy()


def score_features(features: np.ndarray, labels: np.ndarray, *, folds: int = 4, repeats: int = 1) -> float:
    """Cross-validate a logistic regression on standardised features; the best of three strengths."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = []
    for strength in (0.001, 0.01, 0.1):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
        split = RepeatedStratifiedKFold(n_splits=folds, n_repeats=repeats, random_state=0)
        scores.append(cross_val_score(model, features, labels, cv=split).mean())
    return float(max(scores))


def score_quickly(features: np.ndarray, labels: np.ndarray, *, folds: int = 4) -> float:
    """Cross-validate a ridge classifier on standardised features: seconds cheaper than the logistic one."""
    rows = (features - features.mean(0)) / (features.std(0) + 1e-6)
    kernel = rows @ rows.T / rows.shape[1]
    targets = (labels[:, None] == np.unique(labels)).astype(np.float64)
    part = np.random.default_rng(0).permutation(len(rows)) % folds
    right = 0
    for fold in range(folds):
        train, test = part != fold, part == fold
        solved = np.linalg.solve(kernel[np.ix_(train, train)] + 0.1 * np.eye(train.sum()), targets[train] - 0.5)
        right += ((kernel[np.ix_(test, train)] @ solved).argmax(1) == targets[test].argmax(1)).sum()
    return float(right / len(rows))


def draw_tasks() -> dict[str, tuple[Tensor, np.ndarray]]:
    """Draw the held-out tasks: twelve kinds of all families, and six creatures, at 160 px."""
    world = build_world(shapes=60, textures=24, seed=HELD_OUT_SEED)
    plans = {"mixed12": range(12, 24), "creatures6": range(30, 60, 5)}
    tasks = {}
    for number, (name, kinds) in enumerate(plans.items()):
        labels = torch.tensor(list(kinds)).repeat(EACH)
        images = []
        for index, part in enumerate(labels.split(40)):
            settings = Settings(len(part), SIDE, 0.8)
            images.append(draw_scenes(world, settings, index, stream=7 + number, shape=part).images)
        tasks[name] = (torch.cat(images), labels.numpy())
    return tasks


def probe_network(network: MobileNetV2, tasks: dict[str, tuple[Tensor, np.ndarray]]) -> dict[str, float]:
    """Score each task quickly."""
    scores = {}
    for name, (images, labels) in tasks.items():
        scores[name] = round(score_quickly(pool_features(network, images), labels), 4)
    return scores


def read_photos(folder: Path) -> tuple[Tensor, np.ndarray]:
    """Read class folders of photos at 160 px (squashed); for the record only."""
    from PIL import Image

    images, labels = [], []
    for label, inner in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for path in sorted(inner.iterdir()):
            with Image.open(path) as photo:
                pixels = np.asarray(photo.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
            images.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
            labels.append(label)
    return torch.stack(images), np.array(labels)


def main() -> None:
    """Score one file, or a random network calibrated on the pictures of the task itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", help="an h5 file, or the word random")
    parser.add_argument("--photos", type=Path, help="also probe this folder of class folders")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tasks = draw_tasks()
    scores = {}
    if options.photos:
        tasks["photos"] = read_photos(options.photos)
    for name, (images, labels) in tasks.items():
        torch.manual_seed(0)
        network = MobileNetV2()
        if options.weights == "random":
            order = torch.randperm(len(images))
            calibrate(network, [images[part] for part in order.split(64)])
        else:
            import_h5(network, Path(options.weights))
        folds, repeats = (5, 2) if name == "photos" else (4, 1)
        scores[name] = score_features(pool_features(network, images), labels, folds=folds, repeats=repeats)
    sys.stdout.write(json.dumps({name: round(score, 4) for name, score in scores.items()}) + "\n")


if __name__ == "__main__":
    main()
