"""Atrous spatial pyramid pooling: context at several scales without losing resolution."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skmars.nn.blocks import conv_bn

__all__ = ["ASPP"]


class ASPP(nn.Module):
    """Parallel convolutions at several dilation rates, joined [1]_.

    A 1x1 convolution and one 3x3 convolution for each rate are concatenated and projected back.
    A tap that falls outside of the feature map sees zeros; a rate of at least the map's height
    and width therefore acts as a 1x1 convolution. The usual rates of 6, 12 and 18 are made for
    maps of 64 places a side; choose rates below the size of the bottleneck (8x16 for 64x128
    images at depth 3, 4x8 at depth 4).

    Later versions [2]_ add the mean over the whole image. This one does not: what a pixel is
    then depends on what else was cut out with it, and on images of other sizes than those of the
    training that mean is another one.

    Parameters
    ----------
    channels : int
        Channels before and after; each branch has half as many.
    dilation_rates : sequence of int, default=(1, 2, 4)
        One 3x3 convolution for each, in places of the feature map.

    References
    ----------
    .. [1] Chen, L.-C., Papandreou, G., Kokkinos, I., Murphy, K., Yuille, A. L. (2017). DeepLab:
       Semantic image segmentation with deep convolutional nets, atrous convolution, and fully
       connected CRFs. IEEE TPAMI, 40(4), 834-848.
    .. [2] Chen, L.-C., Papandreou, G., Schroff, F., Adam, H. (2017). Rethinking atrous
       convolution for semantic image segmentation. arXiv:1706.05587.

    Examples
    --------
    >>> import torch
    >>> from skmars.nn import ASPP
    >>> ASPP(8, dilation_rates=(1, 2))(torch.zeros(2, 8, 4, 6)).shape
    torch.Size([2, 8, 4, 6])
    """

    def __init__(self, channels: int, dilation_rates: Sequence[int] = (1, 2, 4)):
        super().__init__()
        width = max(channels // 2, 1)
        self.branches = nn.ModuleList(
            nn.Sequential(*layers, nn.ReLU(inplace=True))
            for layers in [
                conv_bn(channels, width, 1),
                *(conv_bn(channels, width, 3, rate) for rate in dilation_rates),
            ]
        )
        self.project = nn.Sequential(
            *conv_bn(len(self.branches) * width, channels, 1), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, channels, H, W)` to the same shape."""
        return self.project(torch.cat([branch(x) for branch in self.branches], dim=1))
