"""Skip connections: how the decoder joins what it upsampled with what the encoder kept."""

import torch
from torch import Tensor, nn

__all__ = ["SKIPS", "AddSkip", "ConcatSkip", "FusionSkip", "Skip"]


class Skip(nn.Module):
    """Joins two tensors of one shape to one of `out_channels` channels."""

    out_channels: int


class ConcatSkip(Skip):
    """Concatenation of both inputs, as in the original U-Net [1]_; doubles the channels.

    References
    ----------
    .. [1] Ronneberger, O., Fischer, P., Brox, T. (2015). U-Net: Convolutional networks for
       biomedical image segmentation. MICCAI.

    Examples
    --------
    >>> import torch
    >>> from skmars.nn import ConcatSkip
    >>> ConcatSkip(3)(torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4)).shape
    torch.Size([1, 6, 4, 4])
    """

    def __init__(self, channels: int):
        super().__init__()
        self.out_channels = 2 * channels

    def forward(self, skip: Tensor, up: Tensor) -> Tensor:
        """Join two tensors `(n, channels, H, W)` to `(n, out_channels, H, W)`."""
        return torch.cat([skip, up], dim=1)


class AddSkip(Skip):
    """The sum of both inputs, as in LinkNet [1]_; keeps the channels.

    References
    ----------
    .. [1] Chaurasia, A., Culurciello, E. (2017). LinkNet: Exploiting encoder representations
       for efficient semantic segmentation. VCIP.

    Examples
    --------
    >>> import torch
    >>> from skmars.nn import AddSkip
    >>> AddSkip(1)(torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0)).item()
    3.0
    """

    def __init__(self, channels: int):
        super().__init__()
        self.out_channels = channels

    def forward(self, skip: Tensor, up: Tensor) -> Tensor:
        """Join two tensors `(n, channels, H, W)` to `(n, out_channels, H, W)`."""
        return skip + up


class FusionSkip(Skip):
    """A weighted sum whose weights are learned, one pair a channel that adds up to 2.

    Begins as the plain sum. After the learned feature fusion of EfficientDet [1]_, with a
    softmax for the normalisation.

    References
    ----------
    .. [1] Tan, M., Pang, R., Le, Q. V. (2020). EfficientDet: Scalable and efficient object
       detection. CVPR.

    Examples
    --------
    >>> import torch
    >>> from skmars.nn import FusionSkip
    >>> FusionSkip(1)(torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0)).item()
    3.0
    """

    def __init__(self, channels: int):
        super().__init__()
        self.out_channels = channels
        self.balance = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, skip: Tensor, up: Tensor) -> Tensor:
        """Join two tensors `(n, channels, H, W)` to `(n, out_channels, H, W)`."""
        share = 2 * torch.sigmoid(self.balance).to(skip.dtype)
        return share * skip + (2 - share) * up


SKIPS: dict[str, type[Skip]] = {"concat": ConcatSkip, "add": AddSkip, "fusion": FusionSkip}
