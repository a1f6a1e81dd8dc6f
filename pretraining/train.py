"""Generated pictures -> the offline backbone: pre-trains MobileNetV2 and writes a Keras h5 file.

    python pretraining/train.py --out FILE.h5 [--steps N] [--resume]

First the pool of pictures is drawn, then two processes, each on a core of its own, learn from views of it and share
their gradients. The schedule counts steps, so a pause changes nothing. Checkpoints lie beside FILE as FILE.checkpoint.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MALLOC = {  # keep large blocks: returning them to the system after each layer costs a third of the speed
    "MALLOC_MMAP_THRESHOLD_": "20000000000",
    "MALLOC_TRIM_THRESHOLD_": "20000000000",
    "MALLOC_TOP_PAD_": "200000000",
}
if __name__ == "__main__" and "MALLOC_TOP_PAD_" not in os.environ:
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})

import numpy as np  # noqa: E402
import torch  # noqa: E402
from generator import Settings, World, build_world, draw_scenes  # noqa: E402
from held_out import calibrate, draw_tasks, probe_network  # noqa: E402
from network import MobileNetV2, Pointwise, export_h5  # noqa: E402
from objectives import Heads, measure_losses  # noqa: E402
from pool import Pool, open_pool  # noqa: E402
from textures import describe_kinds  # noqa: E402
from torch import distributed, multiprocessing, nn  # noqa: E402
from views import Views, cut_views  # noqa: E402


@dataclass(frozen=True)
class Recipe:
    """Every number of the training run.

    Attributes:
        pictures: in the pool.
        phases: (share of the steps done at its end, side of the views in pixels, pictures a process) in order.
        easy: share of the pool the run begins with.
        ramp: share of the steps after which the whole pool is in use.
        crops: smallest share of a picture's area in a view, at the beginning and at the end.
        without: losses left out.
    """

    alpha: float = 0.35
    steps: int = 10_000
    seed: int = 1
    pictures: int = 200_000
    shapes: int = 600
    textures: int = 240
    styles: int = 12
    phases: tuple[tuple[float, int, int], ...] = ((0.62, 64, 32), (0.9, 96, 32), (1.0, 128, 32))
    easy: float = 0.1
    ramp: float = 0.3
    rate: float = 2.5e-2
    head_rate: float = 4e-3
    pooled_rate: float = 5e-4
    crops: tuple[float, float] = (0.7, 0.3)
    warm_up: int = 150
    decay: float = 0.01
    average: float = 0.998
    processes: int = 2
    without: tuple[str, ...] = ()


def make_views(pool: Pool, recipe: Recipe, step: int, rank: int, device: str) -> Views:
    """Cut one process's views of one step: a pure function of the pool, the recipe, step and rank."""
    share = step / recipe.steps
    _, size, count = next(phase for phase in recipe.phases if share < phase[0])
    reach = min(1.0, recipe.easy + (1 - recipe.easy) * share / recipe.ramp)
    rows = np.random.default_rng((recipe.seed, step, rank)).integers(0, int(len(pool) * reach), count)
    least = recipe.crops[0] + share * (recipe.crops[1] - recipe.crops[0])
    return cut_views(pool.take(rows, device), size=size, number=step * recipe.processes + rank, least=least)


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


def build_state(recipe: Recipe, world: World, device: str = "cpu") -> State:
    """Initialise everything from the seed; matrices are trained by Muon, the rest by AdamW."""
    torch.manual_seed(recipe.seed)
    network = MobileNetV2(alpha=recipe.alpha).to(device, memory_format=torch.channels_last)
    widths = (network.block_6.expand.weight.shape[0], network.block_13.expand.weight.shape[0])
    styles = describe_kinds(world.textures, size=recipe.styles)
    heads = Heads(widths=widths, shapes=recipe.shapes, styles=styles).to(device)
    matrices = [module.weight for module in network.modules() if isinstance(module, Pointwise)]
    chosen = {id(matrix) for matrix in matrices}
    vectors = [value for value in network.parameters() if id(value) not in chosen]
    optimizers = [
        torch.optim.Muon(matrices, lr=recipe.rate, weight_decay=recipe.decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(vectors, lr=recipe.rate, weight_decay=0.0),
        torch.optim.AdamW(
            [
                {"params": [*heads.fine.parameters(), *heads.middle.parameters(), *heads.cover.parameters()]},
                {"params": [*heads.pooled.parameters(), *heads.project.parameters()], "lr": recipe.pooled_rate},
            ],
            lr=recipe.head_rate,
            weight_decay=0.05,
        ),
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


def take_step(state: State, recipe: Recipe, views: Views) -> dict[str, float]:
    """Update the network, the heads and the running average of the weights once."""
    set_rates(state, recipe)
    state.network.train()
    loss, log = measure_losses(state.heads, state.network(views.images), views, without=recipe.without)
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    share_gradients(state)
    nn.utils.clip_grad_norm_([*state.network.parameters(), *state.heads.parameters()], 5.0)
    for optimizer in state.optimizers:
        optimizer.step()
    weight = 1 - min(recipe.average, state.step / (state.step + 10))
    with torch.no_grad():
        for mean, value in zip(state.average.parameters(), state.network.parameters(), strict=True):
            mean.lerp_(value, weight)
    state.step += 1
    return log


def share_gradients(state: State) -> None:
    """Replace gradients by their means over the processes, which therefore keep the same weights."""
    if not distributed.is_initialized():
        return
    gradients = [value.grad for part in (state.network, state.heads) for value in part.parameters()]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(together)
    together /= distributed.get_world_size()
    for gradient, values in zip(gradients, together.split([each.numel() for each in gradients]), strict=True):
        gradient.copy_(values.view_as(gradient))


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


@dataclass(frozen=True)
class Job:
    """What to run: up to step `until`, with a checkpoint, an export and a probe every `every` steps."""

    recipe: Recipe
    out: Path
    folder: Path
    resume: bool
    until: int
    device: str
    every: int = 1000


def train(rank: int, job: Job) -> None:
    """Run one process of the training; the first one writes the files."""
    recipe, device = job.recipe, job.device
    torch.set_num_threads(max(1, available_cores() // recipe.processes))
    if recipe.processes > 1:
        store = f"file://{job.out.resolve()}.meeting"
        distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=recipe.processes)
    world = build_world(shapes=recipe.shapes, textures=recipe.textures, seed=recipe.seed)
    pool = open_pool(world, job.folder, count=recipe.pictures)
    state = build_state(recipe, world, device)
    checkpoint = job.out.with_name(job.out.name + ".checkpoint")
    if job.resume and checkpoint.exists():
        state.unpack(torch.load(checkpoint, weights_only=True, map_location=device))
    tasks = draw_tasks() if rank == 0 else {}
    log, parent = Log(time.time(), state.step), os.getppid()
    with ThreadPoolExecutor(1) as cutter:
        ahead = cutter.submit(make_views, pool, recipe, state.step, rank, device)
        while state.step < job.until and os.getppid() == parent:  # whoever kills the parent means its children too
            views = ahead.result()
            if state.step + 1 < recipe.steps:
                ahead = cutter.submit(make_views, pool, recipe, state.step + 1, rank, device)
            losses = take_step(state, recipe, views)
            if rank == 0:
                log.add(losses, state.step, job.until)
                if state.step % job.every == 0 or state.step == job.until:
                    write_checkpoint(state, checkpoint)
                    scores = probe_network(export_average(state, world, job.out), tasks)
                    print(f"{state.step} probe {json.dumps(scores)}", file=sys.stderr, flush=True)


@dataclass
class Log:
    """Prints mean losses and the time left every 100 steps."""

    begin: float
    first: int
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, losses: dict[str, float], step: int, until: int) -> None:
        """Take the losses of one step."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0) + value / 100
        if step % 100 == 0:
            spent = time.time() - self.begin
            left = spent / (step - self.first) * (until - step) / 60
            line = " ".join(f"{name}={value:.3f}" for name, value in self.sums.items())
            print(f"{step} {spent:.0f}s, {left:.0f} min left: {line}", file=sys.stderr, flush=True)
            self.sums = {}


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    """Read the command line, draw the pool and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the h5 file to write")
    parser.add_argument("--pool", type=Path, help="folder for the drawn pictures (beside --out), 10 GB")
    parser.add_argument("--alpha", type=float, default=Recipe.alpha, help="width of the network (%(default)s)")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="length of the run (%(default)s)")
    parser.add_argument("--until", type=int, help="stop at this step of the run (its end)")
    parser.add_argument("--processes", type=int, default=Recipe.processes, help="that share a batch (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="(%(default)s)")
    parser.add_argument("--without", nargs="*", default=(), help="losses to leave out, for comparisons")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint beside --out")
    options = parser.parse_args()
    recipe = Recipe(
        alpha=options.alpha,
        steps=options.steps,
        seed=options.seed,
        processes=options.processes,
        without=tuple(options.without),
    )
    folder = options.pool or options.out.with_name(options.out.name + ".pool")
    job = Job(recipe, options.out, folder, options.resume, options.until or recipe.steps, options.device)
    world = build_world(shapes=recipe.shapes, textures=recipe.textures, seed=recipe.seed)
    torch.set_num_threads(1)
    open_pool(world, folder, count=recipe.pictures)
    meeting = options.out.with_name(options.out.name + ".meeting")
    meeting.unlink(missing_ok=True)  # of a run that was killed
    if recipe.processes == 1:
        train(0, job)
    else:
        multiprocessing.spawn(train, (job,), nprocs=recipe.processes)
    meeting.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
