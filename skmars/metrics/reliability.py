"""Whether probabilities are calibrated, and whether uncertainty finds the errors.

Counted over the pixels of all images together, those with the ignored label left out.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skmars._validation import check_labels, labelled_pixels
from skmars.metrics.mask_pairs import check_label_list, stack_masks

__all__ = [
    "ReliabilityCurve",
    "SparsificationCurve",
    "expected_calibration_error",
    "predictive_entropy",
    "reliability_curve",
    "sparsification_curve",
    "sparsification_error",
]


class ReliabilityCurve(NamedTuple):
    """Confidence and accuracy, by bins of confidence."""

    confidence: NDArray[np.float64]
    """Mean probability of the predicted class in each bin; NaN where there is no pixel."""
    accuracy: NDArray[np.float64]
    """Fraction of the bin's pixels whose predicted class is the true one."""
    n_pixels: NDArray[np.int64]
    """Pixels in each bin."""

    @property
    def mean_gap(self) -> float:
        """Mean distance of both, each bin by its pixels: the expected calibration error."""
        used = self.n_pixels > 0
        gaps = np.abs(self.confidence - self.accuracy)[used]
        return float(np.average(gaps, weights=self.n_pixels[used]))


class SparsificationCurve(NamedTuple):
    """Error rate of what is left when the most uncertain pixels are removed."""

    removed: NDArray[np.float64]
    """Fraction of the pixels that is removed, from 0 to below 1."""
    error: NDArray[np.float64]
    """Fraction of errors in the others."""
    best: NDArray[np.float64]
    """The same if errors were removed first, which no uncertainty can beat."""

    @property
    def area(self) -> float:
        """Area between both: the sparsification error."""
        return float(np.mean(self.error - self.best))


def reliability_curve(
    y_true, probabilities, *, labels: ArrayLike, ignore_label: int | None = None, n_bins: int = 15
) -> ReliabilityCurve:
    """Confidence and accuracy of pixels, in bins of equal width by confidence [1]_.

    The confidence of a pixel is the probability of its most probable class.

    Parameters
    ----------
    y_true : int array of shape (n, H, W), or list of (H, W) arrays
        True masks.
    probabilities : array of shape (n, K, H, W), or list of (K, H, W) arrays
        As `predict_proba` gives them, in [0, 1].
    labels : array-like of shape (K,)
        Label of each class, as in `classes_`.
    ignore_label : int or None, default=None
        Pixels with this true label are left out.
    n_bins : int, default=15
        Bins between 0 and 1, at least 1.

    Returns
    -------
    curve : ReliabilityCurve
        `confidence`, `accuracy` and `n_pixels`, each of shape (n_bins,).

    Raises
    ------
    ValueError
        If shapes do not fit each other, probabilities are outside of [0, 1], a true label is
        neither one of `labels` nor ignored, or no pixel is labelled.

    References
    ----------
    .. [1] Guo, C., Pleiss, G., Sun, Y., Weinberger, K. Q. (2017). On calibration of modern neural
       networks. ICML, PMLR 70, 1321-1330.

    Examples
    --------
    >>> from skmars.metrics import reliability_curve
    >>> p = [[[[0.9, 0.9]], [[0.1, 0.1]]]]
    >>> reliability_curve([[[0, 1]]], p, labels=[0, 1], n_bins=2).accuracy
    array([nan, 0.5])
    """
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1; got {n_bins}")
    classes = check_label_list(labels, ignore_label)
    sums = np.zeros((3, n_bins))
    for mask, scores in _pairs(y_true, probabilities, (len(classes),)):
        if not mask.size:
            continue
        check_labels(mask[np.newaxis], classes, ignore_label, name="y_true")
        if not (scores.min() >= 0 and scores.max() <= 1 + 1e-5):
            raise ValueError("probabilities must be in [0, 1]")
        confidence = scores.max(axis=0).astype(np.float64)
        right = classes[scores.argmax(axis=0)] == mask
        kept = labelled_pixels(mask, ignore_label)
        bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)[kept]
        for total, values in zip(sums, (None, confidence[kept], right[kept]), strict=True):
            total += np.bincount(bins, values, minlength=n_bins)
    n_pixels = sums[0].astype(np.int64)
    if not n_pixels.any():
        raise ValueError("no pixel is labelled")
    with np.errstate(invalid="ignore"):
        return ReliabilityCurve(sums[1] / sums[0], sums[2] / sums[0], n_pixels)


def expected_calibration_error(
    y_true, probabilities, *, labels: ArrayLike, ignore_label: int | None = None, n_bins: int = 15
) -> float:
    """Mean distance between confidence and accuracy [1]_, over the bins of `reliability_curve`.

    Parameters
    ----------
    y_true : int array of shape (n, H, W), or list of (H, W) arrays
        True masks.
    probabilities : array of shape (n, K, H, W), or list of (K, H, W) arrays
        As `predict_proba` gives them, in [0, 1].
    labels : array-like of shape (K,)
        Label of each class, as in `classes_`.
    ignore_label : int or None, default=None
        Pixels with this true label are left out.
    n_bins : int, default=15
        Bins between 0 and 1, at least 1.

    Returns
    -------
    error : float
        In [0, 1]; 0 for probabilities that are true in every bin. Each bin counts by its pixels.

    Raises
    ------
    ValueError
        As `reliability_curve`.

    References
    ----------
    .. [1] Naeini, M. P., Cooper, G. F., Hauskrecht, M. (2015). Obtaining well calibrated
       probabilities using Bayesian binning. AAAI, 2901-2907.

    Examples
    --------
    >>> from skmars.metrics import expected_calibration_error
    >>> p = [[[[0.9, 0.9]], [[0.1, 0.1]]]]
    >>> round(expected_calibration_error([[[0, 1]]], p, labels=[0, 1]), 3)
    0.4
    """
    curve = reliability_curve(
        y_true, probabilities, labels=labels, ignore_label=ignore_label, n_bins=n_bins
    )
    return curve.mean_gap


def predictive_entropy(probabilities: NDArray, *, axis: int = 0) -> NDArray:
    """Entropy of class probabilities: how unsure a segmenter is of each pixel [1]_.

    Parameters
    ----------
    probabilities : float array with the K classes along `axis`
        In [0, 1], with a sum of 1 over the classes: `(K, H, W)` for one image, or `(n, K, H, W)`
        as `predict_proba` gives them, with `axis=1`.
    axis : int, default=0
        Axis of the classes.

    Returns
    -------
    entropy : float array without that axis
        In [0, 1], up to rounding: a fraction of the highest one, that of equal probabilities. Of
        the dtype of the probabilities.

    References
    ----------
    .. [1] Shannon, C. E. (1948). A mathematical theory of communication. Bell System Technical
       Journal, 27(3), 379-423.

    Examples
    --------
    >>> import numpy as np
    >>> from skmars.metrics import predictive_entropy
    >>> predictive_entropy(np.array([[0.5, 1.0], [0.5, 0.0]]))
    array([1., 0.])
    """
    # Of a single class there is no doubt, whatever it is a fraction of.
    n_classes = max(probabilities.shape[axis], 2)
    logs = np.log(np.maximum(probabilities, np.finfo(probabilities.dtype).tiny))
    logs *= probabilities
    # A sum of -0.0 is still no uncertainty.
    return np.abs(logs.sum(axis=axis)) / probabilities.dtype.type(np.log(n_classes))


def sparsification_curve(
    y_true, y_pred, uncertainty, *, ignore_label: int | None = None, n_points: int = 100
) -> SparsificationCurve:
    """Error rate of the pixels that are left when the most uncertain ones are removed [1]_.

    Parameters
    ----------
    y_true, y_pred : int array of shape (n, H, W), or list of (H, W) arrays
        True and predicted masks.
    uncertainty : array of shape (n, H, W), or list of (H, W) arrays
        Higher where the prediction is less certain, in any units. Of pixels that are equally
        uncertain, each counts with the mean error of all of them.
    ignore_label : int or None, default=None
        Pixels with this true label are left out.
    n_points : int, default=100
        Points of the curve, at least 2.

    Returns
    -------
    curve : SparsificationCurve
        `removed`, `error` and `best`, each of shape (n_points,).

    Raises
    ------
    ValueError
        If shapes do not fit each other, an uncertainty is NaN, or no pixel is labelled.

    References
    ----------
    .. [1] Ilg, E., et al. (2018). Uncertainty estimates and multi-hypotheses networks for optical
       flow. ECCV, 677-693.

    Examples
    --------
    >>> from skmars.metrics import sparsification_curve
    >>> y_true, y_pred = [[[0, 1, 1, 0]]], [[[0, 1, 1, 1]]]
    >>> sparsification_curve(y_true, y_pred, [[[0.1, 0.2, 0.3, 0.9]]], n_points=4).error
    array([0.25, 0.  , 0.  , 0.  ])
    """
    if n_points < 2:
        raise ValueError(f"n_points must be at least 2; got {n_points}")
    all_parts, wrong_parts = [], []
    for (mask, predicted), (_, levels) in zip(
        _pairs(y_true, y_pred, ()), _pairs(y_true, uncertainty, ()), strict=True
    ):
        kept = labelled_pixels(mask, ignore_label)
        all_parts.append(levels[kept])
        wrong_parts.append(levels[kept & (mask != predicted)])
    if not any(map(len, all_parts)):
        raise ValueError("no pixel is labelled")
    of_all, of_wrong = _sorted(all_parts), _sorted(wrong_parts)
    # What is NaN is sorted to the end.
    if np.isnan(of_all[-1]):
        raise ValueError("uncertainty must not be NaN")
    removed = np.arange(n_points) / n_points
    left = len(of_all) - removed * len(of_all)
    errors = _errors_of_the_surest(of_wrong, of_all, left) / left
    best = np.maximum(len(of_wrong) - removed * len(of_all), 0) / left
    return SparsificationCurve(removed, errors, best)


def sparsification_error(
    y_true, y_pred, uncertainty, *, ignore_label: int | None = None, n_points: int = 100
) -> float:
    """Area between the sparsification curve and the best one there is [1]_.

    Parameters
    ----------
    y_true, y_pred : int array of shape (n, H, W), or list of (H, W) arrays
        True and predicted masks.
    uncertainty : array of shape (n, H, W), or list of (H, W) arrays
        Higher where the prediction is less certain, in any units.
    ignore_label : int or None, default=None
        Pixels with this true label are left out.
    n_points : int, default=100
        Points of the curve, at least 2.

    Returns
    -------
    error : float
        In [0, 1]; 0 if every error is more uncertain than all that is right. Uncertainty that
        knows nothing has about the error rate, less what the best order would leave.

    Raises
    ------
    ValueError
        As `sparsification_curve`.

    References
    ----------
    .. [1] Ilg, E., et al. (2018). Uncertainty estimates and multi-hypotheses networks for optical
       flow. ECCV, 677-693.

    Examples
    --------
    >>> from skmars.metrics import sparsification_error
    >>> y_true, y_pred = [[[0, 1, 1, 0]]], [[[0, 1, 1, 1]]]
    >>> round(sparsification_error(y_true, y_pred, [[[0.1, 0.2, 0.3, 0.9]]]), 6)
    0.0
    """
    curve = sparsification_curve(
        y_true, y_pred, uncertainty, ignore_label=ignore_label, n_points=n_points
    )
    return curve.area


def _sorted(parts: list[NDArray]) -> NDArray:
    values = np.concatenate(parts)
    values.sort()
    return values


def _errors_of_the_surest(of_wrong: NDArray, of_all: NDArray, counts: NDArray) -> NDArray:
    """Errors among the least uncertain pixels, as many as `counts` says.

    The uncertainties of the wrong pixels and of all are sorted.
    """
    levels = of_all[np.ceil(counts).astype(int) - 1]
    below, up_to = _ranks(of_all, levels)
    wrong_below, wrong_up_to = _ranks(of_wrong, levels)
    # Within a level the errors are spread evenly: a straight line.
    return wrong_below + (counts - below) / (up_to - below) * (wrong_up_to - wrong_below)


def _ranks(values: NDArray, levels: NDArray) -> tuple[NDArray, NDArray]:
    """How many of sorted values are below each level, and how many are not above it."""
    return np.searchsorted(values, levels, "left"), np.searchsorted(values, levels, "right")


def _pairs(masks: Any, values: Any, leading: tuple[int, ...]) -> Iterator[tuple[NDArray, NDArray]]:
    """True masks with what was said of their pixels, image by image."""
    if len(masks) != len(values):
        raise ValueError(f"there are {len(masks)} true masks, but values for {len(values)} images")
    for place, (mask, value) in enumerate(zip(masks, values, strict=True)):
        if np.ma.is_masked(mask) or np.ma.is_masked(value):
            raise TypeError(f"image {place} has masked pixels: fill them with a label to ignore")
        mask, value = np.asarray(mask), np.asarray(value)
        if mask.ndim != 2 or value.shape != (*leading, *mask.shape):
            raise ValueError(
                f"image {place} has a true mask of shape {mask.shape}, which must be (H, W), and "
                f"values of shape {value.shape}, which must be {(*leading, *mask.shape)}"
            )
        yield stack_masks([mask])[0], value
