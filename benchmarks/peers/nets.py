"""The nets of other libraries, as their users would make them for grey images of 64x128 pixels."""

import importlib.util
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["NETS", "is_installed"]


def attention_unet(n_classes: int) -> nn.Module:
    from monai.networks.nets import AttentionUnet

    return AttentionUnet(2, 1, n_classes, (32, 64, 128, 256), (2, 2, 2))


def dynunet(n_classes: int) -> nn.Module:
    from monai.networks.nets import DynUNet

    kernels, strides = [3] * 5, [1, 2, 2, 2, 2]
    return DynUNet(2, 1, n_classes, kernels, strides, strides[1:], res_block=True)


def segresnet(n_classes: int) -> nn.Module:
    from monai.networks.nets import SegResNet

    return SegResNet(2, 16, 1, n_classes, dropout_prob=0.1)


class Segformer(nn.Module):
    """SegFormer-B0 from scratch, whose logits are a quarter as large as the image."""

    def __init__(self, n_classes: int):
        super().__init__()
        from transformers import SegformerConfig, SegformerForSemanticSegmentation

        config = SegformerConfig(num_channels=1, num_labels=n_classes)
        self.net = SegformerForSemanticSegmentation(config)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `(n, 1, H, W)` to logits `(n, n_classes, H, W)`."""
        logits = self.net(x).logits
        return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=False)


def unet_resnet18(n_classes: int) -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=n_classes)


def deeplab_resnet18(n_classes: int) -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.DeepLabV3Plus("resnet18", encoder_weights=None, in_channels=1, classes=n_classes)


# By name: the package that it comes from, and how it is made.
NETS: dict[str, tuple[str, Callable[[int], nn.Module]]] = {
    "MONAI AttentionUnet": ("monai", attention_unet),
    "MONAI DynUNet": ("monai", dynunet),
    "MONAI SegResNet": ("monai", segresnet),
    "SegFormer-B0": ("transformers", Segformer),
    "smp Unet-resnet18": ("segmentation_models_pytorch", unet_resnet18),
    "smp DeepLabV3+-resnet18": ("segmentation_models_pytorch", deeplab_resnet18),
}


def is_installed(package: str) -> bool:
    """Whether a package that a peer comes from is there."""
    return importlib.util.find_spec(package) is not None
