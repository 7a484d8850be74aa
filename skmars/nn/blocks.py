"""Convolution blocks: two 3x3 convolutions at one resolution, with or without a shortcut."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BLOCKS", "BatchNorm", "PlainBlock", "ResidualBlock", "conv_bn", "upsample"]


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that also trains on a batch with one value a channel.

    A single value has no spread, and torch raises. Here such a batch (one image that is one
    pixel large at this depth) is normalised by the running statistics instead.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `(n, C, H, W)` over everything but `C`."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


def upsample(x: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """Interpolate `(n, C, h, w)` to a size that was divided by the factor and rounded up."""
    x = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    return x[..., : size[0], : size[1]]


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1
) -> list[nn.Module]:
    """Convolution that keeps H and W, without a bias, and the normalisation behind it."""
    padding = dilation * (kernel_size // 2)
    return [
        nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False
        ),
        BatchNorm(out_channels),
    ]


class PlainBlock(nn.Module):
    """Two times 3x3 convolution, batch normalisation and ReLU, with dropout in between.

    Whole channels are dropped, since neighbouring pixels of a channel carry the same
    information [1]_.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after the block.
    dropout : float, default=0.0
        Fraction of channels set to zero between the convolutions in training, in [0, 1).

    References
    ----------
    .. [1] Tompson, J., Goroshin, R., Jain, A., LeCun, Y., Bregler, C. (2015). Efficient object
       localization using convolutional networks. CVPR.

    Examples
    --------
    >>> import torch
    >>> from skmars.nn import PlainBlock
    >>> PlainBlock(1, 4, dropout=0.1)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0):
        super().__init__()
        self.body = nn.Sequential(
            *conv_bn(in_channels, out_channels, 3),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
            *conv_bn(out_channels, out_channels, 3),
        )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, H, W)` to `(n, out_channels, H, W)`."""
        return self.activation(self.body(x))


class ResidualBlock(PlainBlock):
    """The plain block with a shortcut around its convolutions [1]_.

    The shortcut is the identity, or a 1x1 convolution where the number of channels changes.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels before and after the block.
    dropout : float, default=0.0
        Fraction of channels set to zero between the convolutions in training, in [0, 1).

    References
    ----------
    .. [1] He, K., Zhang, X., Ren, S., Sun, J. (2016). Deep residual learning for image
       recognition. CVPR.

    Examples
    --------
    >>> import torch
    >>> from skmars.nn import ResidualBlock
    >>> ResidualBlock(1, 4)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0):
        super().__init__(in_channels, out_channels, dropout)
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Sequential(*conv_bn(in_channels, out_channels, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, H, W)` to `(n, out_channels, H, W)`."""
        return self.activation(self.body(x) + self.shortcut(x))


BLOCKS: dict[str, type[PlainBlock]] = {"residual": ResidualBlock, "plain": PlainBlock}
