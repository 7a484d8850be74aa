"""Weights of classes in the loss, against their imbalance."""

from collections.abc import Mapping

import numpy as np

from skmars._validation import labelled_pixels

__all__ = ["class_frequencies", "class_weights", "counted_images", "mean_weight"]

# A class of a few pixels shall not drown all others.
HIGHEST_AUTO = 8.0


def class_weights(
    class_weight: str | Mapping | None,
    classes: np.ndarray,
    frequencies: np.ndarray,
    max_class_weight: float | None = None,
) -> np.ndarray:
    """Weights by which the loss of a pixel is multiplied, one for each class.

    Parameters
    ----------
    class_weight : {"auto", "balanced", "sqrt"}, dict or None
        "balanced" weights by inverse frequency, as `sklearn.utils.compute_class_weight`;
        "sqrt" by the square root of that. Both are scaled to a mean of 1 over the training
        pixels. "auto" is "sqrt" with no weight above 8. A dict maps labels to weights, 1 where it
        has none. None weights all alike.
    classes : ndarray of shape (n_classes,)
        Labels.
    frequencies : ndarray of shape (n_classes,)
        Fraction of each class in the labelled pixels.
    max_class_weight : float or None, default=None
        Larger weights are lowered to this one.

    Returns
    -------
    weights : ndarray of shape (n_classes,) of float64

    Raises
    ------
    ValueError
        If a dict has a label that is no class, or a weight that is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from skmars.weighting import class_weights
    >>> class_weights("balanced", np.array([3, 7]), np.array([0.8, 0.2]))
    array([0.625, 2.5  ])
    """
    if class_weight is None:
        return np.ones(len(classes))
    if isinstance(class_weight, Mapping):
        weights = _from_mapping(class_weight, classes)
    else:
        # What has no weight by its pixels has no say here, either.
        seen = frequencies > 0
        power = -1.0 if class_weight == "balanced" else -0.5
        weights = np.power(frequencies, power, where=seen, out=np.ones(len(classes)))
        weights /= np.sum(weights * frequencies)
    if class_weight == "auto":
        weights = np.minimum(weights, HIGHEST_AUTO)
    return weights if max_class_weight is None else np.minimum(weights, max_class_weight)


def class_frequencies(
    counts: np.ndarray,
    y: np.ndarray,
    classes: np.ndarray,
    sample_weight: np.ndarray | None = None,
) -> np.ndarray:
    """Fraction of each class in the labelled pixels.

    Parameters
    ----------
    counts : int array of shape (n, n_classes)
        Pixels of each class in each mask.
    y : int array of shape (n, H, W)
        Masks.
    classes : ndarray of shape (n_classes,)
        Labels; pixels with others are left out.
    sample_weight : ndarray of shape (n,) or (n, H, W) or None, default=None
        What each image or pixel counts for, at least 0.

    Returns
    -------
    frequencies : ndarray of shape (n_classes,) of float64
        With a sum of 1.
    """
    totals = counts.sum(axis=0)
    if sample_weight is not None:
        weighted = np.zeros(len(classes))
        for row, mask, weight in zip(counts, y, sample_weight, strict=True):
            weighted += (
                weight * row
                if sample_weight.ndim == 1
                else [weight[mask == label].sum(dtype=np.float64) for label in classes]
            )
        totals = weighted
    return totals / totals.sum()


def counted_images(counts: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray:
    """Which images have a labelled pixel with a weight.

    Parameters
    ----------
    counts : int array of shape (n, n_classes)
        Pixels of each class in each mask, without those whose own weight is 0.
    sample_weight : ndarray of shape (n,) or (n, H, W) or None
        Weights of images or pixels.

    Returns
    -------
    counted : bool array of shape (n,)

    Raises
    ------
    ValueError
        If none has.
    """
    counted = np.any(counts, axis=1)
    if sample_weight is not None:
        counted &= sample_weight.reshape(len(counts), -1).any(axis=1)
    if not counted.any():
        raise ValueError("sample_weight is 0 wherever y has labels")
    return counted


def mean_weight(
    y: np.ndarray, sample_weight: np.ndarray | None, rows: np.ndarray, ignore_label: int | None
) -> float:
    """Mean weight of the labelled pixels that have some, in some of the images.

    Parameters
    ----------
    y : int array of shape (n, H, W)
        Masks.
    sample_weight : ndarray of shape (n,) or (n, H, W) or None
        Weights of images or pixels.
    rows : ndarray of int
        The images, with at least one such pixel.
    ignore_label : int or None
        Label of pixels without one.

    Returns
    -------
    weight : float
        1 without weights.
    """
    if sample_weight is None:
        return 1.0
    total, n = 0.0, 0
    for row in rows:
        counted = labelled_pixels(y[row], ignore_label) & (sample_weight[row] > 0)
        n += int(np.count_nonzero(counted))
        total += float(np.sum(sample_weight[row] * counted, dtype=np.float64))
    return total / n


def _from_mapping(class_weight: Mapping, classes: np.ndarray) -> np.ndarray:
    unknown = sorted(set(class_weight) - set(classes.tolist()), key=str)
    # A fold may lack a rare class; weights that also lack one of the others are a mistake.
    if unknown and not set(classes.tolist()) <= set(class_weight):
        raise ValueError(
            f"class_weight has labels {unknown} that are not among the classes {classes.tolist()}"
        )
    weights = np.array([class_weight.get(label, 1.0) for label in classes.tolist()], dtype=float)
    if not np.isfinite(weights).all() or weights.min() < 0 or weights.max() == 0:
        raise ValueError(
            "class_weight must hold finite weights of at least 0, not all 0; "
            f"got {dict(class_weight)}"
        )
    return weights
