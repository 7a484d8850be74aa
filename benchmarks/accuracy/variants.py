"""Nets that are not part of the package against the one that is, at one budget of epochs.

    python benchmarks/accuracy/variants.py DATA.npz [--seeds 2] [--only ROW ...]
    python benchmarks/accuracy/variants.py --table

Cheaper nets, which see or draw less at full resolution; nets that know more of the image, or less
of its light; and a few parameters of the training. Everything else is written out here, so that
rows stay comparable whatever the defaults are. Runs go to `results/variants.jsonl`.
"""

from collections.abc import Mapping
from typing import Any
from unittest import mock

import torch
from protocol import Split, run_segmenter, run_table
from torch import Tensor, nn

from skmars import Augmenter
from skmars.nn import ASPP, AttentionASPPUNet
from skmars.nn.blocks import upsample

LIGHT = {"horizontal_flip": False, "brightness": 0.3, "contrast": 0.3}
SETTINGS = {
    "patch_size": 1,
    "dropout": 0.1,
    "class_weight": "sqrt",
    "ema_decay": None,
    "augmentation": Augmenter(**LIGHT),
    "validation_fraction": None,
    "early_stopping": False,
    "n_threads": 1,
    "precision": "float32",
    "tta": False,
}


class PoolingASPP(ASPP):
    """With the mean over the image beside the other branches, as in later versions of ASPP."""

    def __init__(self, channels: int, dilation_rates=(1, 2, 4)):
        super().__init__(channels, dilation_rates)
        width = max(channels // 2, 1)
        self.image_pooling = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, width, 1), nn.ReLU(inplace=True)
        )
        n_maps = len(self.branches) + 1
        self.project[0] = nn.Conv2d(n_maps * width, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Join all branches."""
        maps = [branch(x) for branch in self.branches]
        maps.append(self.image_pooling(x).expand_as(maps[0]))
        return self.project(torch.cat(maps, dim=1))


class HalfNet(nn.Module):
    """Everything at half of the resolution, behind a convolution with stride 2."""

    def __init__(self, in_channels: int, n_classes: int, *, base_channels: int, **params):
        super().__init__()
        width = base_channels
        self.stem = initialised(conv_bn_relu(in_channels, width, stride=2))
        self.net = AttentionASPPUNet(width, n_classes, base_channels=width, **params)
        self.head = self.net.head
        self.patch_size = 1

    @property
    def encoder(self) -> list[nn.Module]:
        """All levels: windows begin where the coarsest one does."""
        return [self.stem, *self.net.encoder]

    def freeze(self, parts: str | None) -> None:
        """Freeze nothing: there is no second phase here."""

    def forward(self, x: Tensor) -> Tensor:
        """Interpolate the logits."""
        return upsample(self.net(self.stem(x)), 2, x.shape[-2:])


class StemNet(HalfNet):
    """The same with a light path at full resolution, one convolution each way."""

    def __init__(self, in_channels: int, n_classes: int, *, base_channels: int, **params):
        width = base_channels
        super().__init__(in_channels, width, base_channels=width, **params)
        self.fine = initialised(conv_bn_relu(in_channels, width)[:2])
        self.join = initialised(nn.Sequential(nn.ReLU(), *conv_bn_relu(width, width)))
        self.head = initialised(nn.Conv2d(width, n_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Add what is seen at full resolution to what was drawn at half."""
        return self.head(self.join(super().forward(x) + self.fine(x)))


class CoarseDecoder(AttentionASPPUNet):
    """All of the encoder, but no decoder at full resolution: logits are drawn at half of it."""

    def __init__(self, in_channels: int, n_classes: int, *, base_channels: int, **params):
        super().__init__(in_channels, n_classes, base_channels=base_channels, **params)
        del self.decoder[-1]
        self.head = initialised(nn.Conv2d(2 * base_channels, n_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Interpolate the logits."""
        image, skips = x, []
        for block in self.encoder:
            skips.append(block(x))
            x = self.pool(skips[-1])
        x = self.bottleneck(x)
        for level in self.decoder:
            x = level(x, skips.pop())
        return upsample(self.head(x), 2, image.shape[-2:])


class OwnLight(HalfNet):
    """Each image scaled by its own mean and deviation."""

    def forward(self, x: Tensor) -> Tensor:
        """Scale and go on."""
        mean, deviation = x.mean((2, 3), keepdim=True), x.std((2, 3), keepdim=True)
        return super().forward((x - mean) / (deviation + 0.1))


class LocalContrast(CoarseDecoder):
    """The image, and beside it each pixel scaled by the 15x15 pixels around it."""

    def __init__(self, in_channels: int, n_classes: int, **params):
        super().__init__(2 * in_channels, n_classes, **params)
        self.around = nn.AvgPool2d(15, 1, 7, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and go on with both."""
        centred = x - self.around(x)
        deviation = self.around(centred**2).sqrt()
        return super().forward(torch.cat([x, centred / (deviation + 0.1)], dim=1))


def conv_bn_relu(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def initialised(module: nn.Module) -> nn.Module:
    """Give convolutions the weights that those of the package begin with."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def changed(**params) -> dict[str, Augmenter]:
    """The light as in all rows, and something else."""
    return {"augmentation": Augmenter(**{**LIGHT, **params})}


POOLED = {"pyramid": PoolingASPP}
PATCHES = {"patch_size": 2, "ema_decay": 0.99, "precision": "bfloat16"}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "full, moving average of 0.99": {"ema_decay": 0.99},
    "full, without ASPP": {"aspp": False},
    "patches": PATCHES,
    "patches, 24 epochs": {**PATCHES, "max_epochs": 24},
    "patches, 24 epochs, flips": {**PATCHES, "max_epochs": 24, **changed(horizontal_flip=True)},
    "patches, 24 epochs, stronger regularisation": {
        **PATCHES,
        "max_epochs": 24,
        "dropout": 0.2,
        "weight_decay": 0.1,
        **changed(horizontal_flip=True, brightness=0.5, contrast=0.5),
    },
    "patches, windows of 0.75, 40 epochs": {
        **PATCHES,
        "max_epochs": 40,
        **changed(random_crop=0.75),
    },
    "patches, windows of 0.75, CutMix, 40 epochs": {
        **PATCHES,
        "max_epochs": 40,
        **changed(random_crop=0.75, cutmix=0.5),
    },
    "patches, windows of 0.75, flips, 40 epochs": {
        **PATCHES,
        "max_epochs": 40,
        **changed(random_crop=0.75, horizontal_flip=True),
    },
    "patches, windows of 0.5, batches of 32, 96 epochs": {
        **PATCHES,
        "max_epochs": 96,
        "batch_size": 32,
        **changed(random_crop=0.5),
    },
    "coarse decoder": {"net": CoarseDecoder},
    "coarse decoder, mean over the image in ASPP": {"net": CoarseDecoder, **POOLED},
    "coarse decoder, without ASPP": {"net": CoarseDecoder, "aspp": False},
    "coarse decoder, mean in ASPP, no class weights": {
        "net": CoarseDecoder,
        **POOLED,
        "class_weight": None,
    },
    "coarse decoder, moving average of 0.99": {"net": CoarseDecoder, "ema_decay": 0.99},
    "coarse decoder, local contrast beside the image": {"net": LocalContrast},
    "half resolution, mean in ASPP": {"net": HalfNet, **POOLED},
    "half resolution, mean in ASPP, 30 epochs": {"net": HalfNet, **POOLED, "max_epochs": 30},
    "half resolution, without ASPP": {"net": HalfNet, "aspp": False},
    "half resolution, mean in ASPP, own light": {"net": OwnLight, **POOLED},
    "half resolution and light path, mean in ASPP": {"net": StemNet, **POOLED},
}


def run(split: Split, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train and score with another net in the place of the package's."""
    params = dict(params)
    net, pyramid = params.pop("net", AttentionASPPUNet), params.pop("pyramid", ASPP)
    with (
        mock.patch("skmars.training.net.AttentionASPPUNet", net),
        mock.patch("skmars.nn.unet.ASPP", pyramid),
    ):
        return run_segmenter(split, params, seed)


if __name__ == "__main__":
    run_table(
        "variants",
        CONFIGURATIONS,
        baseline="coarse decoder",
        settings=SETTINGS,
        epochs=8,
        run=run,
    )
