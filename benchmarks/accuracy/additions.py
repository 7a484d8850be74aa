"""What could be added to the default training, one thing a row, at one budget of epochs.

    python benchmarks/accuracy/additions.py DATA.npz [--seeds 3] [--only ROW ...]
    python benchmarks/accuracy/additions.py --table

All else is as the defaults have it. The rows are compared with "40 epochs" of `duration.py`, which
is the same training without any of it. Runs go to `results/duration.jsonl` as well.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from duration import MANY_EPOCHS, SETTINGS
from protocol import LABELS, Split, run_segmenter, run_table
from torch import Tensor, nn
from torch.nn import functional as F

from skmars import Augmenter
from skmars.augmentation import Augmentation
from skmars.batches import SegmentationDataset
from skmars.losses import LOSSES, cross_entropy
from skmars.nn import AttentionASPPUNet
from skmars.nn.blocks import BatchNorm
from skmars.transforms import Batch, Transform, crop, mix_rectangles

LIGHT = {"horizontal_flip": False, "brightness": 0.3, "contrast": 0.3}
BATCH_SIZE = 16
SMOOTHING = 0.1
# Of the logits at full resolution, and of those of the coarser levels.
LEVEL_WEIGHTS = (1.0, 0.4, 0.2)
WINDOWS = (0.5, 0.625, 0.75)


def smoothed_cross_entropy(logits: Tensor, target: Tensor, **kwargs) -> Tensor:
    """Cross entropy with a tenth of each label shared among the classes, as their weights are."""
    hard = cross_entropy(logits, target, **kwargs)
    labels = range(logits.shape[1])
    others = [
        cross_entropy(logits, torch.where(target < 0, target, label), **kwargs) for label in labels
    ]
    return (1 - SMOOTHING) * hard + SMOOTHING * torch.stack(others).mean()


def border_cross_entropy(
    logits: Tensor, target: Tensor, *, weight: Tensor | None = None, **kwargs
) -> Tensor:
    """Cross entropy with labels blurred over 5x5 pixels (SVLS, Islam and Glocker 2021)."""
    known = target >= 0
    labels = F.one_hot(target.clamp(min=0), logits.shape[1]).movedim(-1, 1) * known.unsqueeze(1)
    blurred = F.avg_pool2d(labels.float(), 5, stride=1, padding=2)
    blurred = blurred / blurred.sum(dim=1, keepdim=True).clamp(min=1e-6)
    if weight is not None:
        blurred = blurred * weight.view(1, -1, 1, 1)
    losses = -(blurred * logits.float().log_softmax(dim=1)).sum(dim=1)
    return (losses * known).sum() / known.sum().clamp(min=1)


def levelwise_cross_entropy(logits: Tensor, target: Tensor, **kwargs) -> Tensor:
    """Weighted sum over the logits of several levels, which follow one another as channels."""
    levels = logits.split(len(LABELS), dim=1)
    return sum(
        share * cross_entropy(level, target, **kwargs)
        for share, level in zip(LEVEL_WEIGHTS, levels, strict=False)
    )


class DeeplySupervised(AttentionASPPUNet):
    """In training, logits of the bottleneck and of the decoder's first level as well."""

    def __init__(self, in_channels: int, n_classes: int, **params):
        super().__init__(in_channels, n_classes, **params)
        width = params["base_channels"] * 2 ** params["depth"]
        self.level_heads = nn.ModuleList(
            nn.Conv2d(width // 2**level, n_classes, 1) for level in (1, 0)
        )

    def _logits(self, x: Tensor) -> Tensor:
        if not self.training:
            return super()._logits(x)
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        maps = [self.bottleneck(x)]
        for level in self.decoder:
            maps.append(level(maps[-1], skips.pop()))
        logits = [self.head(maps[-1])]
        for head, coarse in zip(self.level_heads, (maps[1], maps[0]), strict=True):
            size = logits[0].shape[-2:]
            logits.append(F.interpolate(head(coarse), size=size, mode="bilinear"))
        return torch.cat(logits, dim=1)


class InstanceNorms(AttentionASPPUNet):
    """Half of the encoder's maps normalised in each image by itself (IBN-a, Pan et al. 2018)."""

    def __init__(self, in_channels: int, n_classes: int, **params):
        super().__init__(in_channels, n_classes, **params)
        for block in self.encoder:
            block.body[1] = HalfInstanceNorm(block.body[0].out_channels)


class HalfInstanceNorm(nn.Module):
    """Instance normalisation of one half of the channels, batch normalisation of the other."""

    def __init__(self, channels: int):
        super().__init__()
        self.instance = nn.InstanceNorm2d(channels // 2, affine=True)
        self.batch = BatchNorm(channels - channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(n, C, H, W)`."""
        first, rest = x.tensor_split([x.shape[1] // 2], dim=1)
        return torch.cat([self.instance(first), self.batch(rest)], dim=1)


class GrowingWindows(Augmenter):
    """Windows of half of the image's sides at first, and of three quarters at last."""

    def prepare(self, dataset: SegmentationDataset, *args, **kwargs) -> Augmentation:
        """Put the windows before CutMix, as the defaults do."""
        augmentation = super().prepare(dataset, *args, **kwargs)
        parts = [[crop(share), mix_rectangles(0.5)] for share in WINDOWS]
        augmentation.transforms.append(Parts(parts, len(dataset)))
        return augmentation


class WholeAtLast(Augmenter):
    """Windows and CutMix, and in the last fifth of the training whole images."""

    def prepare(self, dataset: SegmentationDataset, *args, **kwargs) -> Augmentation:
        """Put what changes after the changes of intensity."""
        augmentation = super().prepare(dataset, *args, **kwargs)
        windows = [crop(0.75), mix_rectangles(0.5)]
        augmentation.transforms.append(Parts([windows] * 4 + [[]], len(dataset)))
        return augmentation


class Parts:
    """Transforms of the part that a training is in, of several of one length."""

    def __init__(self, parts: Sequence[Sequence[Transform]], n_images: int):
        self.parts = parts
        self.n_steps = MANY_EPOCHS * -(-n_images // BATCH_SIZE)
        self.n_done = 0

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Change a batch, and count it."""
        part = min(len(self.parts) * self.n_done // self.n_steps, len(self.parts) - 1)
        self.n_done += 1
        for transform in self.parts[part]:
            batch = transform(batch, generator)
        return batch


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "label smoothing": {"loss": "smoothed"},
    "label smoothing at borders": {"loss": "borders"},
    "deep supervision": {"loss": "levelwise", "net": DeeplySupervised},
    "instance normalisation of half of the encoder": {"net": InstanceNorms},
    "growing windows": {"augmentation": GrowingWindows(**LIGHT)},
    "whole images in the last fifth": {"augmentation": WholeAtLast(**LIGHT)},
}


def run(split: Split, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train and score with a row's net or loss beside those of the package."""
    params = dict(params)
    net = params.pop("net", AttentionASPPUNet)
    more = {
        "smoothed": smoothed_cross_entropy,
        "borders": border_cross_entropy,
        "levelwise": levelwise_cross_entropy,
    }
    with (
        mock.patch("skmars.training.net.AttentionASPPUNet", net),
        mock.patch.dict(LOSSES, more),
    ):
        return run_segmenter(split, params, seed)


if __name__ == "__main__":
    run_table(
        "duration",
        CONFIGURATIONS,
        settings=SETTINGS,
        baseline="40 epochs",
        epochs=MANY_EPOCHS,
        run=run,
    )
