"""From images to labels or probabilities, a batch at a time."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from skmars.batches import channels_first
from skmars.training import SegmentationNet

__all__ = ["predict_labels", "predict_probabilities"]

# Axes of (n, H, W) for the four flips of an image.
FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (1,), (1, 2))


def predict_labels(
    net: SegmentationNet,
    X: np.ndarray,
    classes: np.ndarray,
    batch_size: int,
    *,
    tta: bool = False,
) -> np.ndarray:
    """Label each pixel with its most probable class.

    Parameters
    ----------
    net : SegmentationNet
        Trained.
    X : ndarray of shape (n, H, W) or (n, H, W, C)
        Images.
    classes : ndarray of shape (n_classes,)
        Labels.
    batch_size : int
        Images at once.
    tta : bool, default=False
        Take the mean over the image's flips.

    Returns
    -------
    labels : ndarray of shape (n, H, W)
        Of the dtype of `classes`.
    """
    labels = np.empty(X.shape[:3], dtype=classes.dtype)
    for rows, outputs in _outputs(net, X, batch_size, tta):
        labels[rows] = classes[outputs.argmax(dim=1).cpu().numpy()]
    return labels


def predict_probabilities(
    net: SegmentationNet, X: np.ndarray, batch_size: int, *, tta: bool = False
) -> np.ndarray:
    """Probability of each class at each pixel.

    Parameters
    ----------
    net : SegmentationNet
        Trained.
    X : ndarray of shape (n, H, W) or (n, H, W, C)
        Images.
    batch_size : int
        Images at once.
    tta : bool, default=False
        Take the mean over the image's flips.

    Returns
    -------
    probabilities : ndarray of shape (n, n_classes, H, W) of float32
        They sum to 1 over the classes.
    """
    n, height, width = X.shape[:3]
    n_classes = net.module_.head.out_channels
    probabilities = np.empty((n, n_classes, height, width), dtype=np.float32)
    for rows, outputs in _outputs(net, X, batch_size, tta):
        batch = outputs if tta else outputs.softmax(dim=1)
        probabilities[rows] = batch.cpu().numpy()
    return probabilities


def _outputs(
    net: SegmentationNet, X: np.ndarray, batch_size: int, tta: bool
) -> Iterator[tuple[slice, Tensor]]:
    """Logits of each batch, or mean probabilities over the flips."""
    net.module_.eval()
    with torch.inference_mode():
        for start in range(0, len(X), batch_size):
            rows = slice(start, start + batch_size)
            images = np.array(X[rows])
            if not tta:
                yield rows, net.infer(channels_first(images))
                continue
            flipped = [_flipped_probabilities(net, images, axes) for axes in FLIPS]
            yield rows, torch.stack(flipped).mean(dim=0)


def _flipped_probabilities(
    net: SegmentationNet, images: np.ndarray, axes: tuple[int, ...]
) -> Tensor:
    # In numpy, since torch cannot flip every dtype that images may have.
    logits = net.infer(channels_first(np.flip(images, axes).copy()))
    return logits.softmax(dim=1).flip([axis + 1 for axis in axes])
