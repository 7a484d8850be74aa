"""Metrics from the confusion matrix of a whole data set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skmars.metrics.averages import (
    Absent,
    absent_value,
    accuracy_from_counts,
    frequency_weighted,
    mean_of_present,
)
from skmars.metrics.mask_pairs import count_with_others, pair_masks

__all__ = [
    "confusion_counts",
    "iou_from_counts",
    "iou_per_class",
    "mean_iou_score",
    "pixel_accuracy_score",
    "weighted_iou_score",
]

Masks = ArrayLike | Sequence[ArrayLike]


def confusion_counts(
    y_true: Masks,
    y_pred: Masks,
    *,
    labels: ArrayLike | None = None,
    ignore_label: int | None = None,
    sample_weight: Masks | None = None,
) -> NDArray[Any]:
    """Count the pixels of each pair of true and predicted label.

    The same as :func:`sklearn.metrics.confusion_matrix` on ravelled masks, without their copy in
    memory. Pixels whose true or predicted label is not in `labels` are in no cell; so a pixel
    predicted as `ignore_label` is not counted either, although `iou_per_class` takes it for a
    miss of its true class.

    Parameters
    ----------
    y_true, y_pred : int array of shape (n, H, W), or list of arrays of shape (H, W)
        True and predicted masks. Floats that hold integers are accepted.
    labels : array-like of shape (K,), default=None
        The labels to count, in the order of rows and columns. None: those that labelled pixels
        have or are predicted to have, sorted, without `ignore_label`.
    ignore_label : int, default=None
        Pixels with this true label are left out.
    sample_weight : array-like of shape (n,) or (n, H, W), default=None
        Weights of images or of pixels, not negative. For a list of masks, `(n,)` or a list of
        `(H, W)` arrays.

    Returns
    -------
    ndarray of shape (K, K)
        Row: true label, column: predicted label. int64, or float64 with `sample_weight`.

    Raises
    ------
    ValueError
        If masks are empty, not of integers, or differ in number or shape; if `labels` holds a
        label twice or `ignore_label`.

    Examples
    --------
    >>> from skmars.metrics import confusion_counts
    >>> confusion_counts([[[0, 1], [1, 255]]], [[[0, 1], [0, 0]]], ignore_label=255)
    array([[1, 0],
           [1, 1]])
    """
    pairs = pair_masks(y_true, y_pred, sample_weight)
    return count_with_others(pairs, labels, ignore_label)[1][:-1, :-1]


def iou_from_counts(counts: ArrayLike, *, absent: Absent = "exclude") -> NDArray[np.float64]:
    """Intersection over union of each class, from a confusion matrix.

    Parameters
    ----------
    counts : array-like of shape (K, K)
        Pixels by true label (row) and predicted label (column), not negative; sums over batches
        are welcome.
    absent : "exclude", 0.0 or 1.0, default="exclude"
        The value for a class neither true nor predicted anywhere; NaN under "exclude".

    Returns
    -------
    ndarray of shape (K,)
        In [0, 1], or NaN.

    Raises
    ------
    ValueError
        If `counts` is not square or `absent` is something else.

    Examples
    --------
    >>> from skmars.metrics import iou_from_counts
    >>> iou_from_counts([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    array([0.75, 0.8 ,  nan])
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"counts must be of shape (K, K); got {counts.shape}")
    intersection = counts.diagonal()
    union = counts.sum(axis=0) + counts.sum(axis=1) - intersection
    iou = np.full(len(counts), absent_value(absent))
    return np.divide(intersection, union, out=iou, where=union > 0)


def iou_per_class(
    y_true: Masks,
    y_pred: Masks,
    *,
    labels: ArrayLike | None = None,
    ignore_label: int | None = None,
    sample_weight: Masks | None = None,
    absent: Absent = "exclude",
) -> NDArray[np.float64]:
    """Intersection over union of each class, over the whole data set.

    The same as :func:`sklearn.metrics.jaccard_score` with `average=None` on ravelled masks,
    except that a class that is absent can be told from one that is always wrong.

    Parameters
    ----------
    y_true, y_pred : int array of shape (n, H, W), or list of arrays of shape (H, W)
        True and predicted masks. Floats that hold integers are accepted.
    labels : array-like of shape (K,), default=None
        The classes. Pixels of other labels are still wrong where they are predicted to be of a
        class. None: the labels that labelled pixels have or are predicted to have, sorted,
        without `ignore_label`.
    ignore_label : int, default=None
        Pixels with this true label are left out. It is no class: predicted for another pixel, it
        is a miss of that pixel's class.
    sample_weight : array-like of shape (n,) or (n, H, W), default=None
        Weights of images or of pixels, not negative.
    absent : "exclude", 0.0 or 1.0, default="exclude"
        The value for a class neither true nor predicted anywhere; NaN under "exclude".

    Returns
    -------
    ndarray of shape (K,)
        In [0, 1], or NaN.

    Raises
    ------
    ValueError
        As `confusion_counts`, or if `absent` is something else.

    Examples
    --------
    >>> from skmars.metrics import iou_per_class
    >>> iou_per_class([[[0, 1, 1, 1]]], [[[0, 1, 1, 0]]], labels=[0, 1, 2])
    array([0.5       , 0.66666667,        nan])
    """
    absent_value(absent)
    pairs = pair_masks(y_true, y_pred, sample_weight)
    return iou_from_counts(count_with_others(pairs, labels, ignore_label)[1], absent=absent)[:-1]


def mean_iou_score(
    y_true: Masks,
    y_pred: Masks,
    *,
    labels: ArrayLike | None = None,
    ignore_label: int | None = None,
    absent: Absent = "exclude",
    sample_weight: Masks | None = None,
) -> float:
    """Mean over classes of the intersection over union, over the whole data set.

    With `absent` of 0 or 1 the same as :func:`sklearn.metrics.jaccard_score` with
    `average="macro"` and that `zero_division` on ravelled masks.

    Parameters
    ----------
    y_true, y_pred : int array of shape (n, H, W), or list of arrays of shape (H, W)
        True and predicted masks. Floats that hold integers are accepted.
    labels : array-like of shape (K,), default=None
        The classes, as for `iou_per_class`.
    ignore_label : int, default=None
        Pixels with this true label are left out, as for `iou_per_class`.
    absent : "exclude", 0.0 or 1.0, default="exclude"
        A class neither true nor predicted anywhere is left out of the mean, or counts this much.
    sample_weight : array-like of shape (n,) or (n, H, W), default=None
        Weights of images or of pixels, not negative.

    Returns
    -------
    float
        In [0, 1]. NaN, with a warning, if every class is left out.

    Raises
    ------
    ValueError
        As `iou_per_class`.

    See Also
    --------
    SegmentationScorer : Makes a scorer of it with other arguments; `mean_iou_scorer` has none.

    Examples
    --------
    >>> from skmars.metrics import mean_iou_score
    >>> mean_iou_score([[[0, 1, 1, 1]]], [[[0, 1, 1, 1]]], labels=[0, 1, 2])
    1.0
    >>> mean_iou_score([[[0, 1, 1, 1]]], [[[0, 1, 1, 1]]], labels=[0, 1, 2, 3], absent=0.0)
    0.5
    """
    iou = iou_per_class(
        y_true,
        y_pred,
        labels=labels,
        ignore_label=ignore_label,
        sample_weight=sample_weight,
        absent=absent,
    )
    return mean_of_present(iou, "mean IoU")


def weighted_iou_score(
    y_true: Masks,
    y_pred: Masks,
    *,
    labels: ArrayLike | None = None,
    ignore_label: int | None = None,
    sample_weight: Masks | None = None,
) -> float:
    """Mean of the classes' intersection over union, weighted by their true frequencies [1]_.

    The same as :func:`sklearn.metrics.jaccard_score` with `average="weighted"` on ravelled masks.
    Rare classes hardly count; a class that is only predicted counts by the pixels that it takes
    from others.

    Parameters
    ----------
    y_true, y_pred : int array of shape (n, H, W), or list of arrays of shape (H, W)
        True and predicted masks. Floats that hold integers are accepted.
    labels : array-like of shape (K,), default=None
        The classes, as for `iou_per_class`.
    ignore_label : int, default=None
        Pixels with this true label are left out, as for `iou_per_class`.
    sample_weight : array-like of shape (n,) or (n, H, W), default=None
        Weights of images or of pixels, not negative.

    Returns
    -------
    float
        In [0, 1]. NaN, with a warning, if no pixel is of a class.

    Raises
    ------
    ValueError
        As `iou_per_class`.

    References
    ----------
    .. [1] Long, J., Shelhamer, E., Darrell, T. (2015). Fully convolutional networks for semantic
       segmentation. CVPR, 3431-3440.

    Examples
    --------
    >>> from skmars.metrics import weighted_iou_score
    >>> weighted_iou_score([[[0, 0, 0, 1]]], [[[0, 0, 1, 1]]])
    0.625
    """
    pairs = pair_masks(y_true, y_pred, sample_weight)
    counts = count_with_others(pairs, labels, ignore_label)[1]
    return frequency_weighted(iou_from_counts(counts)[:-1], counts[:-1], "weighted IoU")


def pixel_accuracy_score(
    y_true: Masks,
    y_pred: Masks,
    *,
    ignore_label: int | None = None,
    sample_weight: Masks | None = None,
) -> float:
    """Fraction of pixels that have their true label.

    The same as :func:`sklearn.metrics.accuracy_score` on ravelled masks.

    Parameters
    ----------
    y_true, y_pred : int array of shape (n, H, W), or list of arrays of shape (H, W)
        True and predicted masks. Floats that hold integers are accepted.
    ignore_label : int, default=None
        Pixels with this true label are left out.
    sample_weight : array-like of shape (n,) or (n, H, W), default=None
        Weights of images or of pixels, not negative.

    Returns
    -------
    float
        In [0, 1]. NaN, with a warning, if no pixel is labelled.

    Raises
    ------
    ValueError
        As `iou_per_class`.

    Examples
    --------
    >>> from skmars.metrics import pixel_accuracy_score
    >>> pixel_accuracy_score([[[0, 0, 0, 1]]], [[[0, 0, 1, 1]]])
    0.75
    """
    pairs = pair_masks(y_true, y_pred, sample_weight)
    return accuracy_from_counts(count_with_others(pairs, None, ignore_label)[1], "pixel accuracy")
