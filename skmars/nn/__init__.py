"""The segmentation net and the parts it is built from, as plain torch modules."""

from skmars.nn.aspp import ASPP
from skmars.nn.attention import AttentionGate
from skmars.nn.blocks import BLOCKS, PlainBlock, ResidualBlock
from skmars.nn.folding import fold_batch_norms
from skmars.nn.skips import SKIPS, AddSkip, ConcatSkip, FusionSkip
from skmars.nn.unet import FREEZABLE, PATCH_SIZES, AttentionASPPUNet

__all__ = [
    "ASPP",
    "BLOCKS",
    "FREEZABLE",
    "PATCH_SIZES",
    "SKIPS",
    "AddSkip",
    "AttentionASPPUNet",
    "AttentionGate",
    "ConcatSkip",
    "FusionSkip",
    "PlainBlock",
    "ResidualBlock",
    "fold_batch_norms",
]
