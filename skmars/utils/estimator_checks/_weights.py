"""Checks of the weights of images and of classes."""

import numpy as np

from skmars.utils.estimator_checks._formats import _NotAnArray
from skmars.utils.estimator_checks._tools import (
    LABELS,
    assert_same_fits,
    fitted,
    make_images,
    optional,
    outputs,
    prepare,
    refused,
)

__all__ = [
    "check_all_zero_sample_weights_error",
    "check_class_weight_segmenters",
    "check_classifiers_one_label_sample_weights",
    "check_sample_weight_equivalence",
    "check_sample_weight_matters",
    "check_sample_weights_invalid",
    "check_sample_weights_list",
    "check_sample_weights_not_an_array",
    "check_sample_weights_not_overwritten",
    "check_sample_weights_pandas_series",
    "check_sample_weights_shape",
]


def check_sample_weights_pandas_series(name, segmenter_orig):
    """Weights may be a pandas series."""
    pd = optional("pandas")
    # An index of its own: weights go by position.
    _same_weights(name, segmenter_orig, lambda weight: pd.Series(weight, index=weight + 100))


def check_sample_weights_not_an_array(name, segmenter_orig):
    """Weights may be an object that numpy can make an array of."""
    _same_weights(name, segmenter_orig, _NotAnArray)


def check_sample_weights_list(name, segmenter_orig):
    """Weights may be a list."""
    _same_weights(name, segmenter_orig, list)


def check_sample_weights_shape(name, segmenter_orig):
    """Weights of another number than the images are refused."""
    X, y = make_images()
    n = len(X)
    for shape in ((n - 1,), (n + 1,), (n, 2), (1, n), ()):
        segmenter = prepare(segmenter_orig)
        with refused(f"{name}.fit must refuse sample_weight of shape {shape}", (ValueError,)):
            segmenter.fit(X, y, sample_weight=np.ones(shape))


def check_sample_weights_invalid(name, segmenter_orig):
    """Weights that are not finite are refused."""
    X, y = make_images()
    for value in (np.nan, np.inf):
        weight = np.ones(len(X))
        weight[1] = value
        segmenter = prepare(segmenter_orig)
        with refused(f"{name}.fit must refuse a sample_weight of {value}", (ValueError,)):
            segmenter.fit(X, y, sample_weight=weight)


def check_all_zero_sample_weights_error(name, segmenter_orig):
    """Weights that are all 0 are refused."""
    X, y = make_images()
    segmenter = prepare(segmenter_orig)
    with refused(f"{name}.fit must refuse a sample_weight of 0 everywhere", (ValueError,)):
        segmenter.fit(X, y, sample_weight=np.zeros(len(X)))


def check_sample_weights_not_overwritten(name, segmenter_orig):
    """Fitting does not write into the weights."""
    X, y = make_images()
    weight = _weights(len(X))
    expected = weight.copy()
    fitted(segmenter_orig, X, y, sample_weight=weight)
    if not np.array_equal(weight, expected):
        raise AssertionError(f"{name}.fit must not write into sample_weight")


def check_sample_weight_equivalence(name, segmenter_orig):
    """Weights of 1 mean none, and the mask of an image of weight 0 does not matter."""
    X, y = make_images()
    message = f"{name} must do the same with weights of 1 as without"
    actual = outputs(fitted(segmenter_orig, X, y, sample_weight=np.ones(len(X))), X)
    expected = outputs(fitted(segmenter_orig, X, y), X)
    assert_same_fits(segmenter_orig, actual, expected, message, exact=False)
    weight = np.where(np.arange(len(X)) % 2, 0.0, 1.0)
    # Reflected, so that shares of classes, which splits may go by, stay the same.
    wrong = np.where((weight == 0)[:, None, None], y[:, ::-1, ::-1], y)
    message = f"{name} must do the same whatever the masks of images of weight 0"
    actual = outputs(fitted(segmenter_orig, X, wrong, sample_weight=weight), X)
    expected = outputs(fitted(segmenter_orig, X, y, sample_weight=weight), X)
    assert_same_fits(segmenter_orig, actual, expected, message, exact=False)


def check_sample_weight_matters(name, segmenter_orig):
    """Which of two contradicting halves has the weight makes a difference."""
    X, y = make_images(16)
    masks = np.where((np.arange(16) % 2 == 0)[:, None, None], y, y[:, ::-1, ::-1])
    results = []
    for half in (0, 1):
        weight = np.where(np.arange(16) % 2 == half, 1.0, 1e-3)
        results.append(outputs(fitted(segmenter_orig, X, masks, sample_weight=weight), X))
    if all(np.array_equal(results[0][key], results[1][key]) for key in results[0]):
        raise AssertionError(
            f"{name}.fit must make use of sample_weight; it predicts the same whichever half of "
            "the images has the weight"
        )


def check_classifiers_one_label_sample_weights(name, segmenter_orig):
    """Weights that leave a single label give a fit to it, or an error about classes."""
    X, y = make_images()
    y[::2] = LABELS[0]
    weight = np.where(np.arange(len(X)) % 2, 0.0, 1.0)
    try:
        labels = fitted(segmenter_orig, X, y, sample_weight=weight).predict(X)
    except ValueError as error:
        if not any(word in str(error) for word in ("class", "label", "sample_weight")):
            raise AssertionError(
                f"{name}.fit must say that the weights leave one class; it says: {error}"
            ) from error
        return
    unknown = np.setdiff1d(labels, LABELS)
    if len(unknown):
        raise AssertionError(f"{name}.predict must return labels given, got {unknown.tolist()}")


def check_class_weight_segmenters(name, segmenter_orig):
    """A class of great weight is predicted at more pixels than one of small weight."""
    X, y = make_images(48, noise=60)
    shares = {}
    for label in LABELS:
        weights = {int(other): 1000.0 if other == label else 1e-4 for other in LABELS}
        segmenter = prepare(segmenter_orig, class_weight=weights).fit(X, y)
        predicted = np.asarray(segmenter.predict(X))
        shares[label] = [np.mean(predicted == other) for other in LABELS]
    # Over all classes, since a short training may be swayed by one of them.
    table = np.array(list(shares.values()))
    great = np.mean(np.diag(table))
    small = np.mean(table[~np.eye(len(LABELS), dtype=bool)])
    if great <= small:
        raise AssertionError(
            f"{name} must predict a label at more pixels the greater its class_weight; on "
            f"average it does at {great:.1%} with a great one and at {small:.1%} with a small one"
        )


def _weights(n):
    return np.arange(n) % 3 + 0.5


def _same_weights(name, segmenter_orig, convert):
    X, y = make_images()
    weight = _weights(len(X))
    expected = outputs(fitted(segmenter_orig, X, y, sample_weight=weight), X)
    actual = outputs(fitted(segmenter_orig, X, y, sample_weight=convert(weight)), X)
    kind = type(convert(weight)).__name__.strip("_")
    message = f"{name} must do the same with sample_weight as a {kind} as with an array"
    assert_same_fits(segmenter_orig, actual, expected, message)
