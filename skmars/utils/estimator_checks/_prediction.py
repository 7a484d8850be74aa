"""Checks of what a segmenter predicts, and of its score."""

import numpy as np
from sklearn.model_selection import KFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline

from skmars._fitted import fitted_attribute
from skmars.metrics import mean_iou_score
from skmars.utils.estimator_checks._tools import (
    LABELS,
    assert_same,
    assert_same_fits,
    fitted,
    make_images,
    outputs,
    prepare,
)

__all__ = [
    "check_classifiers_one_label",
    "check_cross_validation",
    "check_ignore_label",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_pipeline_consistency",
    "check_predict_list_of_sizes",
    "check_predict_other_sizes",
    "check_predict_proba",
    "check_predict_twice",
    "check_score",
    "check_score_sample_weight",
    "check_segmenters_classes",
    "check_segmenters_train",
]


def check_segmenters_train(name, segmenter_orig):
    """A segmenter learns regions that their grey levels tell apart."""
    X, y = make_images(64)
    labels = fitted(segmenter_orig, X, y).predict(X)
    score = mean_iou_score(y, labels, labels=LABELS)
    constant = max(mean_iou_score(y, np.full_like(y, label), labels=LABELS) for label in LABELS)
    if score <= constant:
        raise AssertionError(
            f"{name} must learn more than the best constant from 64 images, a mean IoU of "
            f"{constant:.3f}; it reached {score:.3f}. Give the check an estimator that trains "
            "long enough for so few"
        )


def check_segmenters_classes(name, segmenter_orig):
    """`classes_` are the labels given, and `predict` returns nothing but them."""
    for labels in ([0, 1, 2], LABELS, [-5, 0, 1], [10, 300, 70000]):
        X, y = make_images(labels=labels)
        segmenter = fitted(segmenter_orig, X, y)
        classes = fitted_attribute(segmenter, "classes_")
        labels = np.sort(labels).tolist()
        if classes is None or not np.array_equal(classes, labels):
            raise AssertionError(
                f"{name}.classes_ must be the labels given, {labels}; got {classes}"
            )
        predicted = np.asarray(segmenter.predict(X))
        if predicted.shape != y.shape:
            raise AssertionError(
                f"{name}.predict must return one label a pixel, shape {y.shape}; "
                f"got {predicted.shape}"
            )
        if predicted.dtype.kind not in "iu":
            raise AssertionError(
                f"{name}.predict must return labels as integers, got {predicted.dtype}"
            )
        unknown = np.setdiff1d(predicted, labels)
        if len(unknown):
            raise AssertionError(
                f"{name}.predict must return the labels given, {labels}; "
                f"it returned {unknown.tolist()}"
            )


def check_classifiers_one_label(name, segmenter_orig):
    """Masks of one label only are predicted as such, or refused by an error about classes."""
    X, y = make_images()
    try:
        labels = fitted(segmenter_orig, X, np.full_like(y, 4)).predict(X)
    except ValueError as error:
        if "class" not in str(error):
            raise AssertionError(
                f"{name}.fit must say that it needs more than one class; it says: {error}"
            ) from error
        return
    if not np.all(labels == 4):
        raise AssertionError(f"{name} must predict the only label there is, 4, at every pixel")


def check_predict_proba(name, segmenter_orig):
    """Probabilities have shape `(n, K, H, W)`, sum to 1, and agree with `predict`."""
    X, y = make_images()
    segmenter = fitted(segmenter_orig, X, y)
    proba = np.asarray(segmenter.predict_proba(X))
    shape = (len(X), len(LABELS), *X.shape[1:])
    if proba.shape != shape:
        raise AssertionError(
            f"{name}.predict_proba must return shape (n, n_classes, H, W) = {shape}; "
            f"got {proba.shape}"
        )
    if proba.dtype.kind != "f" or not np.isfinite(proba).all() or proba.min() < 0:
        raise AssertionError(f"{name}.predict_proba must return finite numbers of at least 0")
    if not np.allclose(proba.sum(axis=1), 1, atol=1e-4):
        raise AssertionError(f"{name}.predict_proba must sum to 1 over the classes")
    best = LABELS[proba.argmax(axis=1)]
    if np.mean(best == segmenter.predict(X)) < 0.97:
        raise AssertionError(f"{name}.predict must return the classes most probable")


def check_predict_twice(name, segmenter_orig):
    """Predicting a second time gives the same."""
    X, y = make_images()
    segmenter = fitted(segmenter_orig, X, y)
    expected = outputs(segmenter, X)
    message = f"{name} must predict the same each time"
    assert_same(outputs(segmenter, X), expected, message)


def check_methods_subset_invariance(name, segmenter_orig):
    """An image is predicted alone as among others."""
    X, y = make_images()
    segmenter = fitted(segmenter_orig, X, y)
    expected = outputs(segmenter, X)
    for size in (1, 5):
        parts = [outputs(segmenter, X[start : start + size]) for start in range(0, len(X), size)]
        actual = {key: np.concatenate([part[key] for part in parts]) for key in expected}
        message = f"{name} must predict images {size} at a time as all at once"
        assert_same(actual, expected, message, exact=False)


def check_methods_sample_order_invariance(name, segmenter_orig):
    """The order of images does not change what is predicted for each."""
    X, y = make_images()
    segmenter = fitted(segmenter_orig, X, y)
    order = np.random.default_rng(0).permutation(len(X))
    expected = {key: value[order] for key, value in outputs(segmenter, X).items()}
    message = f"{name} must predict images in another order as before"
    assert_same(outputs(segmenter, X[order]), expected, message, exact=False)


def check_predict_other_sizes(name, segmenter_orig):
    """Images of any size can be predicted, whatever size there was in fit."""
    segmenter = fitted(segmenter_orig, *make_images())
    rng = np.random.default_rng(0)
    for size in ((32, 48), (13, 31), (40, 10), (1, 1)):
        X = rng.integers(0, 255, (2, *size), dtype=np.uint8)
        try:
            results = outputs(segmenter, X)
        except Exception as error:
            raise AssertionError(
                f"{name} must predict images of size {size} after a fit to others; it raised "
                f"{type(error).__name__}: {error}"
            ) from error
        for method, value in results.items():
            shape = (2, *size) if method == "predict" else (2, len(LABELS), *size)
            if value.shape != shape:
                raise AssertionError(
                    f"{name}.{method} must return shape {shape} for images of size {size}, "
                    f"got {value.shape}"
                )


def check_predict_list_of_sizes(name, segmenter_orig):
    """A list of images of different sizes gives a list back, or is refused by an error."""
    X, y = make_images()
    segmenter = fitted(segmenter_orig, X, y)
    images = [X[0], X[1][:9, :11], X[2], X[3][3:, :7]]
    for method in ("predict", "predict_proba"):
        if not hasattr(segmenter, method):
            continue
        function = getattr(segmenter, method)
        try:
            results = function(images)
        except (TypeError, ValueError):
            continue
        if not isinstance(results, list) or len(results) != len(images):
            raise AssertionError(
                f"{name}.{method} must return a list of as many results as there are images in "
                f"a list; got {type(results).__name__}"
            )
        for image, result in zip(images, results, strict=True):
            expected = {method: np.asarray(function(image[None]))[0]}
            message = f"{name} must predict an image in a list as alone"
            assert_same({method: np.asarray(result)}, expected, message, exact=False)


def check_pipeline_consistency(name, segmenter_orig):
    """A pipeline of nothing but the segmenter does the same as the segmenter."""
    X, y = make_images()
    segmenter = fitted(segmenter_orig, X, y)
    pipeline = make_pipeline(prepare(segmenter_orig)).fit(X, y)
    message = f"a pipeline of a {name} must do the same as without the pipeline"
    actual = {**outputs(pipeline, X), "score": np.asarray(pipeline.score(X, y))}
    expected = {**outputs(segmenter, X), "score": np.asarray(segmenter.score(X, y))}
    assert_same_fits(segmenter_orig, actual, expected, message)


def check_score(name, segmenter_orig):
    """The score is one finite number, highest for the segmenter's own prediction."""
    X, y = make_images()
    segmenter = fitted(segmenter_orig, X, y)
    score = segmenter.score(X, y)
    if np.ndim(score) != 0 or not np.isfinite(score):
        raise AssertionError(f"{name}.score must return a finite number, got {score!r}")
    if segmenter.score(X, y) != score:
        raise AssertionError(f"{name}.score must return the same each time")
    best = segmenter.score(X, segmenter.predict(X))
    if best < score:
        raise AssertionError(
            f"{name}.score must be the higher the better: its own prediction scores {best:.3g}, "
            f"other masks {score:.3g}"
        )


def check_score_sample_weight(name, segmenter_orig):
    """Images of weight 0 do not count in the score."""
    X, y = make_images()
    segmenter = fitted(segmenter_orig, X, y)
    some = np.arange(len(X)) % 3 > 0
    weighted = segmenter.score(X, y, sample_weight=some.astype(float))
    expected = segmenter.score(X[some], y[some])
    if not np.isclose(weighted, expected):
        raise AssertionError(
            f"{name}.score must leave out images of weight 0: {weighted:.4f} with weights of 0 "
            f"and 1, {expected:.4f} for the images of weight 1"
        )


def check_cross_validation(name, segmenter_orig):
    """scikit-learn's cross-validation scores a segmenter and predicts with it."""
    X, y = make_images()
    scores = cross_val_score(prepare(segmenter_orig), X, y, cv=KFold(2), error_score="raise")
    if scores.shape != (2,) or not np.isfinite(scores).all():
        raise AssertionError(f"cross_val_score of {name} must return finite scores, got {scores}")
    labels = cross_val_predict(prepare(segmenter_orig), X, y, cv=KFold(2))
    if labels.shape != y.shape:
        raise AssertionError(
            f"cross_val_predict of {name} must return shape {y.shape}, got {labels.shape}"
        )


def check_ignore_label(name, segmenter_orig):
    """The label to be ignored is no class, is never predicted, and does not count in the score."""
    X, y = make_images()
    ignored = int(LABELS[1])
    segmenter = prepare(segmenter_orig, ignore_label=ignored).fit(X, y)
    classes = fitted_attribute(segmenter, "classes_")
    if classes is not None and ignored in np.asarray(classes):
        raise AssertionError(f"{name}.classes_ must not have ignore_label={ignored}: {classes}")
    own = np.asarray(segmenter.predict(X))
    if np.any(own == ignored):
        raise AssertionError(f"{name}.predict must never return ignore_label={ignored}")
    best = segmenter.score(X, own)
    halves = []
    for first in (0, 1):
        masks = own.copy()
        masks[:, first::2] = ignored
        halves.append(segmenter.score(X, masks))
    # A perfect score stays perfect. One that is a mean over pixels is the mean of both halves, so
    # that one of them reaches it. Rows are left out, not a region, so that no class vanishes.
    half = np.max(halves)
    if not (half >= best or np.isclose(half, best)):
        raise AssertionError(
            f"{name}.score must leave ignored pixels out: its own prediction scores {best:.3g}, "
            f"and {half:.3g} with every other row ignored"
        )
