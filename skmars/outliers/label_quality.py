"""How well masks fit their images: by a segmenter, or quickly by the look of single pixels."""

import numpy as np
from scipy import ndimage
from sklearn.base import clone
from sklearn.naive_bayes import GaussianNB

from skmars._fitted import fitted_attribute
from skmars._validation import labelled_pixels
from skmars.outliers.image_features import intensity_scale

__all__ = ["label_quality", "mask_fit"]

_BATCH_IMAGES = 32
_N_TRAINING_IMAGES, _N_TRAINING_PIXELS = 200, 200
_LOWEST_LOG = -10.0


def label_quality(
    X: np.ndarray, y: np.ndarray, segmenter, splitter, *, ignore_label: int | None = None
) -> np.ndarray:
    """Label quality of each mask from probabilities of a segmenter that has not seen it.

    Parameters
    ----------
    X : ndarray of shape (n, H, W) or (n, H, W, C)
        Images.
    y : ndarray of shape (n, H, W)
        Masks.
    segmenter : estimator with fit, predict_proba and classes_
        A clone is fitted for each fold. Labels that are in none of its masks are not judged.
    splitter : cross-validation splitter
        Each image is in one test fold.
    ignore_label : int or None, default=None
        Pixels of this label, and of the segmenter's own `ignore_label`, are taken to be right.

    Returns
    -------
    quality : ndarray of shape (n,)
        In [0, 1]; the lower, the more probably the mask is wrong.

    Raises
    ------
    ImportError
        If cleanlab is not installed.
    """
    score_masks = _import_score()
    quality = np.ones(len(X))
    for train, test in splitter.split(X, y):
        model = clone(segmenter).fit(X[train], y[train])
        for start in range(0, len(test), _BATCH_IMAGES):
            rows = test[start : start + _BATCH_IMAGES]
            masks = y[rows]
            ignored = masks == fitted_attribute(model, "ignore_label")
            ignored |= masks == ignore_label
            # What the model was not shown it cannot judge.
            ignored |= ~np.isin(masks, model.classes_)
            labels, p = _as_indices(masks, model.classes_, model.predict_proba(X[rows]), ignored)
            quality[rows] = score_masks(labels, p, method="softmin", verbose=False)[0]
    return quality


def mask_fit(
    X: np.ndarray,
    y: np.ndarray,
    rows: np.ndarray,
    others: np.ndarray,
    rng: np.random.Generator,
    *,
    ignore_label: int | None = None,
) -> np.ndarray:
    """How probable masks are, by pixels of other images that look alike.

    A Gaussian naive Bayes classifier of brightness, local contrast, edges and height in the
    image: poor for making masks, and enough to tell two masks of one image apart.

    Parameters
    ----------
    X, y : ndarray of shape (n, H, W[, C]) and (n, H, W)
        Images and masks.
    rows : ndarray of int
        Masks to judge.
    others : ndarray of int
        Images to learn from, at least one.
    rng : numpy.random.Generator
        Draws at most 200 of them, and 200 pixels of each.
    ignore_label : int or None, default=None
        Label of pixels without one, which tell nothing.

    Returns
    -------
    fit : ndarray of shape (len(rows),)
        Mean log probability of the labels, by classes of equal frequency; the lowest possible
        one if no pixel has a label.
    """
    scaling = intensity_scale(X)
    if len(others) > _N_TRAINING_IMAGES:
        others = rng.choice(others, _N_TRAINING_IMAGES, replace=False)
    features, labels = [], []
    for row in others:
        chosen = rng.integers(y[row].size, size=_N_TRAINING_PIXELS)
        chosen = chosen[labelled_pixels(y[row].ravel()[chosen], ignore_label)]
        features.append(_pixel_features(X[row], *scaling)[chosen])
        labels.append(y[row].ravel()[chosen])
    labels_seen = np.unique(np.concatenate(labels))
    if len(labels_seen) == 0:
        return np.full(len(rows), _LOWEST_LOG)
    model = GaussianNB(priors=np.full(len(labels_seen), 1 / len(labels_seen)), var_smoothing=1e-3)
    model.fit(np.concatenate(features), np.concatenate(labels))
    return np.array(
        [_log_probability(model, X[row], y[row], scaling, ignore_label) for row in rows]
    )


def _log_probability(model: GaussianNB, image, mask, scaling, ignore_label) -> float:
    labelled = labelled_pixels(mask.ravel(), ignore_label)
    if not labelled.any():
        return _LOWEST_LOG
    labels = mask.ravel()[labelled]
    log_p = model.predict_log_proba(_pixel_features(image, *scaling)[labelled])
    place = np.searchsorted(model.classes_, labels).clip(max=len(model.classes_) - 1)
    values = np.maximum(log_p[np.arange(len(labels)), place], _LOWEST_LOG)
    return float(np.where(model.classes_[place] == labels, values, _LOWEST_LOG).mean())


def _pixel_features(image: np.ndarray, center: float, scale: float) -> np.ndarray:
    """Features of each pixel `(H * W, 6)`."""
    grey = image.astype(np.float64)
    grey = (grey.mean(axis=2) if grey.ndim == 3 else grey) / scale - center / scale
    columns = [np.broadcast_to(np.linspace(-1, 1, len(grey))[:, None], grey.shape)]
    for sigma in (1.5, 5.0):
        mean = ndimage.gaussian_filter(grey, sigma, mode="nearest")
        square = ndimage.gaussian_filter(np.square(grey - mean), sigma, mode="nearest")
        columns += [mean, np.log(square + 1e-4)]
    edges = np.abs(ndimage.sobel(grey, axis=0, mode="nearest"))
    edges -= np.abs(ndimage.sobel(grey, axis=1, mode="nearest"))
    columns.append(np.cbrt(ndimage.gaussian_filter(edges, 3.0, mode="nearest")))
    return np.stack([column.ravel() for column in columns], axis=1)


def _as_indices(masks, classes, p, ignored) -> tuple[np.ndarray, np.ndarray]:
    """Labels as indices of classes, and probabilities, as cleanlab wants them.

    Pixels that are ignored get a class of their own that is certain.
    """
    labels = np.searchsorted(classes, masks)
    n_classes = len(classes)
    labels[ignored] = n_classes
    p = np.concatenate([p, np.zeros_like(p[:, :1])], axis=1)
    p[:, n_classes][ignored] = 1.0
    p[:, :n_classes] *= ~ignored[:, None]
    return labels, p


def _import_score():
    try:
        from cleanlab.segmentation.rank import get_label_quality_scores
    except ImportError as error:
        raise ImportError(
            "method='label_quality' needs cleanlab, which the extra 'quality' of skmars installs"
        ) from error
    return get_label_quality_scores
