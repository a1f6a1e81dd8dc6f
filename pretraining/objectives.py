"""Feature maps + what is known about the scenes -> one loss: many dense targets at three depths."""

from __future__ import annotations

import torch
from generator import ATTRIBUTES, CODE, Scenes
from network import FEATURES
from torch import Tensor, nn
from torch.nn import functional

Maps = tuple[Tensor, Tensor, Tensor]
WEIGHTS = {
    "shape": 1.0, "texture": 0.75, "ground": 0.75, "attributes": 0.5, "code": 3.0,
    "mask8": 0.5, "cover8": 0.2, "edges8": 0.2, "colour8": 0.3, "mask16": 0.5, "cover16": 0.4, "shape16": 0.5,
    "style": 0.5, "ground_style": 0.5, "style8": 0.1, "style16": 0.3,
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
        self.sizes8 = [1, textures, 12, 3, style]
        self.sizes16 = [1, textures, shapes, style]
        self.sizes = [shapes, textures, textures, ATTRIBUTES, CODE * CODE, style, style]
        self.fine = nn.Conv2d(widths[0], sum(self.sizes8), 1)
        self.middle = nn.Conv2d(widths[1], sum(self.sizes16), 1)
        self.pooled = nn.Linear(FEATURES, sum(self.sizes))
        for layer in (self.fine, self.middle, self.pooled):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Maps) -> list[list[Tensor]]:
        """Read out the targets: lists for stride 8, stride 16 and the picture as a whole."""
        fine, middle, last = maps
        return [
            list(self.fine(fine).split(self.sizes8, 1)),
            list(self.middle(middle).split(self.sizes16, 1)),
            list(self.pooled(last.mean((2, 3))).split(self.sizes, 1)),
        ]


def _classify(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy over the cells whose target is known (not -1)."""
    if logits.dim() == 2:
        return functional.cross_entropy(logits, target, label_smoothing=0.05, ignore_index=-1)
    known = (target >= 0).nonzero(as_tuple=True)
    return functional.cross_entropy(logits.permute(0, 2, 3, 1)[known], target[known])


def _describe(values: Tensor, target: Tensor, styles: Tensor) -> Tensor:
    """Squared error of the texture's description over the cells whose texture is known."""
    known = (target >= 0).nonzero(as_tuple=True)
    return functional.mse_loss(values.permute(0, 2, 3, 1)[known], styles[target[known]])


def measure_losses(heads: Heads, maps: Maps, scenes: Scenes) -> tuple[Tensor, dict[str, float]]:
    """Return the weighted sum of all losses, and each one (plus the accuracies) for the log."""
    fine, middle, whole = heads(maps)
    there = (scenes.shape >= 0).nonzero()[:, 0]
    mask16 = functional.avg_pool2d(scenes.mask[:, None], 2)
    highest = functional.max_pool2d(scenes.cover[:, None].float(), 2)[:, 0]
    lowest = -functional.max_pool2d(-scenes.cover[:, None].float(), 2)[:, 0]
    cover16 = torch.where(highest == lowest, highest, -1.0).long()
    shape16 = torch.where(mask16[:, 0] > 0.4, scenes.shape[:, None, None], -1)
    losses = {
        "shape": _classify(whole[0], scenes.shape),
        "texture": _classify(whole[1], scenes.texture),
        "ground": _classify(whole[2], scenes.ground),
        "attributes": functional.mse_loss(whole[3][there], scenes.attributes[there]),
        "code": functional.binary_cross_entropy_with_logits(whole[4][there], scenes.code[there].flatten(1)),
        "mask8": functional.binary_cross_entropy_with_logits(fine[0][:, 0], scenes.mask),
        "cover8": _classify(fine[1], scenes.cover),
        "edges8": functional.mse_loss(fine[2], scenes.edges + 3),
        "colour8": functional.mse_loss(fine[3], scenes.colour * 4 - 2),
        "mask16": functional.binary_cross_entropy_with_logits(middle[0], mask16),
        "cover16": _classify(middle[1], cover16),
        "shape16": _classify(middle[2], shape16),
        "style": functional.mse_loss(whole[5][there], heads.styles[scenes.texture[there]]),
        "ground_style": functional.mse_loss(whole[6], heads.styles[scenes.ground]),
        "style8": _describe(fine[4], scenes.cover, heads.styles),
        "style16": _describe(middle[3], cover16, heads.styles),
    }
    total = sum(WEIGHTS[name] * loss for name, loss in losses.items())
    log = {name: loss.item() for name, loss in losses.items()}
    log["shape_right"] = (whole[0].argmax(1) == scenes.shape)[there].float().mean().item()
    log["texture_right"] = (whole[1].argmax(1) == scenes.texture)[there].float().mean().item()
    log["ground_right"] = (whole[2].argmax(1) == scenes.ground).float().mean().item()
    return total, log
