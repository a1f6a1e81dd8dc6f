"""Photos and weights -> how much a frozen MobileNetV2 knows: the accuracy of a line drawn through its features, JSON.

    python benchmarks/probe.py PHOTOS WEIGHTS... [--size 160] [--fit crop]

WEIGHTS are FILE.h5, offline, imagenet or random: drawn at random (--alpha, --seed), with BatchNormalization's
statistics set from the photos themselves, which is what any trained network has to beat. The pooled features are
standardised and given to a logistic regression; accuracy is its mean over five-fold cross-validation, repeated
twice, at the best of three strengths of regularisation (the same three for all weights). Photos that are copies of one
another stay in one fold. Several WEIGHTS are measured on the same folds.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from programs import report

from pronk.backbone.architecture import Backbone
from pronk.backbone.weights import load_backbone, random_backbone
from pronk.config import SETTINGS, Settings
from pronk.dataset.loading import Dataset, load_unsplit
from pronk.errors import PronkError
from pronk.photos.decoding import load_pixels

STRENGTHS = (0.001, 0.01, 0.1)
FOLDS, REPEATS = 5, 2
BATCH = 32


def load_photos(dataset: Dataset, *, size: int, fit: str) -> np.ndarray:
    """Decode all photos: uint8 [n, size, size, 3]."""
    return np.stack([load_pixels(dataset.root / photo.path, size=size, fit=fit) for photo in dataset.photos])


def choose_backbone(weights: str, *, alpha: float, seed: int) -> Backbone:
    """Load what WEIGHTS names; `random` has no file."""
    if weights == "random":
        return random_backbone(alpha=alpha, seed=seed)
    return load_backbone(weights, alpha=alpha)


def extract_features(backbone: Backbone, pixels: np.ndarray) -> np.ndarray:
    """Return the pooled features: float32 [n, 1280]; a random network's statistics are set from the pixels first."""
    from pronk.backbone.keras_network import batch_norms, build_network, with_features

    network = build_network(backbone, classes=2, settings=Settings(image_size=pixels.shape[1], alpha=backbone.alpha))
    if backbone.name == "random":
        calibrate(network, list(batch_norms(network)), pixels)
    model = with_features(network)
    batches = (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))
    return np.concatenate([np.asarray(model(batch, training=False)["features"]) for batch in batches])


def calibrate(network, norms: list, pixels: np.ndarray) -> None:
    """Set the statistics of BatchNormalization to their plain mean over batches of the pixels in a mixed order."""
    order = np.random.default_rng(0).permutation(len(pixels))
    for norm in norms:
        norm.trainable = True  # or Keras would use the statistics instead of measuring them
    for number, rows in enumerate(np.array_split(order, max(1, len(order) // (2 * BATCH)))):
        for norm in norms:
            norm.momentum = number / (number + 1)
        network(pixels[rows], training=True)
    for norm in norms:
        norm.trainable = False


def score(features: np.ndarray, targets: np.ndarray, groups: list[str]) -> float:
    """Return the cross-validated accuracy at the best of the three strengths."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def accuracy(strength: float, seed: int) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        return float(cross_val_score(model, features, targets, groups=groups, cv=folds).mean())

    return max(float(np.mean([accuracy(strength, seed) for seed in range(REPEATS)])) for strength in STRENGTHS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of class folders")
    parser.add_argument("weights", nargs="+", help="FILE.h5, offline, imagenet or random; several are compared")
    parser.add_argument("--size", type=int, default=160, help="side of the photos in pixels (%(default)s)")
    parser.add_argument(
        "--fit", choices=SETTINGS["fit"].choices, default="crop", help="how photos become squares (%(default)s)"
    )
    parser.add_argument("--alpha", type=float, default=0.35, help="width, for imagenet and random (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of random (%(default)s)")
    args = parser.parse_args()
    try:
        dataset = load_unsplit(args.data)
        backbones = [choose_backbone(weights, alpha=args.alpha, seed=args.seed) for weights in args.weights]
    except PronkError as error:
        parser.error(f"{error}; {error.hint}" if error.hint else str(error))
    pixels = load_photos(dataset, size=args.size, fit=args.fit)
    targets, groups = dataset.targets(dataset.photos), [photo.group for photo in dataset.photos]
    result = {
        "photos": len(pixels),
        "classes": list(dataset.classes),
        "chance": round(float(np.bincount(targets).max() / len(targets)), 4),
        "accuracy": {},
    }
    for weights, backbone in zip(args.weights, backbones, strict=True):
        report(f"features of {weights}")
        result["accuracy"][weights] = round(score(extract_features(backbone, pixels), targets, groups), 4)
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
