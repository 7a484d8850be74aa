"""What a mosaic is read from and its labels are written to, checked part by part."""

import itertools
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from skmars import _validation as check

__all__ = ["Source", "check_nodata", "check_target", "check_uncertainty"]

# Side of the patches that stand for a whole source.
PATCH = 64


class Source:
    """An image that is checked part by part, as its parts are read.

    Parameters
    ----------
    array : array of shape (H, W) or (H, W, C)
        What is read from, as `predict_large` describes it.
    mean : ndarray of shape (C,)
        Of the training images: what pixels without data are filled with.
    nodata : float or None, default=None
        What pixels without data have in all channels; None if there are none.

    Raises
    ------
    TypeError, ValueError
        If the array is not as described, or its dtype has no such number.
    """

    def __init__(self, array, mean: np.ndarray, nodata: float | None = None):
        try:
            self.shape = tuple(int(side) for side in array.shape)
            self.dtype = np.dtype(array.dtype)
        except (AttributeError, TypeError) as error:
            raise TypeError(
                f"source must be an array with a shape and a dtype, got {type(array).__name__}"
            ) from error
        if len(self.shape) not in (2, 3):
            raise ValueError(
                "source must be one image of shape (H, W) or (H, W, C), got "
                f"{len(self.shape)} dimensions: shape {self.shape}"
            )
        if 0 in self.shape:
            raise ValueError(f"source is empty: shape {self.shape}")
        # Other channels and other dtypes show at one pixel, whatever it holds.
        pixel = np.zeros((1, 1, 1, *self.shape[2:]), self.dtype)
        check.check_images(pixel, n_channels=len(mean), name="source")
        _refuse_masked(array)
        self.array = array
        self.n_channels = len(mean)
        self.nodata = None if nodata is None else _as_nodata(nodata, self.dtype)
        self.filling = _representable(mean, self.dtype)
        _ = self[0:1, 0:1]

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray:
        """Pixels of a region, those without data as they are."""
        rows, columns = region
        part = np.asanyarray(self.array[rows.start : rows.stop, columns.start : columns.stop])
        _refuse_masked(part)
        part = np.asarray(part)
        wanted = (rows.stop - rows.start, columns.stop - columns.start, *self.shape[2:])
        if part.shape != wanted:
            raise ValueError(f"source gave a part of shape {part.shape} instead of {wanted}")
        filled = self.fill(part)[None]
        checked = check.check_images(filled, n_channels=self.n_channels, name="source")[0]
        return checked if self.nodata is None else part

    def is_empty(self, images: np.ndarray) -> np.ndarray:
        """Whether pixels of parts `(..., h, w)` or `(..., h, w, C)` are without data."""
        is_nan = self.nodata != self.nodata
        same = np.isnan(images) if is_nan else images == self.nodata
        return same.all(axis=-1) if len(self.shape) == 3 else same

    def fill(self, images: np.ndarray) -> np.ndarray:
        """Copy parts with the mean of the training in the place of pixels without data."""
        if self.nodata is None:
            return images
        filled = images.astype(self.filling.dtype)
        filled[self.is_empty(images)] = self.filling
        return filled

    def with_data(self, part: np.ndarray) -> np.ndarray:
        """Pixels of a part that have data."""
        return part if self.nodata is None else part[~self.is_empty(part)]

    def patches(self) -> list[np.ndarray]:
        """Nine parts: at the corners, the middles of the borders, and the centre."""
        height, width = self.shape[:2]
        tops, lefts = (
            [(side - min(side, PATCH)) * part // 2 for part in range(3)]
            for side in (height, width)
        )
        return [
            self[a : min(a + PATCH, height), b : min(b + PATCH, width)]
            for a, b in itertools.product(tops, lefts)
        ]


def check_nodata(nodata, nodata_label) -> None:
    """Check the value of pixels without data and the label that they get, if there are some.

    Raises
    ------
    TypeError
        If the value is no number, or the label no integer.
    ValueError
        If only one of them is given.
    """
    if (nodata is None) != (nodata_label is None):
        raise ValueError(
            "nodata and nodata_label need each other: the value of pixels without data, and the "
            f"label that they get; got nodata={nodata!r}, nodata_label={nodata_label!r}"
        )
    if nodata is None:
        return
    if not isinstance(nodata, Real):
        raise TypeError(f"nodata must be a number or NaN, got {nodata!r}")
    if not isinstance(nodata_label, Integral):
        raise TypeError(f"nodata_label must be an integer, got {nodata_label!r}")


def check_target(target, image: Source, labels: Sequence[int]) -> None:
    """Check that labels of an image can be written to a target.

    Raises
    ------
    TypeError, ValueError
        If it is no array of the image's height and width, cannot hold all of the labels, or
        cannot be written to.
    """
    dtype = _check_output(target, "target", image)
    if dtype.kind not in "bui":
        raise TypeError(f"target must be of an integer dtype, got {dtype}")
    lowest, highest = _limits(dtype)
    lost = [int(label) for label in labels if not lowest <= label <= highest]
    if lost:
        raise ValueError(f"target of dtype {dtype} cannot hold the labels {lost}")


def check_uncertainty(uncertainty, image: Source, target) -> None:
    """Check that the uncertainty of an image's labels can be written to an array.

    Raises
    ------
    TypeError, ValueError
        If it is no array of floats of the image's height and width, is the target as well, or
        cannot be written to.
    """
    dtype = _check_output(uncertainty, "uncertainty", image)
    if dtype.kind != "f":
        raise TypeError(f"uncertainty must be of a floating dtype, got {dtype}")
    if _share_memory(uncertainty, target):
        raise ValueError("target and uncertainty must not share memory")


def _check_output(array, name: str, image: Source) -> np.dtype:
    """Dtype of an array that something is to be written to for each pixel of an image."""
    try:
        shape, dtype = tuple(array.shape), np.dtype(array.dtype)
    except (AttributeError, TypeError) as error:
        raise TypeError(
            f"{name} must be an array with a shape and a dtype, got {type(array).__name__}"
        ) from error
    if shape != image.shape[:2]:
        raise ValueError(
            f"{name} must have the height and width of the source, {image.shape[:2]}; got "
            f"shape {shape}"
        )
    if _share_memory(array, image.array):
        raise ValueError(f"source and {name} must not share memory")
    try:
        array[0:1, 0:1] = np.asarray(array[0:1, 0:1])
    except Exception as error:  # Of a kind that depends on what holds the array.
        raise ValueError(f"{name} cannot be written to: {error}") from error
    return dtype


def _share_memory(*arrays) -> bool:
    return all(isinstance(one, np.ndarray) for one in arrays) and np.may_share_memory(*arrays)


def _refuse_masked(array) -> None:
    if np.ma.is_masked(array):
        raise TypeError(
            "source has masked pixels, which would be taken for others: fill them with a number, "
            "as `source.filled(number)` does, and give it as nodata"
        )


def _as_nodata(nodata, dtype: np.dtype) -> np.ndarray:
    """The value of pixels without data as an image of some dtype has it."""
    with np.errstate(all="ignore"):
        value = np.array(nodata).astype(dtype)
    # Fractions are rounded as those of the image were; an integer would be another one.
    same = np.isfinite(value) == np.isfinite(nodata) if dtype.kind == "f" else value == nodata
    if not same:
        raise ValueError(f"a source of dtype {dtype} has no pixel of nodata={nodata!r}")
    return value


def _representable(mean: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A mean as pixels of some dtype can have it."""
    # Extended precision is read as double precision.
    dtype = dtype if dtype.itemsize <= 8 else np.dtype(np.float64)
    rounded = mean if dtype.kind == "f" else np.rint(mean)
    return np.clip(rounded, *_limits(dtype)).astype(dtype)


def _limits(dtype: np.dtype) -> tuple[Any, Any]:
    """Lowest and highest number of a dtype."""
    if dtype.kind == "b":
        return 0, 1
    limits: Any = np.finfo(dtype.type) if dtype.kind == "f" else np.iinfo(dtype.type)
    return limits.min, limits.max
