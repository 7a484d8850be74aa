"""Ways to run the checks: all at once, or one by one in pytest."""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal
from unittest import SkipTest

import sklearn
from sklearn.exceptions import SkipTestWarning

from skmars.utils.estimator_checks._selection import select_checks
from skmars.utils.estimator_checks._tools import is_sampler

__all__ = [
    "check_sampler",
    "check_segmenter",
    "estimator_checks_generator",
    "parametrize_with_checks",
]


def check_segmenter(
    estimator,
    *,
    expected_failed_checks: dict[str, str] | None = None,
    on_skip: Literal["warn"] | None = "warn",
    on_fail: Literal["raise", "warn"] | None = "raise",
    callback: Callable[..., Any] | None = None,
) -> list[dict[str, Any]]:
    """Hold an estimator of masks to the contract of scikit-learn and of this package.

    It is what `sklearn.utils.estimator_checks.check_estimator` is for estimators of tables. The
    estimator need not inherit from anything of this package.

    Parameters
    ----------
    estimator : estimator
        Segmenter, not fitted, with parameters that make a fit short and yet learn from 64 images
        of 16x24 pixels whose labels go by grey level. It takes images `(n, H, W)` or
        `(n, H, W, C)` and masks `(n, H, W)`, and has `predict` and `score`. Further checks run
        if it has `predict_proba`, `partial_fit`, the parameters `class_weight` and
        `ignore_label`, or weights in `fit` and `score`. Two fits are not compared if its tags say
        `non_deterministic`.
    expected_failed_checks : dict of str to str or None, default=None
        Names of checks that are expected to fail, and why.
    on_skip : {"warn"} or None, default="warn"
        What to do if a check cannot run, such as without an optional package.
    on_fail : {"raise", "warn"} or None, default="raise"
        Whether to raise the error of the first check that fails unexpectedly, to warn of each,
        or only to report them.
    callback : callable or None, default=None
        Called with each result, its items as keyword arguments. Not with `on_fail="raise"`.

    Returns
    -------
    results : list of dict
        For each check `estimator`, `check_name`, `exception`, `status` ("passed", "failed",
        "xfail" or "skipped"), `expected_to_fail` and `expected_to_fail_reason`.

    Raises
    ------
    TypeError
        If the estimator is a class, or a sampler.
    ValueError
        If an option is not as described.
    Exception
        With `on_fail="raise"`, that of the first check that fails unexpectedly.

    See Also
    --------
    check_sampler : The same for samplers.
    parametrize_with_checks : One test in pytest for each check.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.base import BaseEstimator
    >>> from skmars.utils.estimator_checks import check_segmenter
    >>> class Always(BaseEstimator):
    ...     def fit(self, X, y):
    ...         self.classes_, self.n_channels_in_ = np.unique(y), 1
    ...         return self
    ...     def predict(self, X):
    ...         return np.full(np.shape(X)[:3], self.classes_[0])
    >>> results = check_segmenter(Always(), on_fail=None, on_skip=None)
    >>> failed = [result["check_name"] for result in results if result["status"] == "failed"]
    >>> "check_segmenters_train" in failed, "check_dict_unchanged" in failed
    (True, False)
    """
    _refuse_class(estimator)
    if is_sampler(estimator):
        raise TypeError(f"{type(estimator).__name__} has fit_resample: use check_sampler")
    return _check(estimator, expected_failed_checks, on_skip, on_fail, callback)


def check_sampler(
    estimator,
    *,
    expected_failed_checks: dict[str, str] | None = None,
    on_skip: Literal["warn"] | None = "warn",
    on_fail: Literal["raise", "warn"] | None = "raise",
    callback: Callable[..., Any] | None = None,
) -> list[dict[str, Any]]:
    """Hold a sampler of images and masks to imbalanced-learn's contract and this package's.

    Parameters
    ----------
    estimator : estimator
        Sampler with `fit(X, y)` and `fit_resample(X, y)`, which returns images and masks and
        sets `sample_indices_`. Two runs are not compared if its tags say `non_deterministic`.
    expected_failed_checks : dict of str to str or None, default=None
        Names of checks that are expected to fail, and why.
    on_skip : {"warn"} or None, default="warn"
        What to do if a check cannot run, such as without an optional package.
    on_fail : {"raise", "warn"} or None, default="raise"
        Whether to raise the error of the first check that fails unexpectedly, to warn of each,
        or only to report them.
    callback : callable or None, default=None
        Called with each result, its items as keyword arguments. Not with `on_fail="raise"`.

    Returns
    -------
    results : list of dict
        As those of `check_segmenter`.

    Raises
    ------
    TypeError
        If the estimator is a class, or no sampler.
    ValueError
        If an option is not as described.
    Exception
        With `on_fail="raise"`, that of the first check that fails unexpectedly.

    See Also
    --------
    check_segmenter : The same for segmenters.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.base import BaseEstimator
    >>> from skmars.utils.estimator_checks import check_sampler
    >>> class Twice(BaseEstimator):
    ...     def fit_resample(self, X, y):
    ...         return np.concatenate([X, X]), np.concatenate([y, y])
    >>> results = check_sampler(Twice(), on_fail=None, on_skip=None)
    >>> failed = [result["check_name"] for result in results if result["status"] == "failed"]
    >>> "check_samplers_sample_indices" in failed, "check_samplers_labels" in failed
    (True, False)
    """
    _refuse_class(estimator)
    if not is_sampler(estimator):
        raise TypeError(f"{type(estimator).__name__} has no fit_resample: use check_segmenter")
    return _check(estimator, expected_failed_checks, on_skip, on_fail, callback)


def estimator_checks_generator(estimator) -> Iterator[tuple[Any, Callable]]:
    """Go through the checks of a segmenter or a sampler without running them.

    Parameters
    ----------
    estimator : estimator
        A sampler if it has `fit_resample`, otherwise a segmenter.

    Yields
    ------
    estimator : estimator
        The one given.
    check : callable
        Takes it, and raises an error if it fails.

    Raises
    ------
    TypeError
        If the estimator is a class.

    Examples
    --------
    >>> from skmars import MarsSegmenter
    >>> from skmars.utils.estimator_checks import estimator_checks_generator
    >>> checks = [check for _, check in estimator_checks_generator(MarsSegmenter())]
    >>> checks[0].func.__name__
    'check_estimator_cloneable'
    """
    _refuse_class(estimator)
    for check in select_checks(estimator):
        yield estimator, partial(check, type(estimator).__name__)


def parametrize_with_checks(
    estimators: Iterable,
    *,
    expected_failed_checks: Callable[[Any], dict[str, str]] | None = None,
    xfail_strict: bool | None = None,
):
    """Make one pytest test of each check of some segmenters and samplers.

    Parameters
    ----------
    estimators : iterable of estimators
        Segmenters and samplers, mixed as you like.
    expected_failed_checks : callable or None, default=None
        Function of an estimator that returns a dict of the checks that are expected to fail and
        why. Their tests are marked as xfail.
    xfail_strict : bool or None, default=None
        Whether it is a failure if they pass; None leaves it to pytest's settings.

    Returns
    -------
    decorator : pytest.MarkDecorator
        Of a test with the arguments `estimator` and `check`.

    Raises
    ------
    TypeError
        If one of the estimators is a class.

    Examples
    --------
    >>> from skmars import MarsSegmenter
    >>> from skmars.utils.estimator_checks import parametrize_with_checks
    >>> @parametrize_with_checks([MarsSegmenter(depth=2, base_channels=4, max_epochs=2)])
    ... def test_contract(estimator, check):
    ...     check(estimator)
    """
    import pytest

    cases = []
    for estimator in estimators:
        expected = expected_failed_checks(estimator) if expected_failed_checks else {}
        for case in estimator_checks_generator(estimator):
            reason = expected.get(_check_name(case[1]))
            if reason is None:
                cases.append(pytest.param(*case))
            elif xfail_strict is None:
                cases.append(pytest.param(*case, marks=pytest.mark.xfail(reason=reason)))
            else:
                mark = pytest.mark.xfail(reason=reason, strict=xfail_strict)
                cases.append(pytest.param(*case, marks=mark))
    return pytest.mark.parametrize(("estimator", "check"), cases, ids=_name_case)


def _check(estimator, expected_failed_checks, on_skip, on_fail, callback):
    if on_skip not in ("warn", None):
        raise ValueError(f"on_skip must be 'warn' or None, got {on_skip!r}")
    if on_fail not in ("raise", "warn", None):
        raise ValueError(f"on_fail must be 'raise', 'warn' or None, got {on_fail!r}")
    if on_fail == "raise" and callback is not None:
        raise ValueError("callback cannot be used with on_fail='raise'")
    expected = expected_failed_checks or {}
    name = type(estimator).__name__
    results = []
    for _, check in estimator_checks_generator(estimator):
        check_name = _check_name(check)
        exception: Exception | None = None
        status = "passed"
        try:
            check(estimator)
        except SkipTest as error:
            exception, status = error, "skipped"
            if on_skip == "warn":
                warnings.warn(
                    f"{check_name} of {name} was skipped: {error}", SkipTestWarning, stacklevel=3
                )
        except Exception as error:
            if check_name not in expected and on_fail == "raise":
                raise
            exception, status = error, "xfail" if check_name in expected else "failed"
            if status == "failed" and on_fail == "warn":
                message = f"{check_name} of {name} failed: {type(error).__name__}: {error}"
                warnings.warn(message, UserWarning, stacklevel=3)
        result = {
            "estimator": estimator,
            "check_name": check_name,
            "exception": exception,
            "status": status,
            "expected_to_fail": check_name in expected,
            "expected_to_fail_reason": expected.get(check_name, ""),
        }
        results.append(result)
        if callback is not None:
            callback(**result)
    return results


def _check_name(check: Callable) -> str:
    return check.func.__name__ if isinstance(check, partial) else check.__name__


def _name_case(value) -> str:
    if isinstance(value, partial):
        return _check_name(value)
    with sklearn.config_context(print_changed_only=True):
        return re.sub(r"\s", "", repr(value))


def _refuse_class(estimator) -> None:
    if isinstance(estimator, type):
        raise TypeError(f"pass an instance of {estimator.__name__}, not the class")
