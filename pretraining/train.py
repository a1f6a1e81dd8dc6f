"""Generated pictures -> the offline backbone: pre-trains MobileNetV2 and writes a Keras h5 file.

    python pretraining/train.py --out FILE.h5 [--steps N] [--resume]

The schedule counts steps, so a pause changes nothing. Checkpoints lie beside FILE as FILE.checkpoint.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MALLOC = {  # keep large blocks: returning them to the system after each layer costs a third of the speed
    "MALLOC_MMAP_THRESHOLD_": "20000000000",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "200000000",
}
if __name__ == "__main__" and "MALLOC_TOP_PAD_" not in os.environ:
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})

import torch  # noqa: E402
from generator import Scenes, Settings, World, build_world, draw_scenes  # noqa: E402
from network import MobileNetV2, Pointwise, export_h5  # noqa: E402
from objectives import Heads, measure_losses  # noqa: E402
from probe import calibrate, draw_tasks, probe_network, scale_pixels  # noqa: E402
from textures import describe_kinds  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402


@dataclass(frozen=True)
class Recipe:
    """Every number of the training run.

    Attributes:
        phases: (share of the steps done at its end, side in pixels, batch) in order.
        lead: steps at the beginning with batches twice as large.
        ramp: share of the steps over which the pictures grow hard.
    """

    steps: int = 5_500
    seed: int = 1
    shapes: int = 300
    textures: int = 96
    styles: int = 12
    phases: tuple[tuple[float, int, int], ...] = ((0.6, 64, 64), (0.92, 96, 64), (1.0, 128, 48))
    lead: int = 1000
    ramp: float = 0.4
    rate: float = 4e-3
    head_rate: float = 4e-3
    warm_up: int = 150
    decay: float = 0.01
    average: float = 0.998


class Batches(Dataset[Scenes]):
    """Batch number -> scenes, for the loader's worker."""

    def __init__(self, world: World, recipe: Recipe) -> None:
        self.world, self.recipe = world, recipe

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, step: int) -> Scenes:
        share = step / self.recipe.steps
        _, size, count = next(phase for phase in self.recipe.phases if share < phase[0])
        count *= 2 if step < self.recipe.lead else 1
        return draw_scenes(self.world, Settings(count, size, min(1.0, share / self.recipe.ramp)), step)


@dataclass
class State:
    """What a checkpoint holds."""

    network: MobileNetV2
    average: MobileNetV2
    heads: Heads
    optimizers: list[torch.optim.Optimizer]
    step: int = 0

    def pack(self) -> dict[str, Any]:
        """Collect everything that changes while training."""
        return {"step": self.step, "parts": [part.state_dict() for part in self._parts()]}

    def unpack(self, packed: dict[str, Any]) -> None:
        """Put back what `pack` collected."""
        for part, values in zip(self._parts(), packed["parts"], strict=True):
            part.load_state_dict(values)
        self.step = packed["step"]

    def _parts(self) -> tuple[Any, ...]:
        return self.network, self.average, self.heads, *self.optimizers


def build_state(recipe: Recipe, world: World) -> State:
    """Initialise everything from the seed; matrices are trained by Muon, the rest by AdamW."""
    torch.manual_seed(recipe.seed)
    network = MobileNetV2().to(memory_format=torch.channels_last)
    widths = (network.block_6.expand.weight.shape[0], network.block_13.expand.weight.shape[0])
    styles = describe_kinds(world.textures, size=recipe.styles)
    heads = Heads(widths=widths, shapes=recipe.shapes, styles=styles)
    matrices = [module.weight for module in network.modules() if isinstance(module, Pointwise)]
    chosen = {id(matrix) for matrix in matrices}
    vectors = [value for value in network.parameters() if id(value) not in chosen]
    optimizers = [
        torch.optim.Muon(matrices, lr=recipe.rate, weight_decay=recipe.decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(vectors, lr=recipe.rate, weight_decay=0.0),
        torch.optim.AdamW(heads.parameters(), lr=recipe.head_rate, weight_decay=0.05),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return State(network, copy.deepcopy(network), heads, optimizers)


def set_rates(state: State, recipe: Recipe) -> None:
    """Warm up linearly, then follow a cosine down to 1 %."""
    warm = min(1.0, (state.step + 1) / recipe.warm_up)
    factor = warm * (0.505 + 0.495 * math.cos(math.pi * state.step / recipe.steps))
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


def take_step(state: State, recipe: Recipe, scenes: Scenes) -> dict[str, float]:
    """Update the network, the heads and the running average of the weights once."""
    set_rates(state, recipe)
    state.network.train()
    loss, log = measure_losses(state.heads, state.network(scale_pixels(scenes.images)), scenes)
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_([*state.network.parameters(), *state.heads.parameters()], 5.0)
    for optimizer in state.optimizers:
        optimizer.step()
    weight = 1 - min(recipe.average, state.step / (state.step + 10))
    with torch.no_grad():
        for mean, value in zip(state.average.parameters(), state.network.parameters(), strict=True):
            mean.lerp_(value, weight)
    state.step += 1
    return log


def write_checkpoint(state: State, path: Path) -> None:
    """Write the state, renamed into place."""
    temporary = path.with_name(path.name + ".part")
    torch.save(state.pack(), temporary)
    temporary.replace(path)


def export_average(state: State, world: World, out: Path) -> MobileNetV2:
    """Calibrate BatchNorm of the averaged weights on pictures at 160 px and write them."""
    network = copy.deepcopy(state.average)
    batches = [draw_scenes(world, Settings(32, 160, 0.8), number, stream=3).images for number in range(12)]
    calibrate(network, batches)
    export_h5(network, out)
    return network


def train(recipe: Recipe, *, out: Path, resume: bool, until: int, every: int = 500) -> None:
    """Run the recipe up to step `until`, with a checkpoint, an export and a probe every `every` steps."""
    torch.set_num_threads(1)
    world = build_world(shapes=recipe.shapes, textures=recipe.textures, seed=recipe.seed)
    state = build_state(recipe, world)
    checkpoint = out.with_name(out.name + ".checkpoint")
    if resume and checkpoint.exists():
        state.unpack(torch.load(checkpoint, weights_only=True))
    tasks = draw_tasks()
    loader = DataLoader(Batches(world, recipe), batch_size=None, sampler=range(state.step, until),
                        num_workers=1, prefetch_factor=6)  # fmt: skip
    sums: dict[str, float] = {}
    begin = time.process_time()
    for scenes in loader:
        for name, value in take_step(state, recipe, scenes).items():
            sums[name] = sums.get(name, 0) + value / 100
        if state.step % 100 == 0:
            line = " ".join(f"{name}={value:.3f}" for name, value in sums.items())
            print(f"{state.step} {time.process_time() - begin:.0f}s {line}", file=sys.stderr, flush=True)
            sums = {}
        if state.step % every == 0 or state.step == until:
            write_checkpoint(state, checkpoint)
            scores = probe_network(export_average(state, world, out), tasks)
            print(f"{state.step} probe {json.dumps(scores)}", file=sys.stderr, flush=True)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the h5 file to write")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="length of the run (%(default)s)")
    parser.add_argument("--until", type=int, help="stop at this step of the run (its end)")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="(%(default)s)")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint beside --out")
    options = parser.parse_args()
    recipe = Recipe(steps=options.steps, seed=options.seed)
    train(recipe, out=options.out, resume=options.resume, until=options.until or recipe.steps)


if __name__ == "__main__":
    main()
