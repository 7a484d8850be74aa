"""Nets for prediction: batch normalisation folded into the convolutions in front of it."""

import copy
import itertools

from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

__all__ = ["fold_batch_norms"]


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Copy a module for prediction, with fewer passes over its feature maps.

    In evaluation mode, batch normalisation is a scale and a shift for each channel. A convolution
    right in front of it can take both into its own weights [1]_.

    Parameters
    ----------
    module : Module
        Any; folded is what is a convolution and its batch normalisation, side by side in an
        `nn.Sequential`.

    Returns
    -------
    folded : Module
        In evaluation mode. The same function as `module` in evaluation mode, up to rounding.

    References
    ----------
    .. [1] Jacob, B., et al. (2018). Quantization and training of neural networks for efficient
       integer-arithmetic-only inference. CVPR.

    Examples
    --------
    >>> from torch import nn
    >>> fold_batch_norms(nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2)))
    Sequential(
      (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))
      (1): Identity()
    )
    """
    folded = copy.deepcopy(module).eval()
    for layers in folded.modules():
        if not isinstance(layers, nn.Sequential):
            continue
        for place, (layer, behind) in enumerate(itertools.pairwise(list(layers))):
            if isinstance(layer, nn.Conv2d) and isinstance(behind, nn.BatchNorm2d):
                layers[place] = fuse_conv_bn_eval(layer, behind)
                layers[place + 1] = nn.Identity()
    return folded
