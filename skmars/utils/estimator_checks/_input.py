"""Checks of input that has to be refused."""

import numpy as np
from scipy import sparse
from sklearn.utils import get_tags

from skmars.utils.estimator_checks._tools import (
    call,
    data_methods,
    fit_methods,
    fitted,
    is_sampler,
    make_images,
    prepare,
    refused,
)

__all__ = [
    "check_complex_data",
    "check_dtype_object",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_estimator_sparse_tag",
    "check_estimators_empty_data_messages",
    "check_estimators_nan_inf",
    "check_failed_fit_leaves_unfitted",
    "check_fit_5d",
    "check_fit_flat",
    "check_fit_images_predict_one_image",
    "check_fit_non_negative",
    "check_inconsistent_masks",
    "check_masks_regression_target",
    "check_predict_5d",
    "check_requires_y_none",
    "check_supervised_y_2d",
    "check_supervised_y_4d",
    "check_supervised_y_no_nan",
    "check_supervised_y_object",
]


def check_complex_data(name, estimator_orig):
    """Complex images are refused."""
    X, y = make_images()
    _refuse_in_fit(name, estimator_orig, X + 1j, y, "complex images", (ValueError, TypeError))
    _refuse_in_predict(name, estimator_orig, X + 1j, "complex images")


def check_dtype_object(name, estimator_orig):
    """Images that hold something else than numbers are refused."""
    X, y = make_images()
    objects = X.astype(object)
    objects[0, 0, 0] = {"foo": "bar"}
    _refuse_in_fit(name, estimator_orig, objects, y, "images that hold a dict")
    _refuse_in_predict(name, estimator_orig, objects, "images that hold a dict")
    words = np.full(X.shape, "sand")
    _refuse_in_fit(name, estimator_orig, words, y, "images that hold words")
    _refuse_in_predict(name, estimator_orig, words, "images that hold words")


def check_estimator_sparse_tag(name, estimator_orig):
    """The tags do not promise that sparse matrices are taken, which no images are."""
    if get_tags(estimator_orig).input_tags.sparse:
        raise AssertionError(f"the tags of {name} must have input_tags.sparse=False")


def check_estimator_sparse_array(name, estimator_orig):
    """A sparse array instead of images is refused."""
    _refuse_sparse(name, estimator_orig, sparse.csr_array)


def check_estimator_sparse_matrix(name, estimator_orig):
    """A sparse matrix instead of images is refused."""
    _refuse_sparse(name, estimator_orig, sparse.csr_matrix)


def check_estimators_empty_data_messages(name, estimator_orig):
    """No images, and images without pixels or channels, are refused."""
    X, y = make_images()
    for images, masks, what in (
        (X[:0], y[:0], "no images"),
        (X[:, :0], y[:, :0], "images of height 0"),
        (X[:, :, :0], y[:, :, :0], "images of width 0"),
        (X[..., None][..., :0], y, "images without channels"),
    ):
        _refuse_in_fit(name, estimator_orig, images, masks, what, (ValueError,))


def check_estimators_nan_inf(name, estimator_orig):
    """NaN and infinity in the images are refused, in fitting and in predicting."""
    X, y = make_images()
    for value in (np.nan, np.inf, -np.inf):
        images = X.astype(np.float64)
        images[1, 2, 3] = value
        _refuse_in_fit(name, estimator_orig, images, y, f"images with {value}", (ValueError,))
        _refuse_in_predict(name, estimator_orig, images, f"images with {value}", (ValueError,))


def check_failed_fit_leaves_unfitted(name, estimator_orig):
    """A fit that is refused leaves a new estimator as it was."""
    X, y = make_images()
    estimator = prepare(estimator_orig)
    before = set(vars(estimator))
    for images, masks in ((X[0], y[0]), (X, y[1:]), (X[..., None, None], y)):
        with refused(f"{name}.fit must refuse images of shape {images.shape}"):
            estimator.fit(images, masks)
    added = {attribute for attribute in set(vars(estimator)) - before if attribute.endswith("_")}
    if added:
        raise AssertionError(
            f"{name}.fit must check its input before it sets attributes; a fit that was refused "
            f"has set {sorted(added)}"
        )


def check_fit_flat(name, estimator_orig):
    """Arrays of one and two dimensions are refused as images."""
    X, y = make_images()
    for images, masks, what in (
        (X[0, 0], y[0, 0], "1-d array instead of images"),
        (X[0], y[0], "single image without the axis of images"),
        (X.reshape(len(X), -1), y.reshape(len(y), -1), "table of flattened images"),
    ):
        _refuse_in_fit(name, estimator_orig, images, masks, f"a {what}", (ValueError,))


def check_fit_5d(name, estimator_orig):
    """Arrays of five dimensions are refused as images."""
    X, y = make_images()
    what = "images of five dimensions"
    _refuse_in_fit(name, estimator_orig, X[..., None, None], y, what, (ValueError,))


def check_fit_images_predict_one_image(name, estimator_orig):
    """A single image without the axis of images is refused in predicting."""
    X, _ = make_images()
    _refuse_in_predict(name, estimator_orig, X[0], "a single (H, W) image", (ValueError,))


def check_predict_5d(name, estimator_orig):
    """Arrays of five dimensions are refused in predicting."""
    X, _ = make_images()
    what = "images of five dimensions"
    _refuse_in_predict(name, estimator_orig, X[..., None, None], what, (ValueError,))


def check_fit_non_negative(name, estimator_orig):
    """Negative images are refused if, and only if, the tag `positive_only` says so."""
    X, y = make_images()
    images = X.astype(np.float64) - 128
    if get_tags(estimator_orig).input_tags.positive_only:
        _refuse_in_fit(name, estimator_orig, images, y, "negative images", (ValueError,))
        return
    try:
        prepare(estimator_orig).fit(images, y)
    except Exception as error:
        raise AssertionError(
            f"{name}.fit must take negative images, or have the tag positive_only=True; "
            f"it raised {type(error).__name__}: {error}"
        ) from error


def check_inconsistent_masks(name, estimator_orig):
    """Masks of another number or size than the images are refused."""
    X, y = make_images()
    for masks, what in (
        (y[1:], "fewer masks than images"),
        (np.concatenate([y, y]), "more masks than images"),
        (y[:, 1:], "masks lower than the images"),
        (y[:, :, 1:], "masks narrower than the images"),
        (y.transpose(0, 2, 1), "masks on their side"),
    ):
        _refuse_in_fit(name, estimator_orig, X, masks, what, (ValueError,))


def check_masks_regression_target(name, estimator_orig):
    """Masks of fractions are refused: they hold no labels."""
    X, y = make_images()
    _refuse_in_fit(name, estimator_orig, X, y + 0.5 * (X > 100), "masks of fractions")


def check_requires_y_none(name, estimator_orig):
    """Fitting without masks is refused with an error that speaks of y, masks or labels."""
    X, _ = make_images()
    words = r"(?i)\b(y|masks?|labels?|targets?|none)\b"
    for method in fit_methods(estimator_orig):
        estimator = prepare(estimator_orig)
        message = f"{name}.{method} must refuse y=None, and speak of y or the masks"
        with refused(message, (ValueError,), match=words):
            call(estimator, method, X, None)


def check_supervised_y_2d(name, estimator_orig):
    """One label for each image, instead of each pixel, is refused."""
    X, y = make_images()
    what = "one label for each image"
    _refuse_in_fit(name, estimator_orig, X, y[:, 0, 0], what, (ValueError,))
    _refuse_in_fit(name, estimator_orig, X, y[:, 0, :1], what, (ValueError,))


def check_supervised_y_4d(name, estimator_orig):
    """Several masks an image are refused, one-hot masks among them."""
    X, y = make_images()
    one_hot = (y[..., None] == np.unique(y)).astype(int)
    what = "masks with an axis of classes"
    _refuse_in_fit(name, estimator_orig, X, one_hot, what, (ValueError,))
    what = "two masks an image"
    _refuse_in_fit(name, estimator_orig, X, np.stack([y, y], axis=-1), what, (ValueError,))


def check_supervised_y_no_nan(name, estimator_orig):
    """NaN and infinity in the masks are refused."""
    X, y = make_images()
    for value in (np.nan, np.inf):
        masks = y.astype(np.float64)
        masks[1, 2, 3] = value
        _refuse_in_fit(name, estimator_orig, X, masks, f"masks with {value}", (ValueError,))


def check_supervised_y_object(name, estimator_orig):
    """Masks that hold something else than labels are refused."""
    X, y = make_images()
    masks = y.astype(object)
    masks[0, 0, 0] = {"foo": "bar"}
    _refuse_in_fit(name, estimator_orig, X, masks, "masks that hold a dict")


def _refuse_in_fit(name, estimator_orig, X, y, what, errors=(TypeError, ValueError)):
    for method in fit_methods(estimator_orig):
        estimator = prepare(estimator_orig)
        with refused(f"{name}.{method} must refuse {what}", errors):
            call(estimator, method, X, y)


def _refuse_in_predict(name, estimator_orig, X, what, errors=(TypeError, ValueError)):
    if is_sampler(estimator_orig):
        return
    estimator = fitted(estimator_orig, *make_images())
    for method, function in data_methods(estimator).items():
        with refused(f"{name}.{method} must refuse {what}", errors):
            function(X)


def _refuse_sparse(name, estimator_orig, make):
    X, y = make_images()
    table = make(X.reshape(len(X), -1))
    _refuse_in_fit(name, estimator_orig, table, y, "sparse images")
    if is_sampler(estimator_orig):
        return
    estimator = fitted(estimator_orig, X, y)
    for method in ("predict", "predict_proba"):
        if hasattr(estimator, method):
            with refused(f"{name}.{method} must refuse sparse images"):
                getattr(estimator, method)(table)
