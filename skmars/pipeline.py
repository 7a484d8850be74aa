"""The usual Pipeline: outliers out, copies in, then the segmenter."""

from typing import Any

import numpy as np
from imblearn.pipeline import Pipeline
from sklearn import get_config
from sklearn.pipeline import Pipeline as PlainPipeline
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.validation import has_fit_parameter

from skmars.outliers import OutlierRemover
from skmars.segmenter import MarsSegmenter

__all__ = ["SegmentationPipeline", "make_pipeline"]

# What `fit` takes that has a value for each image.
PER_IMAGE = ("sample_weight", "groups")


class SegmentationPipeline(Pipeline):
    """imbalanced-learn's Pipeline, whose samplers take weights and groups along.

    Steps that remove or add images (with `fit_resample` and `sample_indices_`) change only X and
    y in imbalanced-learn's own Pipeline, so that `sample_weight` and `groups` no longer fit the
    images that are left. Here each later step gets those of its images. If a step adds copies,
    a segmenter that takes `groups` gets the originals as groups, unless it is given others:
    otherwise it would validate on copies of what it is trained on. With metadata routing, a
    segmenter within a further Pipeline or a search has to request or refuse them. Copies made
    with CutMix or pasted classes still show parts of other images: give such an `Augmenter` to
    the segmenter, which mixes training images only.

    Parameters
    ----------
    steps : list of tuple
        Names and estimators, as in :class:`sklearn.pipeline.Pipeline`; the last one is a
        segmenter.
    transform_input : list of str or None, default=None
        As in :class:`sklearn.pipeline.Pipeline`.
    memory : str, object with the joblib.Memory interface, or None, default=None
        Caches the fitted steps before the last.
    verbose : bool, default=False
        Whether to print how long each step takes.

    Examples
    --------
    >>> from skmars import Augmenter, MarsSegmenter
    >>> from skmars.datasets import make_terrain
    >>> from skmars.pipeline import SegmentationPipeline
    >>> X, y = make_terrain(16, random_state=0)
    >>> segmenter = MarsSegmenter(depth=2, base_channels=4, max_epochs=1, random_state=0)
    >>> pipeline = SegmentationPipeline([("augment", Augmenter()), ("segment", segmenter)])
    >>> pipeline.fit(X, y, segment__sample_weight=[1.0] * 16).predict(X[:2]).shape
    (2, 64, 128)
    """

    def fit(self, X, y=None, **params):
        """Fit the steps one after another, each to the images that the one before leaves.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C)
            Images.
        y : array-like of shape (n, H, W)
            Masks of integer labels.
        **params : dict
            For the steps, such as `segment__groups`, or with metadata routing by the names that
            they request.

        Returns
        -------
        self : SegmentationPipeline

        Raises
        ------
        ValueError
            If weights or groups do not fit the images, or cannot follow a sampler that does not
            tell which images it keeps; and as the steps.
        """
        for name, value in params.items():
            per_image = _is_per_image(name) and value is not None
            if per_image and len(value) != len(X):
                # What is cut to the images that a sampler leaves would fit in any case.
                raise ValueError(f"got {len(value)} {name} for {len(X)} images")
        return super().fit(X, y, **params)

    def _get_metadata_for_step(self, *, step_idx, step_params, all_params) -> Any:
        # The hook through which every step gets its share of what `fit` was given.
        step_params = super()._get_metadata_for_step(
            step_idx=step_idx, step_params=step_params, all_params=all_params
        )
        given = any(
            _is_per_image(name) and value is not None
            for params in step_params.values()
            for name, value in params.items()
        )
        rows = self._rows_before(step_idx, needed=given)
        if rows is None:
            return step_params
        # A masked array keeps its mask, so that it is refused.
        cut = {
            method: {
                name: np.asanyarray(value)[rows] if _is_per_image(name) else value
                for name, value in params.items()
                if value is not None
            }
            for method, params in step_params.items()
        }
        is_last = step_idx == len(self.steps) - 1
        has_copies = len(np.unique(rows)) < len(rows)
        if is_last and has_copies:
            for name, groups in _groups_by_name(self.steps[-1][1], rows).items():
                cut["fit"].setdefault(name, groups)
        return cut

    def _rows_before(self, step_idx: int, *, needed: bool) -> np.ndarray | None:
        """Which of the images given reach a step; None if no sampler before it tells."""
        rows = None
        for name, step in self.steps[:step_idx]:
            if not hasattr(step, "fit_resample"):
                continue
            chosen = getattr(step, "sample_indices_", None)
            if chosen is None:
                if needed:
                    raise ValueError(
                        f"weights and groups cannot follow the images through step {name!r}, "
                        "which has no sample_indices_"
                    )
                return None
            rows = chosen if rows is None else rows[chosen]
        return rows


def _is_per_image(name: str) -> bool:
    # Behind the first step's name, that of a step within it may follow.
    return name.rpartition("__")[2] in PER_IMAGE


def _groups_by_name(estimator, groups: np.ndarray) -> dict[str, Any]:
    if has_fit_parameter(estimator, "groups"):
        # What is called directly needs no request, even if scikit-learn routes metadata.
        return {"groups": groups}
    return fit_arguments(estimator, groups=groups)


def _is_search(estimator) -> bool:
    return hasattr(estimator, "estimator") and hasattr(estimator, "cv")


def make_pipeline(*, outliers="default", augment=None, segment=None, memory=None, verbose=False):
    """Chain the removal of outliers, augmented copies and a segmenter.

    Parameters
    ----------
    outliers : OutlierRemover, sampler, "passthrough" or None, default="default"
        Removes images before training. By default `OutlierRemover()`; None leaves the step out.
    augment : Augmenter, sampler, "passthrough" or None, default=None
        Appends copies of the images before training. To change every batch instead, which costs
        no memory, give the Augmenter to the segmenter.
    segment : estimator or None, default=None
        The segmenter; by default `MarsSegmenter()`.
    memory : str, object with the joblib.Memory interface, or None, default=None
        Caches what the first steps have done.
    verbose : bool, default=False
        Whether to print how long each step takes.

    Returns
    -------
    pipeline : SegmentationPipeline
        With the steps "outliers", "augment" and "segment", so that a parameter is called
        `segment__learning_rate`. The first two are skipped at prediction.

    Examples
    --------
    >>> from skmars import Augmenter, MarsSegmenter, make_pipeline
    >>> pipeline = make_pipeline(segment=MarsSegmenter(augmentation=Augmenter()))
    >>> list(pipeline.named_steps)
    ['outliers', 'segment']
    >>> pipeline.set_params(segment__augmentation__brightness=0.2, outliers="passthrough")
    SegmentationPipeline(...)
    """
    if isinstance(outliers, str) and outliers == "default":
        outliers = OutlierRemover()
    if segment is None:
        segment = MarsSegmenter()
    named = [("outliers", outliers), ("augment", augment), ("segment", segment)]
    steps = [(name, step) for name, step in named if step is not None]
    return SegmentationPipeline(steps, memory=memory, verbose=verbose)


def fit_arguments(estimator, **given) -> dict[str, Any]:
    """Weights and groups of images by the names under which the `fit` of an estimator takes them.

    Parameters
    ----------
    estimator : estimator
        A segmenter, a Pipeline that ends in one, or what has one of them inside.
    **given
        "sample_weight" and "groups", as arrays of shape (n, ...); None stands for none.

    Returns
    -------
    arguments : dict of str to array
        Without groups if it does not take them, or a sampler would leave other images than they
        belong to.

    Raises
    ------
    ValueError
        If it takes no weights, or a sampler would leave other images than they belong to.
    sklearn.exceptions.UnsetMetadataPassedError
        If scikit-learn routes metadata, and the estimator neither requests nor refuses them.
    """
    given = {name: values for name, values in given.items() if values is not None}
    if get_config()["enable_metadata_routing"]:
        router = MetadataRouter(owner="fit").add(
            inner=estimator, method_mapping=MethodMapping().add(caller="fit", callee="fit")
        )
        return dict(router.route_params(caller="fit", params=given).inner.fit)
    prefix, last, leaves_behind = "", estimator, False
    while isinstance(last, PlainPipeline):
        samples = any(hasattr(step, "fit_resample") for _, step in last.steps)
        leaves_behind |= samples and not isinstance(last, SegmentationPipeline)
        name, last = last.steps[-1]
        prefix += f"{name}__"
    if leaves_behind:
        given.pop("groups", None)
        if given:
            raise ValueError(
                "sample_weight cannot follow the images through the samplers of a plain Pipeline; "
                "use skmars.make_pipeline"
            )
    taken = {name: values for name, values in given.items() if has_fit_parameter(last, name)}
    left = {name: values for name, values in given.items() if name not in taken}
    if _is_search(last):
        # It splits by groups itself, and hands on all else.
        groups = left.pop("groups", None)
        taken |= fit_arguments(last.estimator, **left)
        taken |= {} if groups is None else {"groups": groups}
    elif "sample_weight" in left:
        raise ValueError(f"{type(last).__name__} takes no sample_weight")
    return {prefix + name: values for name, values in taken.items()}
