"""What all losses do with their arguments before anything else."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LossInputs", "prepare_inputs", "weights_of_pixels"]


class LossInputs(NamedTuple):
    """Arguments of a loss, in one form."""

    logits: Tensor  # float32 or float64, finite at unlabelled pixels
    target: Tensor  # 0 at unlabelled pixels
    weight: Tensor  # (K,)
    pixel_weight: Tensor  # (n, H, W), 0 at unlabelled pixels


def weights_of_pixels(weight: Tensor, target: Tensor) -> Tensor:
    """View weights of images `(n,)` or of pixels `(n, H, W)` in the shape of the target."""
    of_images = (1,) * (target.ndim - weight.ndim)
    return weight.reshape(*weight.shape, *of_images).expand_as(target)


def prepare_inputs(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int | None,
    sample_weight: Tensor | None,
) -> LossInputs:
    """Check the arguments that all losses share and bring them into one form."""
    _check_shapes(logits, target, weight, sample_weight)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    n_classes = logits.shape[1]
    if weight is None:
        weight = logits.new_ones(n_classes)
    if sample_weight is None:
        pixel_weight = logits.new_ones(target.shape)
    else:
        pixel_weight = weights_of_pixels(sample_weight.to(logits), target)
    no_pixel = torch.zeros_like(target, dtype=torch.bool)
    unlabelled = no_pixel if ignore_index is None else target == ignore_index
    some_are = bool(unlabelled.any())
    if some_are:
        target = target.masked_fill(unlabelled, 0)
        pixel_weight = pixel_weight.masked_fill(unlabelled, 0.0)
    if target.numel() and not 0 <= int(target.min()) <= int(target.max()) < n_classes:
        raise ValueError(
            f"target must hold 0..{n_classes - 1} or ignore_index={ignore_index}; "
            f"got {int(target.min())}..{int(target.max())}"
        )
    if some_are and not _losses_are_finite(logits):
        # A weight of 0 is not enough: 0 times infinity would be NaN.
        logits = logits.masked_fill(unlabelled.unsqueeze(1), 0.0)
    if not bool((pixel_weight >= 0).all()):
        raise ValueError("sample_weight must not be negative or NaN")
    return LossInputs(logits, target, weight.to(logits), pixel_weight)


def _losses_are_finite(logits: Tensor) -> bool:
    """Whether no class of a pixel can be infinitely less probable than another."""
    low, high = torch.aminmax(logits.detach())
    return bool((high - low).isfinite())


def _check_shapes(
    logits: Tensor, target: Tensor, weight: Tensor | None, sample_weight: Tensor | None
) -> None:
    if logits.ndim != 4 or not logits.is_floating_point():
        raise ValueError(
            "logits must be floating and of shape (n, K, H, W); "
            f"got {logits.dtype} of shape {tuple(logits.shape)}"
        )
    n, n_classes, *size = logits.shape
    if target.shape != (n, *size) or target.dtype != torch.int64:
        raise ValueError(
            f"target must be int64 of shape {(n, *size)}; "
            f"got {target.dtype} of shape {tuple(target.shape)}"
        )
    if weight is not None and weight.shape != (n_classes,):
        raise ValueError(f"weight must be of shape ({n_classes},); got {tuple(weight.shape)}")
    if sample_weight is not None and sample_weight.shape not in {(n,), (n, *size)}:
        raise ValueError(
            f"sample_weight must be of shape ({n},) or {(n, *size)}; "
            f"got {tuple(sample_weight.shape)}"
        )
