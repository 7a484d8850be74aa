"""Additive attention gate for skip connections."""

from torch import Tensor, nn
from torch.nn import functional as F

from skmars.nn.blocks import upsample

__all__ = ["AttentionGate"]


class AttentionGate(nn.Module):
    """Scale each place of a skip connection by how much the coarser level asks for it.

    Additive attention [1]_, in U-Nets for remote sensing [2]_: the skip, brought to the coarser
    grid, and the gating signal are projected, added, rectified and mapped to one coefficient in
    (0, 1) for each place, which is interpolated back and multiplied onto the skip.

    Parameters
    ----------
    skip_channels : int
        Channels of the skip connection.
    gate_channels : int
        Channels of the gating signal, which has half the height and width (rounded up).

    References
    ----------
    .. [1] Oktay, O., et al. (2018). Attention U-Net: Learning where to look for the pancreas.
       arXiv:1804.03999.
    .. [2] Guo, M., Liu, H., Xu, Y., Huang, Y. (2020). Building extraction based on U-Net with
       an attention block and multiple losses. Remote Sensing, 12(9), 1400.

    Examples
    --------
    >>> import torch
    >>> from skmars.nn import AttentionGate
    >>> skip, gate = torch.zeros(1, 4, 5, 6), torch.zeros(1, 8, 3, 3)
    >>> AttentionGate(4, 8)(skip, gate).shape
    torch.Size([1, 4, 5, 6])
    """

    def __init__(self, skip_channels: int, gate_channels: int):
        super().__init__()
        hidden = max(skip_channels // 2, 1)
        self.pool = nn.AvgPool2d(2, ceil_mode=True)
        self.project_skip = nn.Conv2d(skip_channels, hidden, 1, bias=False)
        self.project_gate = nn.Conv2d(gate_channels, hidden, 1)
        self.score = nn.Conv2d(hidden, 1, 1)

    def coefficients(self, skip: Tensor, gate: Tensor) -> Tensor:
        """Attention of `(n, 1, H, W)` in (0, 1) for a skip `(n, skip_channels, H, W)`."""
        hidden = F.relu(self.project_skip(self.pool(skip)) + self.project_gate(gate))
        alpha = self.score(hidden).sigmoid()
        return upsample(alpha, 2, skip.shape[-2:])

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """Return the skip `(n, skip_channels, H, W)` times its attention coefficients."""
        return skip * self.coefficients(skip, gate)
