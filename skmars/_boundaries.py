"""Boundaries between the regions of a mask, and the distance of pixels to them."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

__all__ = ["count_boundary_matches", "signed_distances"]


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


def count_boundary_matches(
    true: NDArray[np.int64],
    pred: NDArray[np.int64],
    classes: NDArray[np.int64],
    ignore_label: int | None,
    tolerance: float,
) -> NDArray[np.int64]:
    """Count for each class: true hits, true, predicted hits, predicted boundary pixels."""
    labelled = np.ones(true.shape, dtype=bool) if ignore_label is None else true != ignore_label
    true_edges, pred_edges = _edges(true, labelled), _edges(pred, labelled)
    counts = np.zeros((len(classes), 4), dtype=np.int64)
    for c, row in zip(classes, counts, strict=True):
        a, b = true_edges & (true == c), pred_edges & (pred == c)
        row[[1, 3]] = a.sum(), b.sum()
        if row[1] and row[3]:
            row[[0, 2]] = (a & _near(b, tolerance)).sum(), (b & _near(a, tolerance)).sum()
    return counts


def _edges(labels: NDArray[np.int64], labelled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find the labelled pixels with a labelled neighbour of another class."""
    edges = np.zeros(labels.shape, dtype=bool)
    for one, next_ in [(np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:, :, :-1], np.s_[:, :, 1:])]:
        differ = (labels[one] != labels[next_]) & labelled[one] & labelled[next_]
        edges[one] |= differ
        edges[next_] |= differ
    return edges


def _near(pixels: NDArray[np.bool_], tolerance: float) -> NDArray[np.bool_]:
    """Find what is within `tolerance` of one of `pixels` in the same image.

    A disk is a stack of rows: the farther a row is from the centre, the shorter it is.
    """
    _, height, width = pixels.shape
    near = np.zeros_like(pixels)
    row = pixels.copy()
    reach = 0
    for dy in range(min(int(tolerance), height - 1), -1, -1):
        while reach + 1 < width and math.hypot(reach + 1, dy) <= tolerance:
            reach += 1
            row[:, :, reach:] |= pixels[:, :, :-reach]
            row[:, :, :-reach] |= pixels[:, :, reach:]
        near[:, dy:] |= row[:, : height - dy]
        near[:, : height - dy] |= row[:, dy:]
    return near
