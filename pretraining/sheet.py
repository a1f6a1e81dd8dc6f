"""Generator -> a contact sheet: what the pictures look like, as one picture.

python pretraining/sheet.py OUT.jpg [--seed N] [--hardness 1.0]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from generator import Settings, build_world, draw_scenes

ROWS, COLUMNS, SIDE = 5, 10, 128


def main() -> None:
    """Draw one batch and lay it out in rows."""
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the picture to write, .jpg or .png")
    parser.add_argument("--seed", type=int, default=1, help="of the world of shapes and textures (%(default)s)")
    parser.add_argument("--hardness", type=float, default=1.0, help="0 easy .. 1 everything (%(default)s)")
    options = parser.parse_args()
    world = build_world(shapes=100, textures=50, seed=options.seed)
    images = draw_scenes(world, Settings(ROWS * COLUMNS, SIDE, options.hardness), 0).images
    rows = images.unflatten(0, (ROWS, COLUMNS)).permute(0, 3, 1, 4, 2).reshape(ROWS * SIDE, COLUMNS * SIDE, 3)
    Image.fromarray(rows.contiguous().numpy()).save(options.out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
