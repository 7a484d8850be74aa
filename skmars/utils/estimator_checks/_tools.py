"""What the checks share: small images that can be learnt, and ways to run and to compare."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import SkipTest

import numpy as np
from sklearn.base import clone
from sklearn.utils import get_tags

__all__ = [
    "LABELS",
    "assert_same",
    "assert_same_fits",
    "call",
    "data_methods",
    "fit_methods",
    "fitted",
    "has_parameter",
    "is_sampler",
    "make_images",
    "optional",
    "outputs",
    "partial_fit",
    "prepare",
    "refused",
    "run",
]

# Not 0 to 2, so that an estimator that mixes up labels and their positions is found out.
LABELS = np.array([1, 4, 7])


def make_images(
    n: int = 12,
    shape: tuple[int, int] = (16, 24),
    *,
    labels=LABELS,
    n_channels: int | None = None,
    noise: float = 8.0,
    random_state: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Images of three regions whose grey level tells the label.

    Parameters
    ----------
    n : int, default=12
        Number of images.
    shape : tuple of int, default=(16, 24)
        Height and width in pixels, at least 10 each.
    labels : array-like of shape (3,), default=LABELS
        Labels of the dark, the grey and the bright region.
    n_channels : int or None, default=None
        Channels, each a little brighter than the one before; None for images without that axis.
    noise : float, default=8.0
        Standard deviation of the noise; the regions are 60 grey levels apart.
    random_state : int, default=0
        Seed.

    Returns
    -------
    X : ndarray of shape (n, H, W) or (n, H, W, C) of uint8
    y : ndarray of shape (n, H, W) of the dtype of the labels
        No mask equals its own reflection.
    """
    rng = np.random.default_rng(random_state)
    height, width = shape
    regions = np.zeros((n, height, width), dtype=np.intp)
    for region in regions:
        left = rng.integers(width // 4, width // 2 - 1)
        top = rng.integers(height // 4, height // 2)
        region[:, left:] = 1
        region[top:, left:] = 2
    X = 60.0 + 60.0 * regions + rng.normal(0, noise, regions.shape)
    if n_channels is not None:
        X = X[..., None] + 5.0 * np.arange(n_channels)
    return np.clip(X, 0, 255).astype(np.uint8), np.asarray(labels)[regions]


def optional(module: str) -> Any:
    """Import what only some users have, or skip the check."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise SkipTest(f"{module.partition('.')[0]} is not installed") from None


def is_sampler(estimator) -> bool:
    """Whether an estimator resamples images; if not, it is taken for a segmenter."""
    return hasattr(estimator, "fit_resample")


def has_parameter(method: Callable, name: str) -> bool:
    """Whether a method names a parameter in its signature."""
    return name in inspect.signature(method).parameters


def prepare(estimator, **params):
    """Clone of an estimator with every random state in it set to 0, and some parameters."""
    copy = clone(estimator)
    names = copy.get_params(deep=True)
    states = {name: 0 for name in names if name.rsplit("__", 1)[-1] == "random_state"}
    return copy.set_params(**{**states, **params})


def fitted(estimator, X, y, **fit_params):
    """Prepared clone of an estimator, fitted."""
    copy = prepare(estimator)
    copy.fit(X, y, **fit_params)
    return copy


def partial_fit(estimator, X, y):
    """Call `partial_fit` with the classes, if it takes them."""
    if has_parameter(estimator.partial_fit, "classes"):
        return estimator.partial_fit(X, y, classes=LABELS)
    return estimator.partial_fit(X, y)


def call(estimator, method: str, X, y):
    """Call one of the methods that take images and masks."""
    return (
        partial_fit(estimator, X, y)
        if method == "partial_fit"
        else getattr(estimator, method)(X, y)
    )


def fit_methods(estimator) -> list[str]:
    """Names of the methods that take images and masks to learn from."""
    names = ("fit", "partial_fit", "fit_resample", "fit_predict")
    return [name for name in names if hasattr(estimator, name)]


def data_methods(estimator) -> dict[str, Callable]:
    """Methods that a segmenter has after fit, as functions of images alone."""
    methods: dict[str, Callable] = {
        name: getattr(estimator, name)
        for name in ("predict", "predict_proba")
        if hasattr(estimator, name)
    }
    if hasattr(estimator, "score"):
        methods["score"] = lambda X: estimator.score(X, np.full(np.shape(X)[:3], LABELS[0]))
    return methods


def outputs(estimator, X, y=None) -> dict[str, np.ndarray]:
    """What a fitted segmenter predicts, or what a sampler makes of images and masks."""
    if is_sampler(estimator):
        X_res, y_res = estimator.fit_resample(X, y)
        return {"X of fit_resample": np.asarray(X_res), "y of fit_resample": np.asarray(y_res)}
    names = [name for name in ("predict", "predict_proba") if hasattr(estimator, name)]
    return {name: np.asarray(getattr(estimator, name)(X)) for name in names}


def run(estimator, X, y) -> dict[str, np.ndarray]:
    """Outputs of a prepared clone, which is fitted to the same images if it is a segmenter."""
    copy = prepare(estimator)
    if not is_sampler(copy):
        copy.fit(X, y)
    return outputs(copy, X, y)


def assert_same(actual: dict, expected: dict, message: str, *, exact: bool = True) -> None:
    """Compare the outputs of two runs.

    Parameters
    ----------
    actual, expected : dict of str to ndarray
        As returned by `outputs`.
    message : str
        What should have been the same.
    exact : bool, default=True
        Whether nothing may differ. If not, rounding errors are allowed, and labels that hang on
        them.

    Raises
    ------
    AssertionError
        If the outputs differ.
    """
    for key, value in expected.items():
        other = actual[key]
        if other.shape != value.shape:
            raise AssertionError(f"{message}: {key} has shape {other.shape}, not {value.shape}")
        if exact:
            same = np.array_equal(other, value)
        elif key.startswith("X of") or value.dtype.kind == "f":
            rounding = 1.0 if value.dtype.kind in "bui" else 2e-3
            difference = np.abs(other.astype(np.float64) - value.astype(np.float64))
            same = bool(np.all(difference <= rounding))
        else:
            same = np.mean(other == value) > 0.97
        if not same:
            count = np.sum(other != value)
            raise AssertionError(f"{message}: {key} differs in {count} of {value.size} values")


def assert_same_fits(
    estimator, actual: dict, expected: dict, message: str, *, exact: bool = True
) -> None:
    """Compare the outputs of two fits, or of two runs of a sampler, as `assert_same` does.

    Nothing is compared if the tags of the estimator say that it is not deterministic.
    """
    if not get_tags(estimator).non_deterministic:
        assert_same(actual, expected, message, exact=exact)


@contextmanager
def refused(
    message: str, errors: tuple = (TypeError, ValueError), *, match: str = ""
) -> Iterator[None]:
    """Expect that the code within is refused with an error that says something.

    Parameters
    ----------
    message : str
        What has to be refused, such as "U.fit must refuse NaN".
    errors : tuple of type, default=(TypeError, ValueError)
        Errors that are right.
    match : str, default=""
        What the error has to mention, as a regular expression.

    Raises
    ------
    AssertionError
        If there is no error, another one, or one without a text.
    """
    names = " or ".join(error.__name__ for error in errors)
    try:
        yield
    except errors as error:
        if not str(error).strip():
            raise AssertionError(f"{message} with an error that says why") from error
        if not re.search(match, str(error)):
            raise AssertionError(f"{message}; the error says: {error}") from error
    except Exception as error:
        raise AssertionError(
            f"{message} with a {names}; it raised {type(error).__name__}: {error}"
        ) from error
    else:
        raise AssertionError(f"{message} with a {names}; it raised nothing")
