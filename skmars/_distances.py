"""Distances of pixels to the regions of a mask."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

__all__ = ["signed_distances"]


def signed_distances(
    masks: NDArray[np.int64], n_classes: int, ignore_index: int | None
) -> NDArray[np.float32]:
    """Signed distance to the region of each class, as a fraction of the image's diagonal.

    Parameters
    ----------
    masks : ndarray of shape (n, H, W)
        Values `0..n_classes - 1` or `ignore_index`.
    n_classes : int
        Number of classes, K.
    ignore_index : int or None
        Pixels with this value belong to no region.

    Returns
    -------
    distances : ndarray of shape (n, K, H, W)
        Positive outside of a region and negative inside; 1 where an image has no pixel of the
        class, -1 where it has no other.
    """
    n, height, width = masks.shape
    maps = np.ones((n, n_classes, height, width), dtype=np.float32)
    for mask, out in zip(masks, maps, strict=True):
        present = [c for c in np.unique(mask) if c != ignore_index]
        _fill_signed_distances(mask, present, out)
    return maps


def _fill_signed_distances(
    mask: NDArray[np.int64], present: list[int], out: NDArray[np.float32]
) -> None:
    if len(present) == 1:
        out[present[0]] = -1.0
        return
    diagonal = math.hypot(*mask.shape)
    # Inside a region, the nearest pixel of another class is the nearest of all the other
    # regions, so that one transform for each class is enough.
    nearest_other = np.full(mask.shape, np.inf, dtype=np.float32)
    for c in present:
        out[c] = distance_transform_edt(mask != c) / diagonal
        np.minimum(nearest_other, out[c], out=nearest_other, where=mask != c)
    for c in present:
        np.copyto(out[c], -nearest_other, where=mask == c)
