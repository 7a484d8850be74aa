"""Checks of samplers: what `fit_resample` makes of images and masks."""

import numpy as np
from sklearn.base import BaseEstimator

from skmars.utils.estimator_checks._tools import (
    LABELS,
    assert_same_fits,
    make_images,
    optional,
    outputs,
    prepare,
)

__all__ = [
    "check_outliers_fit_predict",
    "check_samplers_fit",
    "check_samplers_fit_resample",
    "check_samplers_in_pipeline",
    "check_samplers_keep_originals",
    "check_samplers_labels",
    "check_samplers_list",
    "check_samplers_move_masks_with_images",
    "check_samplers_one_label",
    "check_samplers_other_images",
    "check_samplers_preserve_dtype",
    "check_samplers_sample_indices",
]


def check_samplers_fit(name, sampler_orig):
    """`fit` alone works, and `fit_resample` after it is as without it."""
    X, y = make_images()
    sampler = prepare(sampler_orig).fit(X, y)
    message = f"{name}.fit_resample must do the same after fit as without it"
    expected = outputs(prepare(sampler_orig), X, y)
    assert_same_fits(sampler_orig, outputs(sampler, X, y), expected, message)


def check_samplers_fit_resample(name, sampler_orig):
    """`fit_resample` returns a pair: images and as many masks of their size, at least one."""
    for n_channels in (None, 3):
        X, y = make_images(n_channels=n_channels)
        result = prepare(sampler_orig).fit_resample(X, y)
        if not isinstance(result, tuple) or len(result) != 2:
            raise AssertionError(f"{name}.fit_resample must return a pair (X, y), got {result!r}")
        for array, what in zip(result, ("X", "y"), strict=True):
            if not isinstance(array, np.ndarray):
                raise AssertionError(
                    f"{name}.fit_resample must return arrays for arrays; {what} is a "
                    f"{type(array).__name__}"
                )
        X_res, y_res = result
        if X_res.shape[1:] != X.shape[1:] or y_res.shape != X_res.shape[:3] or len(X_res) == 0:
            raise AssertionError(
                f"{name}.fit_resample must return images and masks of the size of those given, "
                f"{X.shape[1:]} and {y.shape[1:]}, and as many of both; "
                f"got shapes {X_res.shape} and {y_res.shape}"
            )


def check_samplers_preserve_dtype(name, sampler_orig):
    """Images and masks keep their dtypes."""
    X, y = make_images()
    for image_dtype in (np.uint8, np.uint16, np.float32, np.float64):
        for mask_dtype in (np.uint8, np.int64):
            images, masks = X.astype(image_dtype), y.astype(mask_dtype)
            X_res, y_res = prepare(sampler_orig).fit_resample(images, masks)
            if X_res.dtype != images.dtype or y_res.dtype != masks.dtype:
                raise AssertionError(
                    f"{name}.fit_resample must keep the dtypes {images.dtype} and {masks.dtype}; "
                    f"it returned {X_res.dtype} and {y_res.dtype}"
                )


def check_samplers_sample_indices(name, sampler_orig):
    """`sample_indices_` says for each image returned which one it was made of."""
    X, y = make_images()
    sampler = prepare(sampler_orig)
    X_res, _ = sampler.fit_resample(X, y)
    _indices(name, sampler, X_res, X)


def check_samplers_keep_originals(name, sampler_orig):
    """The first image made of another is that image as it was, with its mask."""
    X, y = make_images()
    sampler = prepare(sampler_orig)
    X_res, y_res = sampler.fit_resample(X, y)
    sources, first = np.unique(_indices(name, sampler, X_res, X), return_index=True)
    if not np.array_equal(X_res[first], X[sources]):
        raise AssertionError(
            f"{name}.fit_resample must return the images X[sample_indices_] themselves, each "
            "before any variation of it"
        )
    if not np.array_equal(y_res[first], y[sources]):
        raise AssertionError(
            f"{name}.fit_resample must return the masks y[sample_indices_] with their images"
        )


def check_samplers_labels(name, sampler_orig):
    """No mask has a label that was not among those given."""
    for labels in (LABELS, [-5, 0, 1], [10, 300, 70000]):
        X, y = make_images(labels=labels)
        sampler = prepare(sampler_orig)
        _, y_res = sampler.fit_resample(X, y)
        invented = np.setdiff1d(y_res, [*labels, _unlabelled(sampler, labels[0])])
        if len(invented):
            raise AssertionError(
                f"{name}.fit_resample must not invent labels: of {np.sort(labels)} it made "
                f"{invented.tolist()}"
            )


def check_samplers_move_masks_with_images(name, sampler_orig):
    """Whatever moves in an image moves in its mask as well."""
    # Without noise, grey level and label go together as long as both are moved alike, whatever
    # is done to brightness and contrast; edges that are interpolated cost a little.
    X, y = make_images(24, (32, 48), noise=0.0)
    X_res, y_res = prepare(sampler_orig).fit_resample(X, y)
    for place, (image, mask) in enumerate(zip(X_res, y_res, strict=True)):
        labelled = np.isin(mask, LABELS)
        image, rank = image[labelled], np.searchsorted(LABELS, mask[labelled])
        # A label at a few pixels says nothing.
        counts = np.bincount(rank, minlength=len(LABELS))
        if np.sum(counts > 0.05 * mask.size) < 2 or np.ptp(image) == 0:
            continue
        agreement = np.corrcoef(image.astype(np.float64), rank)[0, 1]
        if agreement < 0.7:
            raise AssertionError(
                f"{name}.fit_resample must move images and masks together: in result {place}, "
                f"whose labels went by brightness, the correlation of both is {agreement:.2f}"
            )


def check_samplers_list(name, sampler_orig):
    """Lists of images and masks give the same as arrays."""
    X, y = make_images()
    expected = outputs(prepare(sampler_orig), X, y)
    actual = outputs(prepare(sampler_orig), list(X), list(y))
    message = f"{name} must do the same with lists of images as with arrays"
    assert_same_fits(sampler_orig, actual, expected, message)


def check_samplers_one_label(name, sampler_orig):
    """Masks of one label are resampled, or refused by an error about classes."""
    X, y = make_images()
    sampler = prepare(sampler_orig)
    try:
        _, y_res = sampler.fit_resample(X, np.full_like(y, 4))
    except ValueError as error:
        if "class" not in str(error) and "label" not in str(error):
            raise AssertionError(
                f"{name}.fit_resample must say what it needs of the labels; it says: {error}"
            ) from error
        return
    if not np.isin(y_res, [4, _unlabelled(sampler, 4)]).all():
        raise AssertionError(f"{name}.fit_resample must keep the only label there is")


def check_samplers_other_images(name, sampler_orig):
    """`fit_resample` goes by the images it is given, not by those of an earlier fit."""
    X, y = make_images()
    other = make_images(9, (20, 12), random_state=1)
    expected = outputs(prepare(sampler_orig), *other)
    sampler = prepare(sampler_orig).fit(X, y)
    message = f"{name}.fit_resample must forget the images of an earlier fit"
    assert_same_fits(sampler_orig, outputs(sampler, *other), expected, message)


def check_samplers_in_pipeline(name, sampler_orig):
    """imbalanced-learn's pipeline resamples in fit, and in fit only."""
    Pipeline = optional("imblearn.pipeline").Pipeline
    X, y = make_images()
    X_res, y_res = prepare(sampler_orig).fit_resample(X, y)
    pipeline = Pipeline([("sampler", prepare(sampler_orig)), ("segmenter", _Recorder())])
    pipeline.fit(X, y)
    seen = pipeline[-1].seen_
    expected = {"X": X_res, "y": y_res}
    message = f"a pipeline must train on what {name}.fit_resample returns"
    assert_same_fits(sampler_orig, {"X": seen[0], "y": seen[1]}, expected, message)
    if not np.array_equal(pipeline.predict(X), X):
        raise AssertionError(f"a pipeline must pass {name} by in predicting")


def check_outliers_fit_predict(name, sampler_orig):
    """`fit_predict` says -1 for outliers and 1 for the images that `fit_resample` keeps."""
    X, y = make_images(20)
    labels = np.asarray(prepare(sampler_orig).fit_predict(X, y))
    if labels.shape != (len(X),) or not np.isin(labels, [-1, 1]).all():
        raise AssertionError(
            f"{name}.fit_predict must return -1 or 1 for each image, got {labels!r}"
        )
    sampler = prepare(sampler_orig)
    X_res, _ = sampler.fit_resample(X, y)
    kept = np.isin(np.arange(len(X)), _indices(name, sampler, X_res, X))
    message = (
        f"{name}.fit_predict must return 1 for the images that fit_resample keeps, "
        f"{np.flatnonzero(kept).tolist()}"
    )
    expected = {"fit_predict": np.where(kept, 1, -1)}
    assert_same_fits(sampler_orig, {"fit_predict": labels}, expected, message)
    mask = getattr(sampler, "outlier_mask_", None)
    if mask is not None and not np.array_equal(mask, ~kept):
        raise AssertionError(
            f"{name}.outlier_mask_ must be True for the images that fit_resample leaves out"
        )


def _unlabelled(sampler, otherwise):
    """Label with which a sampler may mark what an image does not show."""
    label = getattr(sampler, "ignore_label", None)
    return otherwise if label is None else label


class _Recorder(BaseEstimator):
    """Last step of a pipeline that keeps what it is fitted to, and predicts its input."""

    def fit(self, X, y):
        self.seen_ = X, y
        return self

    def predict(self, X):
        return X


def _indices(name, sampler, X_res, X):
    indices = getattr(sampler, "sample_indices_", None)
    if indices is None:
        raise AssertionError(f"{name} must have sample_indices_ after fit_resample")
    indices = np.asarray(indices)
    if indices.shape != (len(X_res),) or indices.dtype.kind not in "iu":
        raise AssertionError(
            f"{name}.sample_indices_ must have one integer for each of the {len(X_res)} images "
            f"returned; got shape {indices.shape}, dtype {indices.dtype}"
        )
    if np.any(indices < 0) or np.any(indices >= len(X)):
        raise AssertionError(
            f"{name}.sample_indices_ must be rows of the {len(X)} images given, got {indices}"
        )
    return indices
