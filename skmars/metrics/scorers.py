"""Scorers for `scoring=`, which ask the fitted estimator for its classes and its ignored label."""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import MetadataRequest

from skmars._fitted import fitted_attribute
from skmars.metrics.averages import (
    Absent,
    absent_value,
    accuracy_from_counts,
    frequency_weighted,
    mean_of_present,
)
from skmars.metrics.boundary_f1 import boundary_f1_score, check_tolerance
from skmars.metrics.confusion import iou_from_counts
from skmars.metrics.mask_pairs import check_label_list, count_with_others, pair_masks, regroup

__all__ = [
    "SegmentationScorer",
    "boundary_f1_scorer",
    "class_iou_scorer",
    "make_scorers",
    "mean_iou_scorer",
    "pixel_accuracy_scorer",
    "weighted_iou_scorer",
]


class _Case(NamedTuple):
    """True and predicted masks, counted once for all metrics."""

    y_true: Any
    y_pred: Any
    found: NDArray[np.int64]  # labels that pixels have or are predicted to have
    counts: NDArray[Any]  # of these, and a last row and column of the ignored label
    labels: NDArray[np.int64]
    ignore_label: int | None
    absent: Absent
    tolerance: float

    def counts_of(self, labels: Sequence | NDArray) -> NDArray[Any]:
        """Counts with rows and columns in the order of labels, and a last one for all others."""
        return regroup(self.found, self.counts, labels)


def _mean_iou(case: _Case) -> float:
    iou = iou_from_counts(case.counts_of(case.labels), absent=case.absent)[:-1]
    return mean_of_present(iou, "mean IoU")


def _weighted_iou(case: _Case) -> float:
    counts = case.counts_of(case.labels)
    return frequency_weighted(iou_from_counts(counts)[:-1], counts[:-1], "weighted IoU")


def _pixel_accuracy(case: _Case) -> float:
    return accuracy_from_counts(case.counts, "pixel accuracy")


def _boundary_f1(case: _Case) -> float:
    return boundary_f1_score(
        case.y_true,
        case.y_pred,
        labels=case.labels,
        ignore_label=case.ignore_label,
        tolerance=case.tolerance,
        absent=case.absent,
    )


def _class_iou(case: _Case, label: int) -> float:
    if label == case.ignore_label:
        raise ValueError(f"label {label} is ignored and has no IoU")
    return float(iou_from_counts(case.counts_of([label]), absent=case.absent)[0])


METRICS: dict[str, Callable[[_Case], float]] = {
    "mean_iou": _mean_iou,
    "weighted_iou": _weighted_iou,
    "pixel_accuracy": _pixel_accuracy,
    "boundary_f1": _boundary_f1,
}


class SegmentationScorer(BaseEstimator):
    """Scorer of one or of several metrics, from one prediction.

    Give it as `scoring=` to scikit-learn's searches and cross-validation, or call it with a
    fitted estimator. With a single metric it returns a number; with several a dict, from a single
    call of `predict`, where a dict of scorers predicts anew for each of them. Then a search needs
    `refit="mean_iou"`, or another one of the metrics.

    The classes are those of the fitted estimator, `classes_`, and the ignored label is its
    `ignore_label`, also if it is the last step of a pipeline or the best one of a search. So
    "mean_iou" is what the estimator's own `score` returns.

    Parameters
    ----------
    metrics : str, sequence of str or None, default=None
        "mean_iou", "weighted_iou", "pixel_accuracy", "boundary_f1", and the IoU of a class as
        "iou_4" for label 4; see `skmars.metrics`. None: the first four, and the IoU of each of
        `labels`.
    labels : array-like of shape (K,) or None, default=None
        Classes to average over. None: those of the estimator, or where it does not tell, those
        that pixels have or are predicted to have. Give them if a class may be missing from the
        training images of a fold: without, that is an error; with them, its IoU is 0.
    ignore_label : int, None or "auto", default="auto"
        Pixels with this true label are left out. "auto": that of the estimator.
    absent : "exclude", 0.0 or 1.0, default="exclude"
        The score of a class neither true nor predicted anywhere: left out of means, with a NaN as
        its own IoU, or this value.
    tolerance : float in [0, inf), default=2
        Of "boundary_f1", in pixels.

    Raises
    ------
    TypeError, ValueError
        If a metric is not one of those above, none is given, or labels are no integers.

    See Also
    --------
    make_scorers : A dict of scorers, for what does not take a scorer of several metrics.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.base import BaseEstimator
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skmars.metrics import SegmentationScorer
    >>> class Threshold(BaseEstimator):
    ...     def __init__(self, threshold=0.5):
    ...         self.threshold = threshold
    ...
    ...     def fit(self, X, y):
    ...         self.classes_ = np.unique(y)
    ...         return self
    ...
    ...     def predict(self, X):
    ...         return self.classes_[(X > self.threshold).astype(int)]
    >>> X = np.random.default_rng(0).random((10, 8, 8))
    >>> y = (X > 0.3).astype(int)
    >>> scorer = SegmentationScorer(["mean_iou", "iou_1", "boundary_f1"])
    >>> scorer(Threshold(0.3).fit(X, y), X, y)
    {'mean_iou': 1.0, 'iou_1': 1.0, 'boundary_f1': 1.0}
    >>> grid = {"threshold": [0.2, 0.3, 0.4]}
    >>> search = GridSearchCV(Threshold(), grid, scoring=scorer, refit="mean_iou")
    >>> search.fit(X, y).best_params_
    {'threshold': 0.3}
    """

    def __init__(
        self, metrics=None, *, labels=None, ignore_label="auto", absent="exclude", tolerance=2
    ):
        self.metrics = metrics
        self.labels = labels
        self.ignore_label = ignore_label
        self.absent = absent
        self.tolerance = tolerance
        # A search would turn an error at the first call into a score of NaN.
        self._functions()
        absent_value(absent)
        check_tolerance(tolerance)
        own = isinstance(ignore_label, str) and ignore_label == "auto"
        if not own and ignore_label is not None and not isinstance(ignore_label, Integral):
            raise ValueError(
                f"ignore_label must be an integer, None or 'auto'; got {ignore_label!r}"
            )
        if labels is not None:
            check_label_list(labels, None if own else ignore_label)

    def __call__(self, estimator, X, y, sample_weight=None) -> float | dict[str, float]:
        """Predict and score.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `predict`.
        X : array-like of shape (n, H, W) or (n, H, W, C), or list of (H, W) or (H, W, C) arrays
            Images.
        y : array-like of shape (n, H, W), or list of (H, W) arrays
            Masks.
        sample_weight : array-like of shape (n,) or (n, H, W), default=None
            Weights of images or pixels, not negative. They have no effect on "boundary_f1".

        Returns
        -------
        score : float or dict of str -> float
            Each in [0, 1], or NaN if it is undefined.

        Raises
        ------
        ValueError
            If `y` has a label that the estimator does not know and no `labels` are given; if
            "boundary_f1" alone is to be weighted; or as `iou_per_class`.
        """
        functions = self._functions()
        if sample_weight is not None and not self._accept_sample_weight():
            raise ValueError("boundary_f1 takes no sample_weight")
        case = self._compare(estimator, y, estimator.predict(X), sample_weight)
        scores = {name: function(case) for name, function in functions.items()}
        return scores[self.metrics] if isinstance(self.metrics, str) else scores

    def set_score_request(self, *, sample_weight: bool | str | None) -> "SegmentationScorer":
        """Request weights, for where scikit-learn routes metadata.

        Parameters
        ----------
        sample_weight : bool, str or None
            Whether to be given `sample_weight`, or the name under which it is passed. None: it
            is an error to pass it.

        Returns
        -------
        self : SegmentationScorer

        Raises
        ------
        RuntimeError
            If scikit-learn's `enable_metadata_routing` is not set.
        """
        if not get_config()["enable_metadata_routing"]:
            raise RuntimeError(
                "set_score_request needs sklearn.set_config(enable_metadata_routing=True)"
            )
        # scikit-learn copies the attribute of this name in `clone`.
        self._metadata_request = self._request(sample_weight)
        return self

    def get_metadata_routing(self) -> MetadataRequest:
        """What is requested, for scikit-learn's routing of metadata."""
        return getattr(self, "_metadata_request", self._request(None))

    def _request(self, sample_weight: bool | str | None) -> MetadataRequest:
        request = MetadataRequest(owner=type(self).__name__)
        request.score.add_request(param="sample_weight", alias=sample_weight)
        return request

    def _compare(self, estimator, y, y_pred, sample_weight) -> _Case:
        known = fitted_attribute(estimator, "classes_")
        ignored = fitted_attribute(estimator, "ignore_label")
        own = isinstance(self.ignore_label, str) and self.ignore_label == "auto"
        ignore_label = ignored if own else self.ignore_label
        pairs = pair_masks(y, y_pred, sample_weight)
        found, counts = count_with_others(pairs, None, ignore_label)
        if self.labels is not None:
            labels = check_label_list(self.labels, ignore_label)
        elif known is not None:
            labels = np.asarray(known)
            labels = labels[labels != ignore_label]
            expected = labels if ignored is None else np.append(labels, ignored)
            unknown = np.setdiff1d(found[counts[:-1].any(axis=1)], expected)
            if len(unknown):
                raise ValueError(
                    f"y has labels {unknown[:10].tolist()} that are not among the classes "
                    f"{labels.tolist()} of the estimator; "
                    f"for them to count as missed, give {type(self).__name__} labels"
                )
        else:
            labels = found
        return _Case(y, y_pred, found, counts, labels, ignore_label, self.absent, self.tolerance)

    def _functions(self) -> dict[str, Callable[[_Case], float]]:
        if self.metrics is None:
            names = _all_names(self.labels)
        else:
            names = [self.metrics] if isinstance(self.metrics, str) else list(self.metrics)
        if not names:
            raise ValueError("metrics must hold at least one metric, got none")
        return {name: _function(name) for name in names}

    def _accept_sample_weight(self) -> bool:
        # scikit-learn's searches ask this of each scorer before they pass weights on.
        return list(self._functions()) != ["boundary_f1"]


def _all_names(labels) -> list[str]:
    labels = [] if labels is None else check_label_list(labels, None)
    return [*METRICS, *(f"iou_{label}" for label in labels)]


def _function(name: str) -> Callable[[_Case], float]:
    if not isinstance(name, str):
        raise TypeError(f"metrics must be names, got {name!r}")
    if name in METRICS:
        return METRICS[name]
    label = label_of(name)
    if label is None:
        known = ", ".join(map(repr, METRICS))
        raise ValueError(f"metrics must be among {known} and 'iou_<label>', got {name!r}")
    return lambda case: _class_iou(case, label)


def label_of(metric: str) -> int | None:
    """Label whose IoU a metric is; None for other metrics."""
    prefix, _, label = metric.partition("iou_")
    return int(label) if not prefix and label.removeprefix("-").isdecimal() else None


def class_iou_scorer(label: int, **params) -> SegmentationScorer:
    """Scorer of the intersection over union of one class.

    Parameters
    ----------
    label : int
        The class.
    **params
        Parameters of `SegmentationScorer`.

    Returns
    -------
    scorer : SegmentationScorer

    Examples
    --------
    >>> from skmars.metrics import class_iou_scorer
    >>> class_iou_scorer(4)
    SegmentationScorer(metrics='iou_4')
    """
    return SegmentationScorer(f"iou_{label}", **params)


def make_scorers(labels, **params) -> dict[str, SegmentationScorer]:
    """Scorers of all metrics, by name.

    Each of them predicts anew. Where a scorer of several metrics is accepted, such as in
    scikit-learn's `scoring=`, `SegmentationScorer(labels=labels)` gives the same scores at the
    cost of one prediction.

    Parameters
    ----------
    labels : array-like of shape (K,)
        The classes.
    **params
        Parameters of `SegmentationScorer`, without `metrics`.

    Returns
    -------
    scorers : dict of str -> SegmentationScorer
        "mean_iou", "weighted_iou", "pixel_accuracy", "boundary_f1", and "iou_1" for label 1.

    Examples
    --------
    >>> from skmars.metrics import make_scorers
    >>> list(make_scorers([1, 2]))
    ['mean_iou', 'weighted_iou', 'pixel_accuracy', 'boundary_f1', 'iou_1', 'iou_2']
    """
    return {name: SegmentationScorer(name, labels=labels, **params) for name in _all_names(labels)}


mean_iou_scorer = SegmentationScorer("mean_iou")
weighted_iou_scorer = SegmentationScorer("weighted_iou")
pixel_accuracy_scorer = SegmentationScorer("pixel_accuracy")
boundary_f1_scorer = SegmentationScorer("boundary_f1")
