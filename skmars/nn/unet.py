"""U-Net with residual blocks, attention gates on the skips and ASPP at the bottleneck."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from skmars.nn.aspp import ASPP
from skmars.nn.attention import AttentionGate
from skmars.nn.blocks import BLOCKS, upsample
from skmars.nn.skips import SKIPS, Skip

__all__ = ["FREEZABLE", "PATCH_SIZES", "AttentionASPPUNet"]

PATCH_SIZES = (1, 2)

FREEZABLE = {
    "encoder": ("encoder",),
    "encoder+bottleneck": ("encoder", "bottleneck"),
    "decoder": ("decoder",),
}


class DecoderLevel(nn.Module):
    """One step up: upsample, gate and join the skip connection, then a block."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        block: str,
        skip: str,
        attention: bool,
        dropout: float,
    ):
        super().__init__()
        # A 1x1 convolution commutes with the interpolation and is cheaper in front of it.
        self.reduce = nn.Conv2d(in_channels, out_channels, 1)
        self.attention = AttentionGate(out_channels, in_channels) if attention else None
        self.skip: Skip = SKIPS[skip](out_channels)
        self.block = BLOCKS[block](self.skip.out_channels, out_channels, dropout)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Join `(n, in_channels, h, w)` with `(n, out_channels, H, W)`, `h = ceil(H / 2)`."""
        up = upsample(self.reduce(x), 2, skip.shape[-2:])
        if self.attention is not None:
            skip = self.attention(skip, gate=x)
        return self.block(self.skip(skip, up))


class AttentionASPPUNet(nn.Module):
    """U-Net [1]_ whose residual blocks, attention gates and ASPP can be switched one by one.

    Each of `depth` encoder levels is a block followed by 2x2 max pooling and doubles the
    channels; the bottleneck is a block, then ASPP; each decoder level upsamples, joins the skip
    connection of its resolution and applies a block; a 1x1 convolution gives the logits. Any
    height and width of at least one pixel goes in: pooling rounds up, upsampling crops back.

    With `patch_size=2` there is no level at full resolution, where most of the time would go and
    the channels are fewest: every 2x2 pixels become the channels of one place [2]_, so that
    nothing of the image is lost, and logits are interpolated.

    Parameters
    ----------
    in_channels : int
        Channels of the images.
    n_classes : int
        Number of classes.
    depth : int, default=3
        How often the resolution is halved; the bottleneck has `1 / 2**depth` of it.
    base_channels : int, default=16
        Channels at full resolution, doubled with each halving.
    patch_size : {1, 2}, default=2
        Side of the squares of pixels that are one place of the first level.
    block : {"residual", "plain"}, default="residual"
        Convolution block, a name in `skmars.nn.BLOCKS`.
    skip : {"concat", "add", "fusion"}, default="concat"
        Skip connection, a name in `skmars.nn.SKIPS`.
    attention : bool, default=True
        Additive attention gates on the skip connections.
    aspp : bool, default=True
        Atrous spatial pyramid pooling behind the bottleneck's block.
    dilation_rates : sequence of int, default=(1, 2, 4)
        Rates of the ASPP.
    dropout : float, default=0.0
        Fraction of channels dropped inside each block in training, in [0, 1).

    Attributes
    ----------
    frozen : tuple of str
        Names of the submodules that `freeze` has frozen.

    Raises
    ------
    ValueError
        If `patch_size`, `block` or `skip` is not among those above, or `depth` too small for the
        patches.

    References
    ----------
    .. [1] Ronneberger, O., Fischer, P., Brox, T. (2015). U-Net: Convolutional networks for
       biomedical image segmentation. MICCAI.
    .. [2] Ridnik, T., Lawen, H., Noy, A., Ben Baruch, E., Sharir, G., Friedman, I. (2021).
       TResNet: High performance GPU-dedicated architecture. WACV.

    Examples
    --------
    >>> import torch
    >>> from skmars.nn import AttentionASPPUNet
    >>> net = AttentionASPPUNet(1, 5, depth=2, base_channels=8)
    >>> net(torch.zeros(3, 1, 50, 77)).shape
    torch.Size([3, 5, 50, 77])
    """

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        *,
        depth: int = 3,
        base_channels: int = 16,
        patch_size: int = 2,
        block: str = "residual",
        skip: str = "concat",
        attention: bool = True,
        aspp: bool = True,
        dilation_rates: Sequence[int] = (1, 2, 4),
        dropout: float = 0.0,
    ):
        super().__init__()
        _check_name("patch_size", patch_size, PATCH_SIZES)
        _check_name("block", block, BLOCKS)
        _check_name("skip", skip, SKIPS)
        self.patch_size = patch_size
        # Patches take the place of the first level.
        first = int(math.log2(patch_size))
        if depth <= first:
            raise ValueError(f"depth must be above {first} with {patch_size=}, got {depth}")
        widths = [base_channels * 2**level for level in range(first, depth + 1)]
        below = [in_channels * patch_size**2, *widths]
        self.encoder = nn.ModuleList(
            BLOCKS[block](*channels, dropout) for channels in zip(below, widths[:-1], strict=False)
        )
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.bottleneck = nn.Sequential(BLOCKS[block](widths[-2], widths[-1], dropout))
        if aspp:
            self.bottleneck.append(ASPP(widths[-1], dilation_rates))
        self.decoder = nn.ModuleList(
            DecoderLevel(2 * width, width, block, skip, attention, dropout)
            for width in reversed(widths[:-1])
        )
        self.head = nn.Conv2d(widths[0], n_classes, 1)
        self.frozen: tuple[str, ...] = ()
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(n, in_channels, H, W)` to logits `(n, n_classes, H, W)`."""
        if self.patch_size == 1:
            return self._logits(x)
        height, width = x.shape[-2:]
        filled = F.pad(x, (0, -width % self.patch_size, 0, -height % self.patch_size), "replicate")
        logits = self._logits(F.pixel_unshuffle(filled, self.patch_size))
        return upsample(logits, self.patch_size, (height, width))

    def _logits(self, x: Tensor) -> Tensor:
        """Map places `(n, c, h, w)` of the first level to logits `(n, n_classes, h, w)`."""
        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottleneck(x)
        for level in self.decoder:
            x = level(x, skips.pop())
        return self.head(x)

    def freeze(self, parts: str | None) -> "AttentionASPPUNet":
        """Stop the training of a part of the net, or of none.

        Frozen parts get no gradients and stay in evaluation mode: their batch normalisation
        neither uses nor updates statistics of the batch, and they drop no channels.

        Parameters
        ----------
        parts : {"encoder", "encoder+bottleneck", "decoder"} or None
            What to freeze; everything else is trained.

        Returns
        -------
        self : AttentionASPPUNet

        Raises
        ------
        ValueError
            If `parts` is something else.
        """
        _check_name("parts", parts, [None, *FREEZABLE])
        self.frozen = () if parts is None else FREEZABLE[parts]
        for name, module in self.named_children():
            module.requires_grad_(name not in self.frozen)
        return self.train(self.training)

    def train(self, mode: bool = True) -> "AttentionASPPUNet":
        """Switch to training mode, except for what is frozen."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self


def _check_name(parameter: str, value: Any, known: Iterable[Any]) -> None:
    if value not in (known := list(known)):
        raise ValueError(f"{parameter} must be among {known}, got {value!r}")


def _initialise(module: nn.Module) -> None:
    # He initialisation (He et al. 2015) for layers that a ReLU follows.
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
