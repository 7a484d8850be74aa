"""How well predicted boundaries meet the true ones."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skmars._validation import labelled_pixels
from skmars.metrics.averages import Absent, absent_value, mean_of_present
from skmars.metrics.confusion import Masks
from skmars.metrics.mask_pairs import count_with_others, pair_masks, stack_masks

__all__ = ["boundary_f1_score", "check_tolerance"]


def boundary_f1_score(
    y_true: Masks,
    y_pred: Masks,
    *,
    labels: ArrayLike | None = None,
    ignore_label: int | None = None,
    tolerance: float = 2,
    absent: Absent = "exclude",
) -> float:
    """Mean over classes of the F1 score of their boundaries [1]_, over the whole data set.

    A pixel is on the boundary of its class if one of its four neighbours is labelled and of
    another class; the image's border and ignored pixels make no boundary. Precision is the share
    of predicted boundary pixels with a true one of that class within `tolerance`, recall the
    fraction of true ones with a predicted one. The paper averages over images, here the pixels of
    all images are counted together.

    Parameters
    ----------
    y_true, y_pred : int array of shape (n, H, W), or list of arrays of shape (H, W)
        True and predicted masks. Floats that hold integers are accepted.
    labels : array-like of shape (K,), default=None
        The classes, as for `iou_per_class`.
    ignore_label : int, default=None
        Pixels with this true label take no part, whatever is predicted there.
    tolerance : float in [0, inf), default=2
        Greatest Euclidean distance, in pixels, between pixels that match.
    absent : "exclude", 0.0 or 1.0, default="exclude"
        A class with neither a true nor a predicted boundary is left out of the mean, or counts
        this much.

    Returns
    -------
    float
        In [0, 1]. NaN, with a warning, if every class is left out.

    Raises
    ------
    ValueError
        As `iou_per_class`, or if `tolerance` is negative or not finite.

    References
    ----------
    .. [1] Csurka, G., Larlus, D., Perronnin, F. (2013). What is a good evaluation measure for
       semantic segmentation? BMVC, 32.1-32.11.

    Examples
    --------
    >>> import numpy as np
    >>> from skmars.metrics import boundary_f1_score
    >>> y_true = np.zeros((1, 8, 8), dtype=np.uint8)
    >>> y_pred = y_true.copy()
    >>> y_true[:, :, 4:] = 1
    >>> y_pred[:, :, 5:] = 1
    >>> boundary_f1_score(y_true, y_pred, tolerance=1)
    1.0
    >>> boundary_f1_score(y_true, y_pred, tolerance=0)
    0.0
    """
    check_tolerance(tolerance)
    value = absent_value(absent)
    pairs = pair_masks(y_true, y_pred, None)
    classes, _ = count_with_others(pairs, labels, ignore_label)
    counts = np.zeros((len(classes), 4), dtype=np.int64)
    for images in pairs.groups():
        true, pred = stack_masks(pairs.y_true[images]), stack_masks(pairs.y_pred[images])
        counts += _count_matches(true, pred, classes, ignore_label, tolerance)

    true_hits, n_true, pred_hits, n_pred = counts.T.astype(np.float64)
    recall, precision = true_hits / np.maximum(n_true, 1), pred_hits / np.maximum(n_pred, 1)
    f1 = np.where(n_true + n_pred > 0, 0.0, value)
    np.divide(2 * precision * recall, precision + recall, out=f1, where=precision + recall > 0)
    return mean_of_present(f1, "boundary F1")


def check_tolerance(tolerance: float) -> None:
    """Refuse what is no distance in pixels."""
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must be a finite number of at least 0; got {tolerance!r}")


def _count_matches(
    true: NDArray[np.int64],
    pred: NDArray[np.int64],
    classes: NDArray[np.int64],
    ignore_label: int | None,
    tolerance: float,
) -> NDArray[np.int64]:
    """Count for each class: true hits, true, predicted hits, predicted boundary pixels."""
    labelled = labelled_pixels(true, ignore_label)
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
