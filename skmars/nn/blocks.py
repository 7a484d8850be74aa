"""Convolution blocks: two 3x3 convolutions at one resolution, with or without a shortcut."""

from torch import Tensor, nn

__all__ = ["BLOCKS", "BatchNorm", "PlainBlock", "ResidualBlock", "conv_bn"]


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that also trains on a batch with one value a channel.

    A single value has no spread, and torch raises. Here such a batch (one image that is one
    pixel large at this depth) is normalised by the running statistics instead.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `(n, C, H, W)` over everything but `C`."""
        if self.training and input.numel() == input.shape[1]:
            return nn.functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


def conv_bn(in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> list:
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


BLOCKS = {"residual": ResidualBlock, "plain": PlainBlock}
