"""Generator -> a pool of pictures on disk, from easy to hard, drawn by all cores and drawn on after a kill.

A trainer that draws its own pictures waits for them; one that cuts ever new views out of a pool does not. Arrays lie
as plain .npy files, one row per picture, which processes share through the page cache.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from generator import CODE, Scenes, Settings, World, draw_scenes

SIDE = 128
BATCH = 100
FIELDS = {
    "images": ((3, SIDE, SIDE), np.uint8),
    "mask": ((SIDE // 4, SIDE // 4), np.uint8),
    "shape": ((), np.int64),
    "texture": ((), np.int64),
    "ground": ((), np.int64),
    "code": ((CODE, CODE), np.uint8),
}


@dataclass(frozen=True)
class Pool:
    """Pictures by row, from easy to hard; the arrays have the shapes and dtypes of FIELDS."""

    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.arrays["shape"])

    def take(self, rows: np.ndarray, device: torch.device | str = "cpu") -> Scenes:
        """Copy some rows out."""
        return Scenes(**{name: torch.from_numpy(array[rows]).to(device) for name, array in self.arrays.items()})


def open_pool(world: World, folder: Path, *, count: int) -> Pool:
    """Draw the pool where it is missing or unfinished, and open it.

    Args:
        world: the kinds.
        folder: for the arrays, some 50 KB a picture.
        count: pictures, a multiple of BATCH.

    Raises:
        ValueError: if the folder holds a pool of another world or size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stamp, content = folder / "world.txt", f"{world.seed} {len(world.shapes)} {len(world.textures)} {count}\n"
    fresh = not stamp.exists()
    if not fresh and stamp.read_text() != content:
        raise ValueError(f"{folder} holds other pictures: remove it, or name another folder with --pool")
    arrays = {name: _open_array(folder / f"{name}.npy", (count, *shape), dtype)
              for name, (shape, dtype) in FIELDS.items()}  # fmt: skip
    if fresh:
        arrays["shape"][:] = -2  # not drawn yet
        stamp.write_text(content)
    missing = [number for number in range(count // BATCH) if arrays["shape"][number * BATCH] == -2]
    if missing:
        tasks = [(world, folder, count, missing[core :: os.cpu_count()]) for core in range(os.cpu_count() or 1)]
        with ProcessPoolExecutor(len(tasks), mp_context=get_context("fork")) as workers:
            list(workers.map(_draw_batches, tasks))
    return Pool({name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in FIELDS})


def _open_array(path: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    if path.exists():
        return np.load(path, mmap_mode="r+")
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def _draw_batches(task: tuple[World, Path, int, list[int]]) -> None:
    """Draw some batches; the shape, written last, says that a batch is complete."""
    world, folder, count, numbers = task
    torch.set_num_threads(1)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in FIELDS}
    for number in numbers:
        scenes = draw_scenes(world, Settings(BATCH, SIDE, number * BATCH / count), number)
        rows = slice(number * BATCH, (number + 1) * BATCH)
        for name in (*(name for name in FIELDS if name != "shape"), "shape"):
            arrays[name][rows] = getattr(scenes, name).numpy()
