"""Checks of the many ways in which arrays of images and masks come."""

import numpy as np

from skmars.utils.estimator_checks._tools import (
    LABELS,
    assert_same_fits,
    fitted,
    is_sampler,
    make_images,
    outputs,
    prepare,
    run,
)

__all__ = [
    "check_estimators_data_not_an_array",
    "check_estimators_dtypes",
    "check_f_contiguous_images",
    "check_fit_images_1channel",
    "check_fit_images_1sample",
    "check_fit_images_channels",
    "check_foreign_byte_order",
    "check_inplace_ensure_writeable",
    "check_masks_dtypes",
    "check_nested_lists",
    "check_readonly_memmap_input",
    "check_strided_images",
]


class _NotAnArray:
    """Something that numpy can make an array of, and nothing more."""

    def __init__(self, data):
        self.data = data

    def __array__(self, dtype=None, copy=None):
        return np.array(self.data, dtype=dtype)


def check_estimators_dtypes(name, estimator_orig):
    """Images of every usual dtype can be used."""
    X, y = make_images()
    dtypes = (bool, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32, np.float64)
    for dtype in dtypes:
        images = X > 100 if dtype is bool else X.astype(dtype)
        try:
            run(estimator_orig, images, y)
        except Exception as error:
            raise AssertionError(
                f"{name} must take images of {np.dtype(dtype)}; "
                f"it raised {type(error).__name__}: {error}"
            ) from error


def check_masks_dtypes(name, estimator_orig):
    """Masks of every integer dtype mean the same."""
    X, y = make_images()
    expected = run(estimator_orig, X, y)
    for dtype in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.uint64):
        actual = run(estimator_orig, X, y.astype(dtype))
        message = f"{name} must do the same with masks of {np.dtype(dtype)} as of int64"
        assert_same_fits(estimator_orig, actual, expected, message, exact=False)


def check_foreign_byte_order(name, estimator_orig):
    """Images and masks of the other byte order, as many files hold them, mean the same."""
    X, y = make_images()
    for dtype in (np.dtype(np.uint16), np.dtype(np.float32)):
        expected = run(estimator_orig, X.astype(dtype), y)
        foreign = X.astype(dtype.newbyteorder()), y.astype(y.dtype.newbyteorder())
        message = f"{name} must do the same with {dtype} of the other byte order"
        actual = run(estimator_orig, *foreign)
        assert_same_fits(estimator_orig, actual, expected, message, exact=False)


def check_f_contiguous_images(name, estimator_orig):
    """The order of the images in memory changes nothing."""
    X, y = make_images(n_channels=2)
    expected = run(estimator_orig, X, y)
    actual = run(estimator_orig, np.asfortranarray(X), np.asfortranarray(y))
    message = f"{name} must do the same with images in Fortran order"
    assert_same_fits(estimator_orig, actual, expected, message, exact=False)


def check_strided_images(name, estimator_orig):
    """Views with gaps and reversed axes mean the same as copies of them."""
    X, y = make_images(shape=(32, 24))
    views = X[::-1, ::2, ::-1], y[::-1, ::2, ::-1]
    expected = run(estimator_orig, *(view.copy() for view in views))
    message = f"{name} must do the same with a view of images as with a copy of it"
    actual = run(estimator_orig, *views)
    assert_same_fits(estimator_orig, actual, expected, message, exact=False)


def check_inplace_ensure_writeable(name, estimator_orig):
    """Images and masks that must not be written into can be used, and stay so."""
    X, y = make_images()
    expected = run(estimator_orig, X.astype(np.float32), y)
    images, masks = X.astype(np.float32), y.copy()
    images.setflags(write=False)
    masks.setflags(write=False)
    actual = run(estimator_orig, images, masks)
    message = f"{name} must do the same with read-only images"
    assert_same_fits(estimator_orig, actual, expected, message, exact=False)
    if images.flags.writeable or masks.flags.writeable:
        raise AssertionError(f"{name} must leave images and masks read-only")


def check_readonly_memmap_input(name, estimator_orig):
    """Images and masks in read-only memory maps, as joblib hands them to workers, can be used."""
    from sklearn.utils._testing import create_memmap_backed_data

    X, y = make_images()
    expected = run(estimator_orig, X, y)
    images, masks = create_memmap_backed_data([X, y])
    actual = run(estimator_orig, images, masks)
    message = f"{name} must do the same with images in a read-only memory map"
    assert_same_fits(estimator_orig, actual, expected, message, exact=False)


def check_estimators_data_not_an_array(name, estimator_orig):
    """Objects that numpy can make arrays of can be used."""
    X, y = make_images()
    expected = run(estimator_orig, X, y)
    actual = run(estimator_orig, _NotAnArray(X), _NotAnArray(y))
    message = f"{name} must do the same with objects that numpy can make arrays of"
    assert_same_fits(estimator_orig, actual, expected, message, exact=False)


def check_nested_lists(name, estimator_orig):
    """Nested lists of numbers mean the same as arrays."""
    X, y = make_images()
    expected = run(estimator_orig, X.astype(np.int64), y)
    actual = run(estimator_orig, X.tolist(), y.tolist())
    message = f"{name} must do the same with nested lists"
    assert_same_fits(estimator_orig, actual, expected, message, exact=False)


def check_fit_images_1channel(name, estimator_orig):
    """Images `(n, H, W, 1)` mean the same as `(n, H, W)`."""
    X, y = make_images()
    expected = run(estimator_orig, X, y)
    actual = run(estimator_orig, X[..., None], y)
    if is_sampler(estimator_orig):
        images = actual["X of fit_resample"]
        if images.ndim != 4 or images.shape[3] != 1:
            raise AssertionError(
                f"{name}.fit_resample must keep the channel axis of (n, H, W, 1) images; "
                f"it returned shape {images.shape}"
            )
        actual["X of fit_resample"] = images[..., 0]
    message = f"{name} must do the same with images of one channel with and without its axis"
    assert_same_fits(estimator_orig, actual, expected, message, exact=False)


def check_fit_images_channels(name, estimator_orig):
    """Images of two, three and five channels can be used."""
    for n_channels in (2, 3, 5):
        X, y = make_images(n_channels=n_channels)
        results = run(estimator_orig, X, y)
        if is_sampler(estimator_orig):
            shape = results["X of fit_resample"].shape
            if shape[1:] != X.shape[1:]:
                raise AssertionError(
                    f"{name}.fit_resample must keep size and channels of images of shape "
                    f"{X.shape[1:]}; it returned {shape[1:]}"
                )
        elif results["predict"].shape != y.shape:
            raise AssertionError(
                f"{name}.predict must return one label a pixel, shape {y.shape}, for images "
                f"with {n_channels} channels; it returned {results['predict'].shape}"
            )


def check_fit_images_1sample(name, estimator_orig):
    """A single image is enough to fit, or the error speaks of the number of images."""
    X, y = make_images(1)
    words = ("1 image", "one image", "images", "1 sample", "n_samples", "validation_fraction")
    try:
        if is_sampler(estimator_orig):
            outputs(prepare(estimator_orig), X, y)
        else:
            labels = fitted(estimator_orig, X, y).predict(X)
            unknown = np.setdiff1d(labels, LABELS)
            if len(unknown):
                raise AssertionError(f"{name}.predict must return labels given, got {unknown}")
    except ValueError as error:
        if not any(word in str(error) for word in words):
            raise AssertionError(
                f"{name} must take a single image, or say that it needs more; it says: {error}"
            ) from error
