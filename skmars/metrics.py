"""Metrics for segmentation masks, each from counts over the whole data set.

Masks are integers, an array `(n, H, W)` or a list of `(H, W)` arrays of different sizes. A mean
over images or over batches is another number than the one given here, and is never taken.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skmars._averages import (
    Absent,
    absent_value,
    frequency_weighted,
    mean_of_present,
    share_right,
)
from skmars._boundaries import count_boundary_matches
from skmars._mask_pairs import count_with_others, pair_masks, stack_masks
from skmars.reliability import (
    expected_calibration_error,
    reliability_curve,
    sparsification_curve,
    sparsification_error,
)

if TYPE_CHECKING:
    from skmars.scorers import (
        SegmentationScorer,
        boundary_f1_scorer,
        class_iou_scorer,
        make_scorers,
        mean_iou_scorer,
        pixel_accuracy_scorer,
        weighted_iou_scorer,
    )

SCORERS = [
    "SegmentationScorer",
    "boundary_f1_scorer",
    "class_iou_scorer",
    "make_scorers",
    "mean_iou_scorer",
    "pixel_accuracy_scorer",
    "weighted_iou_scorer",
]
__all__ = [
    "SegmentationScorer",
    "boundary_f1_score",
    "boundary_f1_scorer",
    "class_iou_scorer",
    "confusion_counts",
    "expected_calibration_error",
    "iou_from_counts",
    "iou_per_class",
    "make_scorers",
    "mean_iou_score",
    "mean_iou_scorer",
    "pixel_accuracy_score",
    "pixel_accuracy_scorer",
    "reliability_curve",
    "sparsification_curve",
    "sparsification_error",
    "weighted_iou_score",
    "weighted_iou_scorer",
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

    Examples
    --------
    >>> from skmars.metrics import mean_iou_score
    >>> mean_iou_score([[[0, 1, 1, 1]]], [[[0, 1, 1, 1]]], labels=[0, 1, 2])
    1.0
    >>> mean_iou_score([[[0, 1, 1, 1]]], [[[0, 1, 1, 1]]], labels=[0, 1, 2, 3], absent=0.0)
    0.5

    `mean_iou_scorer` is the scorer of it, see `SegmentationScorer` for one with other arguments.
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
    """Share of pixels that have their true label.

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
    return share_right(count_with_others(pairs, None, ignore_label)[1], "pixel accuracy")


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
    share of true ones with a predicted one. The paper averages over images, here the pixels of
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
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must be a finite number of at least 0; got {tolerance!r}")
    value = absent_value(absent)
    pairs = pair_masks(y_true, y_pred, None)
    classes, _ = count_with_others(pairs, labels, ignore_label)
    counts = np.zeros((len(classes), 4), dtype=np.int64)
    for images in pairs.groups():
        true, pred = stack_masks(pairs.y_true[images]), stack_masks(pairs.y_pred[images])
        counts += count_boundary_matches(true, pred, classes, ignore_label, tolerance)

    true_hits, n_true, pred_hits, n_pred = counts.T.astype(np.float64)
    recall, precision = true_hits / np.maximum(n_true, 1), pred_hits / np.maximum(n_pred, 1)
    f1 = np.where(n_true + n_pred > 0, 0.0, value)
    np.divide(2 * precision * recall, precision + recall, out=f1, where=precision + recall > 0)
    return mean_of_present(f1, "boundary F1")


def __getattr__(name: str) -> Any:
    # Late, since the scorers are made of the scores.
    if name in SCORERS:
        from skmars import scorers

        return getattr(scorers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
