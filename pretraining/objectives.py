"""Feature maps + views -> one loss: names, dense targets, descriptions, and which views belong together."""

from __future__ import annotations

import torch
from descriptors import EDGES, GLOBAL, describe_views, measure_cells, measure_slopes
from generator import CODE
from network import FEATURES
from torch import Tensor, nn
from torch.nn import functional
from views import Views

Maps = tuple[Tensor, Tensor, Tensor]
TEMPERATURE = 0.2
WEIGHTS = {
    "shape": 1.0, "texture": 0.5, "ground": 0.5, "code": 3.0, "style": 0.5, "ground_style": 0.5,
    "mask8": 0.5, "edges8": 0.2, "colour8": 0.3, "style8": 0.1,
    "mask16": 0.5, "cover16": 0.4, "style16": 0.3,
    "global": 1.5, "pairs": 0.5, "spread": 5.0,
}  # fmt: skip


class Heads(nn.Module):
    """Linear read-outs at stride 8, stride 16 and of the pooled features; thrown away after training.

    Args:
        widths: channels at stride 8 and 16.
        shapes: kinds of shapes.
        styles: (textures, d) description of each kind of texture.
    """

    styles: Tensor

    def __init__(self, *, widths: tuple[int, int], shapes: int, styles: Tensor) -> None:
        super().__init__()
        self.register_buffer("styles", styles)
        textures, style = styles.shape
        self.sizes8 = [1, EDGES, 3, style]
        self.sizes16 = [1, style]
        self.sizes = [shapes, textures, textures, CODE * CODE, style, style, GLOBAL]
        self.fine = nn.Conv2d(widths[0], sum(self.sizes8), 1)
        self.middle = nn.Conv2d(widths[1], sum(self.sizes16), 1)
        self.cover = nn.Linear(widths[1], textures)
        self.norm = nn.BatchNorm1d(FEATURES, affine=False)
        self.pooled = nn.Linear(FEATURES, sum(self.sizes))
        self.project = nn.Sequential(nn.Linear(FEATURES, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 128))
        for layer in (self.fine, self.middle, self.cover, self.pooled):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)


def _classify(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy over the rows whose target is known (not -1)."""
    return functional.cross_entropy(logits, target, label_smoothing=0.05, ignore_index=-1)


def _name_cells(views: Views, mask: Tensor) -> Tensor:
    """Return the texture each cell shows, -1 where none or two: (v, h, w)."""
    texture, ground = views.texture[:, None, None], views.ground[:, None, None]
    return torch.where(mask > 0.7, texture, torch.where(mask < 0.1, ground, -1))


def _match_pairs(projected: Tensor) -> Tensor:
    """Tell each view's other half from all other views of the batch (Chen et al., SimCLR, 2020)."""
    rows = functional.normalize(projected, dim=1)
    likeness = rows @ rows.T / TEMPERATURE
    likeness.fill_diagonal_(-1e4)
    count = len(rows)
    return functional.cross_entropy(likeness, torch.arange(count, device=rows.device).roll(count // 2))


def _measure_spread(pooled: Tensor) -> Tensor:
    """Return how alike the standardised features of different pictures are: about 1 / their effective dimensions.

    The squared correlations between features, summed through the matrix of inner products (as Zbontar et al., "Barlow
    Twins", 2021, decorrelate features, at the price of views by views instead of features by features).
    """
    count = len(pooled)
    products = pooled @ pooled.T / pooled.shape[1]
    same = torch.eye(count, device=pooled.device) + torch.eye(count, device=pooled.device).roll(count // 2, 0)
    return (products.square() * (1 - same)).sum() / (count * (count - 2))


def measure_losses(
    heads: Heads, maps: Maps, views: Views, *, without: tuple[str, ...] = ()
) -> tuple[Tensor, dict[str, float]]:
    """Return the weighted sum of all losses, and each one (plus the accuracies) for the log.

    Args:
        heads: the read-outs.
        maps: feature maps at stride 8, 16 and 32.
        views: the pictures they were computed from.
        without: losses to leave out, for comparisons of recipes.
    """
    mask8, mask16 = views.mask, functional.avg_pool2d(views.mask[:, None], 2)
    cells8, cells16 = _name_cells(views, mask8), _name_cells(views, mask16[:, 0])
    slopes = measure_slopes(views.images)
    edges = measure_cells(slopes)
    mask, energy, colour, style8 = heads.fine(maps[0]).split(heads.sizes8, 1)
    known8, known16 = (cells8 >= 0).nonzero(as_tuple=True), (cells16 >= 0).nonzero(as_tuple=True)
    middle_mask, style16 = heads.middle(maps[1]).split(heads.sizes16, 1)
    named = maps[1].permute(0, 2, 3, 1)[known16]
    pooled = heads.norm(maps[2].mean((2, 3)))
    shape, texture, ground, code, style, ground_style, whole = heads.pooled(pooled).split(heads.sizes, 1)
    there, floor = (views.shape >= 0).nonzero()[:, 0], (views.ground >= 0).nonzero()[:, 0]
    losses = {
        "shape": _classify(shape, views.shape),
        "texture": _classify(texture, views.texture),
        "ground": _classify(ground, views.ground),
        "code": functional.binary_cross_entropy_with_logits(code[there], views.code[there]),
        "style": functional.mse_loss(style[there], heads.styles[views.texture[there]]),
        "ground_style": functional.mse_loss(ground_style[floor], heads.styles[views.ground[floor]]),
        "mask8": functional.binary_cross_entropy_with_logits(mask[:, 0], mask8),
        "edges8": functional.mse_loss(energy, edges + 3),
        "colour8": functional.mse_loss(colour, functional.avg_pool2d(views.images, 8) * 2),
        "style8": functional.mse_loss(style8.permute(0, 2, 3, 1)[known8], heads.styles[cells8[known8]]),
        "mask16": functional.binary_cross_entropy_with_logits(middle_mask, mask16),
        "cover16": _classify(heads.cover(named), cells16[known16]),
        "style16": functional.mse_loss(style16.permute(0, 2, 3, 1)[known16], heads.styles[cells16[known16]]),
    }
    if "global" not in without:
        losses["global"] = functional.mse_loss(whole, describe_views(views.images, slopes, edges))
    if "pairs" not in without:
        losses["pairs"] = _match_pairs(heads.project(pooled))
    if "spread" not in without:
        losses["spread"] = _measure_spread(pooled)
    total = sum(WEIGHTS[name] * loss for name, loss in losses.items() if name not in without)
    log = {name: loss.item() for name, loss in losses.items()}
    log["shape_right"] = (shape.argmax(1) == views.shape)[there].float().mean().item()
    log["texture_right"] = (texture.argmax(1) == views.texture)[there].float().mean().item()
    log["ground_right"] = (ground.argmax(1) == views.ground)[floor].float().mean().item()
    return total, log
