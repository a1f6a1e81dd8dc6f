"""Photos and weights -> how well distances tell photos of other things, as a Markdown table and JSON.

    python benchmarks/novelty.py PHOTOS --weights FILE.h5 --seeds 0-4 [--groups GROUPS.csv]

A model of the photos is asked about things it never saw: drawn pictures, corners of the photos themselves (mostly
background) and photos cut into patches and shuffled; with --groups (a CSV `path,group`: what the photos of a mixed
class show) also about each group that was left out of training and validation, and models of two groups about all the
others. Each cell is `rejected, at .95 (area)`: the share of foreign photos beyond the threshold that `pronk train`
would set with the validation photos; the share beyond one that keeps exactly 95 % of validation and test photos
together, which depends less on which few photos lie farthest; and the area under the ROC curve. The validation part is
larger where there are few photos, since 95 % needs 19.
"""

import argparse
import csv
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from programs import make_folder, report, write_results
from seeds import parse_seeds

from pronk.analysis.calibration import conformal_threshold
from pronk.analysis.novelty import fit_novelty
from pronk.dataset.loading import load_dataset
from pronk.photos.decoding import load_pixels
from pronk.photos.drawing import KINDS, draw_photo

SIZE = 224
COVERAGE = 0.95
DRAWN_PER_KIND = 24
LEAST_GROUP = 15  # photos; smaller groups are only asked about
Distance = Callable[[np.ndarray], np.ndarray]


def fit_cosine(rows: np.ndarray, targets: np.ndarray) -> Distance:
    """Mean cosine distance to the five nearest training photos, all of them kept (Sun et al. 2022)."""
    bank = unit(rows)
    return lambda others: 1 - np.sort(unit(others) @ bank.T, axis=1)[:, -5:].mean(axis=1)


def fit_mahalanobis(rows: np.ndarray, targets: np.ndarray) -> Distance:
    """Mahalanobis distance to the nearest class in 20 components, and the scaled error of reconstruction."""
    present, owners = np.unique(targets, return_inverse=True)
    means = np.stack([rows[owners == i].mean(axis=0) for i in range(len(present))])
    values, basis = np.linalg.svd(rows - means[owners], full_matrices=False)[1:]
    variances = values**2 / len(rows)
    kept = min(20, len(values) - 1)
    rest = variances[kept:].sum() / (rows.shape[1] - kept)

    def distance(others: np.ndarray) -> np.ndarray:
        by_class = []
        for mean in means:
            parts = (others - mean) @ basis[:kept].T
            error = ((others - mean) ** 2).sum(axis=1) - (parts**2).sum(axis=1)
            by_class.append((parts**2 / variances[:kept]).sum(axis=1) + error / rest)
        return np.min(by_class, axis=0)

    return distance


def fit_pronk(rows: np.ndarray, targets: np.ndarray) -> Distance:
    """What pronk does."""
    return fit_novelty(rows, targets, classes=int(targets.max()) + 1).distance


METHODS = {"cosine, 5 nearest": fit_cosine, "Mahalanobis + error": fit_mahalanobis, "pronk": fit_pronk}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def area(genuine: np.ndarray, foreign: np.ndarray) -> float:
    """Return the share of pairs in which the foreign photo is farther (AUROC).

    >>> area(np.array([1.0, 2.0]), np.array([1.5, 3.0]))
    0.75
    """
    return float(np.mean(np.less.outer(genuine, foreign) + 0.5 * np.equal.outer(genuine, foreign)))


def shuffle_patches(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut a photo into 4 x 4 patches and put them together in another order."""
    side = SIZE // 4
    patches = pixels.reshape(4, side, 4, side, 3).swapaxes(1, 2).reshape(16, side, side, 3)[rng.permutation(16)]
    return patches.reshape(4, 4, side, side, 3).swapaxes(1, 2).reshape(SIZE, SIZE, 3)


def cut_corner(path: Path, rng: np.random.Generator) -> np.ndarray:
    """Take an upper corner of a photo, a sixteenth of its square, at full size."""
    pixels, side = load_pixels(path, size=2 * SIZE), SIZE // 2
    corner = pixels[:side, :side] if rng.random() < 0.5 else pixels[:side, -side:]
    return np.asarray(Image.fromarray(corner).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def open_network(weights: str) -> Callable[[list[np.ndarray]], np.ndarray]:
    """Return a function from pictures, uint8 [SIZE, SIZE, 3] each, to features, float64 [n, d]."""
    from pronk.backbone.onnx_graphs import pooled_size, write_model
    from pronk.backbone.weights import load_backbone
    from pronk.model.formats.onnx import OnnxRuntime

    layers = load_backbone(weights).weights
    runtime = OnnxRuntime(write_model(layers, np.zeros((pooled_size(layers), 2)), np.zeros(2), size=SIZE), threads=2)

    def extract(pictures: list[np.ndarray]) -> np.ndarray:
        batches = (np.stack(pictures[i : i + 16]) for i in range(0, len(pictures), 16))
        return np.concatenate([runtime.run(batch).features for batch in batches]).astype(np.float64)

    return extract


def make_cases(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, artificial: dict[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray, np.ndarray, dict[str, np.ndarray]]]:
    """Yield what is asked: a name, which photos are genuine, their classes, and foreign features by name."""
    everything = np.arange(len(features))
    yield "all photos", everything, labels, artificial
    named = sorted(set(groups) - {""})
    large = [name for name in named if np.sum(groups == name) >= LEAST_GROUP]
    for name in large:
        genuine = everything[groups != name]
        if len(set(labels[genuine])) == len(set(labels)):
            yield f"all but {name}", genuine, labels[genuine], {name: features[groups == name]}
    for pair in itertools.combinations(large, 2):
        genuine = everything[np.isin(groups, pair)]
        others = {name: features[groups == name] for name in named if name not in pair}
        yield " or ".join(pair), genuine, (groups[genuine] == pair[1]).astype(np.int64), {**others, **artificial}


def split(targets: np.ndarray, seed: int) -> np.ndarray:
    """Return 0 train, 1 val or 2 test for each photo: 70, 15, 15 %, or 50, 30, 20 % of fewer than 200, by class."""
    train, val = (0.7, 0.85) if len(targets) >= 200 else (0.5, 0.8)
    rng, place = np.random.default_rng(seed), np.empty(len(targets))
    for target in np.unique(targets):
        mine = rng.permutation(np.flatnonzero(targets == target))
        place[mine] = (np.arange(len(mine)) + rng.random()) / len(mine)
    return (place >= train).astype(int) + (place >= val)


def judge(rows: np.ndarray, targets: np.ndarray, foreign: dict[str, np.ndarray], seed: int) -> Iterator[dict]:
    """Fit each method on one split and yield the shares it keeps of test photos and rejects of foreign ones."""
    part = split(targets, seed)
    for method, fit in METHODS.items():
        distance = fit(rows[part == 0], targets[part == 0])
        val, test = distance(rows[part == 1]), distance(rows[part == 2])
        threshold = conformal_threshold(val, COVERAGE)
        if threshold is None:
            return
        kept, genuine = float(np.mean(test <= threshold)), np.concatenate([val, test])
        for name, others in foreign.items():
            far = distance(others)
            row = {"method": method, "foreign": name, "seed": seed, "kept": kept, "photos": len(others)}
            even = float(np.mean(far > np.quantile(genuine, COVERAGE)))
            yield row | {"rejected": float(np.mean(far > threshold)), "even": even, "area": area(genuine, far)}


def mean_even(rows: list[dict]) -> float:
    return float(np.mean([row["even"] for row in rows]))


def write_table(rows: list[dict]) -> str:
    """Return the Markdown table: for each case and foreign set the mean over seeds, method by method."""
    found: dict[tuple[str, str], dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["case"], row["foreign"]][row["method"]].append(row)
    lines = [f"| model of | asked about | {' | '.join(METHODS)} |", "|---" * (2 + len(METHODS)) + "|"]

    def show(some: list[dict]) -> str:
        rejected, even, auroc = (np.mean([row[name] for row in some]) for name in ("rejected", "even", "area"))
        return f"{rejected:.2f}, {even:.2f} ({auroc:.3f})"

    for (case, foreign), by_method in found.items():
        lines.append(f"| {case} | {foreign} | {' | '.join(show(by_method[method]) for method in METHODS)} |")
    totals = {method: [row for row in rows if row["method"] == method] for method in METHODS}
    # Each (case, foreign set) has as many rows, one for each seed, so the mean over rows is the mean over sets.
    whole = {method: [row for row in totals[method] if row["case"].startswith("all")] for method in METHODS}
    lines.append(f"| mean of those of `all` |  | {' | '.join(show(whole[method]) for method in METHODS)} |")
    lines.append(f"| mean |  | {' | '.join(show(totals[method]) for method in METHODS)} |")
    worst = (min((cell[method] for cell in found.values()), key=mean_even) for method in METHODS)
    lines.append(f"| worst |  | {' | '.join(map(show, worst))} |")
    kept = (f"{np.mean([row['kept'] for row in totals[method]]):.3f}" for method in METHODS)
    lines.append(f"| genuine test photos kept |  | {' | '.join(kept)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of class folders")
    parser.add_argument("--weights", default="offline", help="FILE.h5 or offline")
    parser.add_argument("--seeds", type=parse_seeds, default="0-4", help='"0-9" or "0,3,7"')
    parser.add_argument("--groups", type=Path, help="CSV `path,group` of photos in PHOTOS")
    parser.add_argument("--out", type=Path, help="default: the next free folder in runs/")
    args = parser.parse_args()
    out = make_folder(args.out, name="novelty")

    dataset, extract, rng = load_dataset(args.data), open_network(args.weights), np.random.default_rng(0)
    paths = [dataset.root / photo.path for photo in dataset.photos]
    report("features")
    pixels = [load_pixels(path, size=SIZE) for path in paths]
    drawn = [
        np.asarray(draw_photo(kind, np.random.default_rng([7, number]), (299, SIZE)))[:, 37 : 37 + SIZE]
        for kind in KINDS
        for number in range(DRAWN_PER_KIND)
    ]
    artificial = {
        "drawn pictures": extract(drawn),
        "corners": extract([cut_corner(path, rng) for path in paths[::2]]),
        "shuffled patches": extract([shuffle_patches(photo, rng) for photo in pixels[::3]]),
    }
    named = {}
    if args.groups:
        with args.groups.open(encoding="utf-8", newline="") as file:
            named = {row["path"]: row["group"] for row in csv.DictReader(file)}
    groups = np.array([named.get(photo.path, "") for photo in dataset.photos], object)
    labels, rows = dataset.targets(dataset.photos), []
    features = extract(pixels)
    for case, genuine, targets, foreign in make_cases(features, labels, groups, artificial):
        report(case)
        for seed in args.seeds:
            rows += [{"case": case} | row for row in judge(features[genuine], targets, foreign, seed)]
        write_results(out / "results.json", {"weights": Path(args.weights).name, "rows": rows})
    table = write_table(rows)
    (out / "results.md").write_text(table + "\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
