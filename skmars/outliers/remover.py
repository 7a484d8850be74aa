"""Finding images that have no place in a training set, and taking them out."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import check_cv
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from skmars import _validation as check
from skmars._seeding import seeded
from skmars._tags import ImageInputMixin
from skmars.model_selection import SegmentationKFold
from skmars.outliers.findings import Findings, count
from skmars.outliers.image_features import FEATURE_NAMES, image_features
from skmars.outliers.label_quality import label_quality, mask_fit
from skmars.outliers.shared_masks import find_copies, find_shared_masks, fraction_differing
from skmars.outliers.tail_scores import (
    find_cut,
    robust_deviations,
    separate,
    tail_scores,
    tail_units,
)

__all__ = ["OutlierRemover"]

# Two people who outline one image differ by a few per cent of its pixels, along the boundaries.
_TOLERANCE = 0.1
# In mean log probability; below it, none of the masks of an image is known to be the right one.
_CLEAR_DIFFERENCE = 0.5
# A detector must not be led by one number that is far out, however far.
_FARTHEST = 15.0


class OutlierRemover(ImageInputMixin, BaseEstimator):
    """Take images out of a training set that do not belong there.

    A sampler for `imblearn.pipeline.Pipeline`: training images go through it, images to predict
    do not. It looks for images that share one mask, for copies of an image with contradicting
    masks, for images that look like no others, and for masks that a segmenter contradicts, and
    it says of each image it takes why.

    Parameters
    ----------
    method : {"auto", "repeated_mask", "contradicting_mask", "appearance", "label_quality"}, \
default="auto"
        What to look for.

        - "repeated_mask": three or more different images with one and the same mask, more of
          them than chance explains. Masks of one label only are normal, and stay.
        - "contradicting_mask": identical images whose masks differ on more than 10 % of the
          pixels. The mask that fits its image clearly best stays, if there is one.
        - "appearance": images whose brightness, detail, edges, spectrum or colour is far from
          that of the others.
        - "label_quality": masks to which a segmenter trained without them gives low
          probabilities, by cleanlab's score. Needs the extra `quality`, and as many
          trainings as there are folds.
        - "auto": the first three, in this order; what one has found is not normal for the next.
    detector : outlier detector or None, default=None
        Any of scikit-learn's detectors to judge the appearance, such as `IsolationForest()`. A
        clone is fitted to the features of the images, each in units of its own tails. None looks
        for gaps in the tail of each feature, and of the mean of the five most surprising ones.
    contamination : "auto" or float, default="auto"
        Fraction of the images to take by appearance or by label quality, in (0, 0.5]. "auto" takes
        those beyond a gap in the scores that is too wide for chance, or what the `detector`
        calls outliers; label qualities seldom have a gap, so give a fraction for them. It has no
        say in repeated and contradicting masks, which are counted.
    segmenter : estimator or None, default=None
        For "label_quality": has `fit`, `predict_proba` and `classes_`; clones of it are fitted.
        None takes a `MarsSegmenter` with this `ignore_label`.
    cv : int, splitter or iterable, default=5
        Folds for "label_quality". An int shuffles the images; to keep scenes apart give the
        splits, `list(SegmentationKFold(5).split(X, y, groups))`.
    ignore_label : int or None, default=None
        Label of pixels that were not annotated: masks may differ there, and their outline is no
        boundary. A background that was annotated, such as AN2DL's, is a label like others.
    random_state : int, RandomState instance or None, default=None
        Seeds detector, segmenter, folds, and the pixels that tell copies apart. The default
        detector draws nothing.

    Attributes
    ----------
    outlier_mask_ : ndarray of shape (n,) of bool
        Images that do not belong.
    scores_ : ndarray of shape (n,) of float64
        The higher, the more of an outlier; above 0 for outliers, at most 0 for all others. Of
        several methods the highest counts. In decimal orders of magnitude of chance for repeated
        masks, as the fraction of pixels that differ for contradicting ones, in units of the tails
        for appearance, and by the negative logarithm of the label quality.
    reasons_ : ndarray of shape (n,) of str
        Why an image was taken, with numbers; "" for those that stay.
    sample_indices_ : ndarray of int
        Rows that stay, sorted.
    n_channels_in_ : int
        Channels of the images.

    See Also
    --------
    skmars.inspection.OutlierDisplay : Outliers as pictures, with the reasons.

    Notes
    -----
    By appearance alone, outliers of one kind are found if they are no more than about 5 % of the
    images; above, they begin to count as normal. With fewer than 20 images nothing unusual can
    be told from chance, and "auto" takes none by appearance.

    References
    ----------
    .. [1] A. Rényi, "On the theory of order statistics", Acta Mathematica Academiae Scientiarum
       Hungaricae 4, 191-231, 1953.
    .. [2] P. J. Rousseeuw, C. Croux, "Alternatives to the median absolute deviation", Journal of
       the American Statistical Association 88, 1273-1283, 1993.
    .. [3] V. Lad, J. Mueller, "Estimating label quality and errors in semantic segmentation data
       via any model", ICML Workshop on Data-centric Machine Learning Research, 2023.

    Examples
    --------
    >>> from skmars.datasets import make_terrain
    >>> from skmars import OutlierRemover
    >>> X, y = make_terrain(60, shape=(32, 64), outliers={"sprite": 4}, random_state=0)
    >>> remover = OutlierRemover(method="repeated_mask")
    >>> X_clean, y_clean = remover.fit_resample(X, y)
    >>> X_clean.shape
    (56, 32, 64)
    >>> print(remover.reasons_[remover.outlier_mask_][0])
    shares its mask with 3 other images
    """

    _parameter_constraints: dict = {
        "method": [
            StrOptions(
                {"auto", "repeated_mask", "contradicting_mask", "appearance", "label_quality"}
            )
        ],
        "detector": [HasMethods(["fit_predict"]), None],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "segmenter": [HasMethods(["fit", "predict_proba"]), None],
        "cv": ["cv_object"],
        "ignore_label": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        method="auto",
        detector=None,
        contamination="auto",
        segmenter=None,
        cv=5,
        ignore_label=None,
        random_state=None,
    ):
        self.method = method
        self.detector = detector
        self.contamination = contamination
        self.segmenter = segmenter
        self.cv = cv
        self.ignore_label = ignore_label
        self.random_state = random_state

    def fit(self, X, y):
        """Find the outliers.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C)
            Images of any integer or floating dtype. A few at a time are converted to floats.
        y : array-like of shape (n, H, W)
            Masks of integer labels.

        Returns
        -------
        self : OutlierRemover

        Raises
        ------
        TypeError, ValueError
            If a parameter, the images or the masks are not as described, or if no image, or no
            pixel of one of the labels, would be left.
        ImportError
            If `method="label_quality"` and cleanlab is not installed.
        """
        X, y, _ = check.check_training_data(X, y, None)
        return self._find(X, y)

    def _find(self, X: np.ndarray, y: np.ndarray) -> "OutlierRemover":
        """Find the outliers among images and masks that are checked."""
        self._validate_params()
        rng = check.random_generator(self.random_state)
        findings = Findings(len(X))
        methods = {
            "repeated_mask": self._find_by_repeated_mask,
            "contradicting_mask": self._find_by_contradicting_mask,
            "appearance": self._find_by_appearance,
            "label_quality": self._find_by_label_quality,
        }
        for name, find in methods.items():
            if name == self.method or (self.method == "auto" and name != "label_quality"):
                find(X, y, findings, rng)
        findings.check_what_is_left(y, self.ignore_label)
        self.n_channels_in_ = check.count_channels(X)
        self.outlier_mask_ = findings.outliers
        self.scores_ = findings.complete_scores()
        self.reasons_ = np.array(["; ".join(reasons) for reasons in findings.reasons])
        self.sample_indices_ = np.flatnonzero(~findings.outliers)
        return self

    def fit_resample(self, X, y):
        """Find the outliers and return the other images with their masks.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C)
            Images.
        y : array-like of shape (n, H, W)
            Masks of integer labels.

        Returns
        -------
        X, y : ndarray
            Images and masks without outliers, in their order and of their dtype; the arrays
            that were given if there are none.

        Raises
        ------
        TypeError, ValueError, ImportError
            As `fit`.
        """
        X, y, _ = check.check_training_data(X, y, None)
        self._find(X, y)
        if not self.outlier_mask_.any():
            return X, y
        return X[self.sample_indices_], y[self.sample_indices_]

    def fit_predict(self, X, y):
        """Find the outliers and return which they are.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C)
            Images.
        y : array-like of shape (n, H, W)
            Masks of integer labels.

        Returns
        -------
        is_inlier : ndarray of shape (n,) of int
            -1 for outliers and +1 for all others.

        Raises
        ------
        TypeError, ValueError, ImportError
            As `fit`.
        """
        return np.where(self.fit(X, y).outlier_mask_, -1, 1)

    def _find_by_repeated_mask(self, X, y, findings: Findings, rng) -> None:
        n_sharing, log_chance, is_beyond_chance = find_shared_masks(
            X, y, ignore_label=self.ignore_label
        )
        limit = log_chance[~is_beyond_chance].min(initial=0)

        def explain(row: int) -> str:
            return f"shares its mask with {count(n_sharing[row] - 1, 'other image')}"

        # What shares no mask has no score by it.
        scores = np.where(log_chance < 0, limit - log_chance, -np.inf)
        findings.add(is_beyond_chance, scores, explain)

    def _find_by_contradicting_mask(self, X, y, findings: Findings, rng) -> None:
        ignored = self.ignore_label
        groups = find_copies(X, y, ~findings.outliers, tolerance=_TOLERANCE, ignore_label=ignored)
        if not groups:
            return
        rows = np.concatenate(groups)
        others = np.setdiff1d(np.flatnonzero(~findings.outliers), rows)
        fit = np.full(len(X), -np.inf)
        if len(others):
            fit[rows] = mask_fit(X, y, rows, others, rng, ignore_label=ignored)
        wrong, scores, reasons = np.zeros(len(X), dtype=bool), np.full(len(X), -np.inf), {}
        for group in groups:
            best = group[fit[group].argmax()]
            difference = fraction_differing(y[best], y[group], ignored)
            contradicting = difference > _TOLERANCE
            rivals = fit[group[contradicting]].max(initial=-np.inf)
            is_clear = np.isfinite(fit[best]) and fit[best] - rivals > _CLEAR_DIFFERENCE
            taken = group[contradicting] if is_clear else group
            scores[group], scores[taken], wrong[taken] = 0, difference.max(), True
            for row in taken.tolist():
                reasons[row] = (
                    f"is identical to {count(len(group) - 1, 'other image')}, but the masks "
                    f"differ on up to {difference.max():.0%} of the pixels"
                )
        findings.add(wrong, scores, reasons.__getitem__)

    def _find_by_appearance(self, X, y, findings: Findings, rng) -> None:
        features = image_features(X)
        normal = ~findings.outliers
        if not normal.any():
            return
        scores = np.full(len(X), -np.inf)
        if self.detector is not None:
            units = tail_units(features, normal).clip(-_FARTHEST, _FARTHEST)
            model = seeded(self.detector, rng, anew=False)
            scores[normal], is_inlier = _detect(model, units[normal])
            normal[normal] = is_inlier
        elif self.contamination == "auto":
            scores, normal = separate(features, normal)
        else:
            scores[normal] = tail_scores(tail_units(features, normal))[normal]
        scores -= self._border(scores, normal)
        units = tail_units(features, normal)
        deviations = robust_deviations(features, normal)

        def explain(row: int) -> str:
            first = np.argsort(-np.abs(units[row]), kind="stable")[:2]
            return "looks unlike the others: " + ", ".join(
                _describe_deviation(FEATURE_NAMES[column], deviations[row, column])
                for column in first
            )

        findings.add(scores > 0, scores, explain)

    def _find_by_label_quality(self, X, y, findings: Findings, rng) -> None:
        segmenter = self.segmenter
        if segmenter is None:
            from skmars.segmenter import MarsSegmenter

            segmenter = MarsSegmenter(ignore_label=self.ignore_label)
        splitter = check_cv(self.cv)
        if isinstance(self.cv, Integral):
            splitter = SegmentationKFold(
                int(self.cv),
                random_state=int(rng.integers(2**31)),
                ignore_label=self.ignore_label,
            )
        quality = label_quality(
            X, y, seeded(segmenter, rng, anew=False), splitter, ignore_label=self.ignore_label
        )
        scores = -np.log(np.maximum(quality, 1e-12))
        scores -= self._border(scores, scores <= find_cut(scores))
        typical = np.median(quality)

        def explain(row: int) -> str:
            return f"label quality {quality[row]:.3g}, where the median is {typical:.3g}"

        findings.add(scores > 0, scores, explain)

    def _border(self, scores: np.ndarray, normal: np.ndarray) -> float:
        """Score that outliers exceed: the highest normal one, or one for the share asked for."""
        if self.contamination == "auto":
            lowest = scores[np.isfinite(scores)].min() - 1
            return scores[normal].max(initial=lowest)
        considered = np.sort(scores[np.isfinite(scores)])
        return considered[len(considered) - 1 - round(self.contamination * len(considered))]


def _detect(model, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores by a detector of scikit-learn, higher for outliers, and what it takes as normal."""
    is_inlier = model.fit_predict(features) == 1
    if hasattr(model, "negative_outlier_factor_"):
        return -model.negative_outlier_factor_, is_inlier
    for name in ("score_samples", "decision_function"):
        if hasattr(model, name):
            return -getattr(model, name)(features), is_inlier
    return np.where(is_inlier, 0.0, 1.0), is_inlier


def _describe_deviation(name: str, deviation: float) -> str:
    side = "above" if deviation > 0 else "below"
    return f"{name} {abs(deviation):.1f} robust standard deviations {side} the median"
