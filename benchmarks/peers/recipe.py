"""Nets of other libraries, trained by MarsSegmenter: tells the net's share from the recipe's."""

from nets import NETS
from torch import Tensor, nn

from skmars import MarsSegmenter
from skmars.device import set_layout

__all__ = ["segmenter_with"]


class Peer(nn.Module):
    """Another library's net, with what the segmenter asks of its own."""

    def __init__(self, name: str, n_classes: int):
        super().__init__()
        self.body = NETS[name][1](n_classes)
        self.patch_size = 1
        self.encoder = nn.ModuleList(nn.Identity() for _ in range(5))
        self.head = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(n, 1, H, W)` to logits `(n, n_classes, H, W)`."""
        return self.body(x)

    def freeze(self, parts: None) -> "Peer":
        """Freeze nothing."""
        return self


def segmenter_with(name: str) -> type[MarsSegmenter]:
    """Make the kind of MarsSegmenter that trains another net, whatever its own parameters."""

    class PeerSegmenter(MarsSegmenter):
        def _build_net(self):
            net = super()._build_net()
            net.module_ = Peer(name, len(self.classes_)).to(self.device_)
            set_layout(net.module_, net.arithmetic)
            self.n_parameters_ = sum(weight.numel() for weight in net.module_.parameters())
            return net.initialize_optimizer()

    return PeerSegmenter
