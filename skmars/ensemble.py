"""Several segmenters that vote, and how far they disagree."""

import os
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from skmars import _validation as check
from skmars._fitted import fitted_attribute
from skmars._seeding import seeded
from skmars.base import BaseSegmenter
from skmars.metrics import predictive_entropy
from skmars.model_selection import SegmentationKFold
from skmars.persistence import (
    describe,
    read_archive,
    reading,
    restore,
    savable,
    write_archive,
)
from skmars.pipeline import fit_arguments
from skmars.prediction.models import Model, average
from skmars.prediction.mosaics import MosaicMixin
from skmars.segmenter import MarsSegmenter

__all__ = ["Ensemble"]

# So many are voted on at a time: 64 tiles of 64x128.
PIXELS_AT_ONCE = 2**19


class Ensemble(MetaEstimatorMixin, MosaicMixin, BaseSegmenter):
    """Members of one kind, whose probabilities are averaged.

    Members differ by the images that they are trained on, or only by their random numbers. Their
    disagreement is a measure of epistemic uncertainty, which a single net does not have; to rank
    likely errors, the entropy of the averaged probabilities is better.

    Parameters
    ----------
    estimator : MarsSegmenter, or any segmenter or Pipeline with `predict_proba`, default=None
        What the members are clones of; by default `MarsSegmenter()`.
    n_members : int, default=5
        Number of members, at least 2.
    members : {"folds", "seeds"}, default="folds"
        By what they differ. "folds" splits the images as `SegmentationKFold` does; each member is
        validated on one fold, if it takes `validation_data`, and trained on all others, so that
        every image helps to train most of them (cross-validation ensemble [1]_). "seeds" gives all
        images to each, with random numbers of its own (deep ensemble [2]_); what a member holds
        out of them is up to it.
    n_jobs : int or None, default=None
        Members that are trained at a time, in processes that share the cores. One after another
        by default, which is as fast where a single training uses all cores.
    random_state : int, RandomState instance or None, default=None
        Seeds the folds and the members, whatever the estimator's own `random_state`.

    Attributes
    ----------
    estimators_ : list of estimators
        The members.
    classes_ : ndarray of shape (n_classes,)
        Labels that any member can predict, sorted.
    n_channels_in_ : int
        Channels of the images seen in `fit`.

    References
    ----------
    .. [1] Krogh, A., Vedelsby, J. (1995). Neural network ensembles, cross validation, and active
       learning. NeurIPS.
    .. [2] Lakshminarayanan, B., Pritzel, A., Blundell, C. (2017). Simple and scalable predictive
       uncertainty estimation using deep ensembles. NeurIPS.

    Examples
    --------
    >>> from skmars import Ensemble, MarsSegmenter
    >>> from skmars.datasets import make_terrain
    >>> X, y = make_terrain(16, random_state=0)
    >>> member = MarsSegmenter(depth=2, base_channels=4, max_epochs=1)
    >>> ensemble = Ensemble(member, n_members=2, random_state=0).fit(X, y)
    >>> ensemble.predict(X[:3]).shape, ensemble.predict_uncertainty(X[:3]).shape
    ((3, 64, 128), (3, 64, 128))
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict_proba"]), None],
        "n_members": [Interval(Integral, 2, None, closed="left")],
        "members": [StrOptions({"folds", "seeds"})],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self, estimator=None, *, n_members=5, members="folds", n_jobs=None, random_state=None
    ):
        self.estimator = estimator
        self.n_members = n_members
        self.members = members
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X, y, *, sample_weight=None, groups=None):
        """Train the members.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C)
            Images.
        y : array-like of shape (n, H, W)
            Masks of integer labels.
        sample_weight : array-like of shape (n,) or (n, H, W), default=None
            Weights of images or pixels, of those that a member is validated on as well.
        groups : array-like of shape (n,), default=None
            Images of one group stay in one fold, and are given to members that take groups.

        Returns
        -------
        self : Ensemble

        Raises
        ------
        TypeError, ValueError
            If a parameter, the images or the masks are not as described, or there are fewer
            images or groups than members in "folds".
        """
        self._validate_params()
        X, y, sample_weight = check.check_training_data(X, y, sample_weight)
        groups = check.check_groups(groups, len(X))
        rng = check.random_generator(self.random_state)
        plans = list(self._plans(X, y, groups, rng))
        given = {"sample_weight": sample_weight, "groups": groups}
        self.estimators_ = Parallel(n_jobs=self.n_jobs)(
            delayed(_fit_member)(member, X, y, train, test, given) for member, train, test in plans
        )
        self.n_channels_in_ = check.count_channels(X)
        self._set_classes()
        return self

    def _plans(self, X, y, groups, rng) -> Iterator[tuple]:
        """Each member, the rows it is trained on, and those to validate on or None."""
        estimator = MarsSegmenter() if self.estimator is None else self.estimator
        *seeds, seed_of_folds = rng.integers(2**31, size=self.n_members + 1).tolist()
        splits: Iterable[tuple[np.ndarray, np.ndarray | None]]
        if self.members == "seeds":
            splits = [(np.arange(len(X)), None)] * self.n_members
        else:
            splitter = SegmentationKFold(
                self.n_members,
                random_state=seed_of_folds,
                ignore_label=fitted_attribute(estimator, "ignore_label"),
            )
            splits = splitter.split(X, y, groups)
        for seed, (train, test) in zip(seeds, splits, strict=True):
            yield seeded(estimator, np.random.default_rng(seed), anew=True), train, test

    def _set_classes(self) -> None:
        # A class that is missing from the images of one member has no probability by it.
        self.classes_ = np.unique(np.concatenate([one.classes_ for one in self.estimators_]))

    @property
    def ignore_label(self) -> int | None:
        """That of the members."""
        members = getattr(self, "estimators_", [self.estimator])
        return fitted_attribute(members[0], "ignore_label")

    def predict(self, X):
        """Label each pixel with the class of the highest mean probability.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C), or list of (H, W) or (H, W, C) arrays
            Images of any size, which may differ within a list.

        Returns
        -------
        y : ndarray of shape (n, H, W), or list of (H, W) arrays
            Labels as in `classes_`.
        """
        return self._apply(X, lambda images: self.classes_[self._vote(images)[0].argmax(axis=1)])

    def predict_proba(self, X):
        """Mean probability of each class at each pixel, over the members.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C), or list of (H, W) or (H, W, C) arrays
            Images.

        Returns
        -------
        p : ndarray of shape (n, n_classes, H, W), or list of (n_classes, H, W) arrays
            float32, in the order of `classes_`; they sum to 1 over the classes.
        """
        return self._apply(X, lambda images: self._vote(images)[0])

    def predict_uncertainty(self, X, *, kind="disagreement"):
        """How uncertain each pixel's label is.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C), or list of (H, W) or (H, W, C) arrays
            Images.
        kind : {"disagreement", "entropy"}, default="disagreement"
            The mutual information between label and member [1]_, which is 0 where all members say
            the same, however unsure each of them is; or the entropy of the mean probabilities,
            which counts both.

        Returns
        -------
        uncertainty : ndarray of shape (n, H, W), or list of (H, W) arrays
            float32, in [0, 1]: as a fraction of the highest possible entropy.

        Raises
        ------
        ValueError
            If `kind` is unknown.

        References
        ----------
        .. [1] Houlsby, N., Huszar, F., Ghahramani, Z., Lengyel, M. (2011). Bayesian active
           learning for classification and preference learning. arXiv:1112.5745.
        """
        if kind not in {"disagreement", "entropy"}:
            raise ValueError(f"kind must be 'disagreement' or 'entropy', got {kind!r}")

        def measure(images: np.ndarray) -> np.ndarray:
            mean, entropy_of_members = self._vote(images, with_entropy=kind == "disagreement")
            # Rounding can bring a difference of equal numbers below 0.
            return np.maximum(predictive_entropy(mean, axis=1) - entropy_of_members, 0)

        return self._apply(X, measure)

    def _apply(self, X, function: Callable[[np.ndarray], np.ndarray]):
        """Apply a function of images of one size, those of a list one size after another."""
        check_is_fitted(self)
        images = self._checked(X)
        if isinstance(images, np.ndarray):
            return _in_parts(images, function)
        places: dict[tuple, list[int]] = {}
        for place, image in enumerate(images):
            places.setdefault((image.shape, image.dtype), []).append(place)
        results: list[Any] = [None] * len(images)
        for same in places.values():
            outputs = _in_parts(np.stack([images[place] for place in same]), function)
            for place, output in zip(same, outputs, strict=True):
                results[place] = output
        return results

    def _vote(
        self, images: np.ndarray, *, with_entropy: bool = False
    ) -> tuple[np.ndarray, np.ndarray | float]:
        """Mean probabilities `(n, K, H, W)`, and if wanted the members' mean entropy."""
        total: Any = 0.0
        entropy: Any = 0.0
        for member in self.estimators_:
            probabilities = self._aligned(member, images)
            total = total + probabilities
            if with_entropy:
                entropy = entropy + predictive_entropy(probabilities, axis=1)
        return total / len(self.estimators_), entropy / len(self.estimators_)

    def _aligned(self, member, images: np.ndarray) -> np.ndarray:
        """Probabilities by a member of all classes, 0 for those that it does not know."""
        probabilities = member.predict_proba(images)
        if len(member.classes_) == len(self.classes_):
            return probabilities
        n, _, height, width = probabilities.shape
        aligned = np.zeros((n, len(self.classes_), height, width), dtype=probabilities.dtype)
        aligned[:, np.searchsorted(self.classes_, member.classes_)] = probabilities
        return aligned

    def _model(self) -> Model:
        """What labels the windows of `predict_large`: the mean over the members."""
        others = {
            type(one).__name__ for one in self.estimators_ if not isinstance(one, MosaicMixin)
        }
        if others:
            raise ValueError(
                f"predict_large needs members that have it, which {', '.join(sorted(others))} "
                "has not: use predict"
            )
        known = [np.searchsorted(self.classes_, one.classes_).tolist() for one in self.estimators_]
        return average([one._model() for one in self.estimators_], known, len(self.classes_))

    def save(self, path: str | os.PathLike) -> None:
        """Write all members to one file, without pickle; see `MarsSegmenter.save`.

        Parameters
        ----------
        path : path-like
            The file.

        Raises
        ------
        ValueError
            If the members are not MarsSegmenters: keep others with joblib.
        """
        check_is_fitted(self)
        kinds = {type(member) for member in self.estimators_}
        if kinds != {MarsSegmenter}:
            names = sorted(kind.__name__ for kind in kinds)
            raise ValueError(f"only MarsSegmenters can be saved without pickle, not {names}")
        weights = {
            f"{place}.{name}": tensor
            for place, member in enumerate(self.estimators_)
            for name, tensor in member.net_.module_.state_dict().items()
        }
        members = list(map(describe, self.estimators_))
        params = {"n_jobs": self.n_jobs, "random_state": self.random_state}
        config = {"members": members, "by": self.members, "params": savable(params, stacklevel=3)}
        write_archive(path, config, weights)

    @classmethod
    def load(cls, path: str | os.PathLike):
        """Read what `save` wrote, as `MarsSegmenter.load` does.

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        ensemble : Ensemble
            Fitted.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not a saved ensemble, is damaged, or of a later format.
        """
        config, weights = read_archive(path)
        if "members" not in config:
            raise ValueError(
                f"{os.fspath(path)!r} is no ensemble: read it with MarsSegmenter.load"
            )
        with reading(path):
            members = []
            for place, description in enumerate(config["members"]):
                prefix = f"{place}."
                own = {
                    name.removeprefix(prefix): tensor
                    for name, tensor in weights.items()
                    if name.startswith(prefix)
                }
                members.append(restore(MarsSegmenter, description, own))
            params = {"n_members": len(members), "members": config["by"], **config["params"]}
            ensemble = cls(clone(members[0]), **params)
            ensemble.estimators_ = members
            ensemble.n_channels_in_ = members[0].n_channels_in_
            ensemble._set_classes()
        return ensemble

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classes_")


def _in_parts(images: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Apply a function of images to some of them at a time."""
    at_once = max(1, PIXELS_AT_ONCE // (images.shape[1] * images.shape[2]))
    first = function(images[:at_once])
    result = np.empty((len(images), *first.shape[1:]), dtype=first.dtype)
    result[:at_once] = first
    for start in range(at_once, len(images), at_once):
        rows = slice(start, start + at_once)
        result[rows] = function(images[rows])
    return result


def _can_be_scored(mask: np.ndarray, weight: Any, labels: np.ndarray, ignored: int | None) -> bool:
    """Whether a mask has a label with a weight, and none that is unknown."""
    labelled = check.labelled_pixels(mask, ignored)
    is_weighted = bool(np.any(labelled & (weight > 0)))
    return is_weighted and bool(np.isin(mask[labelled], labels).all())


def _fit_member(member, X, y, train, test, given) -> BaseEstimator:
    """Train a member, and validate it on the images that are not its own."""
    given = {name: values for name, values in given.items() if values is not None}
    weight = given.get("sample_weight")
    if weight is not None and not weight[train].any():
        raise ValueError("sample_weight is 0 for all images of one member")
    params = fit_arguments(member, **{name: values[train] for name, values in given.items()})
    # What a Pipeline does to images before its last step is not done to these.
    if (
        test is not None
        and not isinstance(member, Pipeline)
        and has_fit_parameter(member, "validation_data")
    ):
        # A rare class may be in these images only, which a member cannot be validated on.
        ignored = fitted_attribute(member, "ignore_label")
        labels = check.labelled_classes(y[train], ignored)
        weight = weight if "sample_weight" in params else None
        weights = np.ones(len(y)) if weight is None else weight
        test = [row for row in test if _can_be_scored(y[row], weights[row], labels, ignored)]
        if test:
            parts = (X, y) if weight is None else (X, y, weight)
            params["validation_data"] = tuple(part[test] for part in parts)
    return member.fit(X[train], y[train], **params)
