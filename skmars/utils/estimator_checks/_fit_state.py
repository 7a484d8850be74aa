"""Checks of what fitting leaves behind, in the estimator and around it."""

import contextlib
import copy
import io
import os
import pickle
import random
import sys
import tempfile
import warnings

import joblib
import numpy as np
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state, get_tags
from sklearn.utils.validation import check_is_fitted

from skmars._fitted import fitted_attribute
from skmars.utils.estimator_checks._tools import (
    assert_same,
    assert_same_fits,
    call,
    data_methods,
    fit_methods,
    fitted,
    is_sampler,
    make_images,
    outputs,
    partial_fit,
    prepare,
    refused,
    run,
)

__all__ = [
    "check_clone_of_fitted",
    "check_deepcopy",
    "check_dict_unchanged",
    "check_estimators_fit_returns_self",
    "check_estimators_partial_fit_n_channels",
    "check_estimators_pickle",
    "check_estimators_unfitted",
    "check_fit_check_is_fitted",
    "check_fit_forgets_earlier_fit",
    "check_fit_idempotent",
    "check_fit_prints_nothing",
    "check_global_random_state",
    "check_global_settings",
    "check_n_channels_in",
    "check_n_channels_in_after_fitting",
    "check_non_transformer_estimators_n_iter",
    "check_random_state_instance",
    "check_random_state_int",
]


def check_estimators_fit_returns_self(name, estimator_orig):
    """Fitting returns the estimator itself."""
    X, y = make_images()
    for method in ("fit", "partial_fit"):
        if hasattr(estimator_orig, method):
            estimator = prepare(estimator_orig)
            returned = call(estimator, method, X, y)
            if returned is not estimator:
                raise AssertionError(f"{name}.{method} must return self, got {returned!r}")


def check_estimators_unfitted(name, estimator_orig):
    """Before fit, every method that needs it raises `NotFittedError`."""
    X, _ = make_images()
    for method, function in data_methods(prepare(estimator_orig)).items():
        with refused(f"{name}.{method} must say before fit that it needs it", (NotFittedError,)):
            function(X)


def check_fit_check_is_fitted(name, estimator_orig):
    """`check_is_fitted` knows whether an estimator has been fitted."""
    X, y = make_images()
    if not get_tags(estimator_orig).requires_fit:
        return
    estimator = prepare(estimator_orig)
    message = f"check_is_fitted must tell that {name} has not been fitted"
    with refused(message, (NotFittedError,)):
        check_is_fitted(estimator)
    estimator.fit(X, y)
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise AssertionError(f"check_is_fitted must tell that {name} has been fitted") from error


def check_dict_unchanged(name, estimator_orig):
    """Predicting changes no attribute."""
    X, y = make_images()
    estimator = fitted(estimator_orig, X, y)
    for method, function in data_methods(estimator).items():
        before = dict(vars(estimator))
        arrays = {key: value.copy() for key, value in before.items() if _is_array(value)}
        function(X)
        after = vars(estimator)
        changed = set(after) ^ set(before)
        changed |= {key for key in before if key in after and after[key] is not before[key]}
        changed |= {key for key in arrays if not np.array_equal(arrays[key], after[key])}
        if changed:
            raise AssertionError(
                f"{name}.{method} must change no attribute, it changes {sorted(changed)}"
            )


def check_fit_idempotent(name, estimator_orig):
    """Fitting a second time to the same images gives the same as the first time."""
    X, y = make_images()
    estimator = _prepare_cold(estimator_orig)
    estimator.fit(X, y)
    expected = outputs(estimator, X, y)
    estimator.fit(X, y)
    message = f"a second fit of {name} to the same images must give the same as the first"
    assert_same_fits(estimator_orig, outputs(estimator, X, y), expected, message)


def check_fit_forgets_earlier_fit(name, estimator_orig):
    """Nothing of an earlier fit, to other images and labels, is left after a fit."""
    X, y = make_images()
    other = make_images(9, (12, 18), labels=[2, 4, 300], n_channels=3, random_state=1)
    estimator = _prepare_cold(estimator_orig)
    estimator.fit(*other)
    outputs(estimator, *other)
    estimator.fit(X, y)
    expected = run(estimator_orig, X, y)
    message = f"{name} must forget an earlier fit to other images when it is fitted anew"
    assert_same_fits(estimator_orig, outputs(estimator, X, y), expected, message)


def check_clone_of_fitted(name, estimator_orig):
    """A clone of a fitted estimator has its parameters and has not been fitted."""
    X, y = make_images()
    estimator = fitted(estimator_orig, X, y)
    outputs(estimator, X, y)
    copied = clone(estimator)
    left = set(vars(copied)) - set(vars(clone(estimator_orig)))
    if left:
        raise AssertionError(f"a clone of a fitted {name} must be new, it has {sorted(left)}")
    if joblib.hash(_plain(copied)) != joblib.hash(_plain(estimator)):
        raise AssertionError(f"a clone of a fitted {name} must have the same parameters")


def check_deepcopy(name, estimator_orig):
    """A deep copy of a fitted estimator does the same as the original."""
    X, y = make_images()
    estimator = fitted(estimator_orig, X, y)
    copied = copy.deepcopy(estimator)
    message = f"a deep copy of a fitted {name} must do the same as the original"
    _assert_same_copy(copied, estimator, X, y, message)


def check_estimators_pickle(name, estimator_orig):
    """A fitted estimator that was pickled, or memory-mapped by joblib, does the same."""
    X, y = make_images()
    estimator = fitted(estimator_orig, X, y)
    restored = pickle.loads(pickle.dumps(estimator))
    message = f"a fitted {name} must do the same after a round trip through pickle"
    _assert_same_copy(restored, estimator, X, y, message)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = os.path.join(folder, "estimator.joblib")
        joblib.dump(estimator, path)
        mapped = joblib.load(path, mmap_mode="r")
        message = f"a fitted {name} must do the same from a read-only memory map of joblib"
        _assert_same_copy(mapped, estimator, X, y, message)
        del mapped


def check_n_channels_in(name, estimator_orig):
    """`n_channels_in_` is there after fit, not before, and says how many channels there were."""
    estimator = prepare(estimator_orig)
    if hasattr(estimator, "n_channels_in_"):
        raise AssertionError(f"{name} must have n_channels_in_ only after fit")
    for n_channels in (None, 1, 3):
        fresh = fitted(estimator_orig, *make_images(n_channels=n_channels))
        actual = fitted_attribute(fresh, "n_channels_in_")
        if actual != (n_channels or 1):
            raise AssertionError(
                f"{name}.n_channels_in_ must be {n_channels or 1} after a fit to such images, "
                f"got {actual}"
            )


def check_n_channels_in_after_fitting(name, estimator_orig):
    """Images of another number of channels than in fit are refused in predicting."""
    for n_channels, others in ((None, (2, 3)), (3, (None, 1, 2, 4))):
        estimator = fitted(estimator_orig, *make_images(n_channels=n_channels))
        for other in others:
            X, _ = make_images(n_channels=other)
            for method, function in data_methods(estimator).items():
                message = (
                    f"{name}.{method} must refuse images of {other or 1} channels after a fit "
                    f"to images of {n_channels or 1}"
                )
                with refused(message, (ValueError,)):
                    function(X)


def check_estimators_partial_fit_n_channels(name, estimator_orig):
    """`partial_fit` refuses images of another number of channels than before."""
    estimator = prepare(estimator_orig)
    partial_fit(estimator, *make_images())
    with refused(f"{name}.partial_fit must refuse another number of channels", (ValueError,)):
        partial_fit(estimator, *make_images(n_channels=3))


def check_non_transformer_estimators_n_iter(name, estimator_orig):
    """Where epochs or iterations can be set, `n_iter_` tells how many there were."""
    parameters = estimator_orig.get_params(deep=False)
    if not {"max_iter", "max_epochs"} & set(parameters):
        return
    n_iter = getattr(fitted(estimator_orig, *make_images()), "n_iter_", None)
    if n_iter is None or not np.all(np.asarray(n_iter) >= 1):
        raise AssertionError(f"{name}.n_iter_ must be at least 1 after fit, got {n_iter}")


def check_random_state_int(name, estimator_orig):
    """With integer random states, two clones do the same, whatever the global ones are."""
    X, y = make_images()
    results = []
    for seed in (1, 2):
        with _global_random_states_seeded(seed):
            results.append(run(estimator_orig, X, y))
    message = f"two clones of {name} with the same integer random_state must do the same"
    assert_same_fits(estimator_orig, results[1], results[0], message)


def check_random_state_instance(name, estimator_orig):
    """`random_state` takes None and a `RandomState`, which gives the same as its equal."""
    parameters = prepare(estimator_orig).get_params(deep=True)
    states = [key for key in parameters if key.rsplit("__", 1)[-1] == "random_state"]
    X, y = make_images()
    results = []
    for _ in range(2):
        instances = {key: np.random.RandomState(3) for key in states}
        try:
            estimator = prepare(estimator_orig).set_params(**instances)
            if not is_sampler(estimator):
                estimator.fit(X, y)
            results.append(outputs(estimator, X, y))
        except Exception as error:
            raise AssertionError(
                f"{name} must take a RandomState as random_state; it raised "
                f"{type(error).__name__}: {error}"
            ) from error
    message = f"{name} with equal RandomState instances must do the same"
    assert_same_fits(estimator_orig, results[1], results[0], message)
    prepare(estimator_orig).set_params(**dict.fromkeys(states)).fit(X, y)


def check_global_random_state(name, estimator_orig):
    """Global random states, of numpy, Python and torch, are neither drawn from nor seeded."""
    X, y = make_images()
    # Of a state that no estimator seeds, so that seeding is noticed each time.
    with _global_random_states_seeded(987_654_321):
        for method in fit_methods(estimator_orig):
            estimator = prepare(estimator_orig)
            before = _global_random_states()
            call(estimator, method, X, y)
            _assert_same_states(f"{name}.{method}", before)
        if not is_sampler(estimator_orig):
            estimator = fitted(estimator_orig, X, y)
            for method, function in data_methods(estimator).items():
                before = _global_random_states()
                function(X)
                _assert_same_states(f"{name}.{method}", before)


def check_global_settings(name, estimator_orig):
    """Settings of numpy, scikit-learn, torch and the process stay as the caller has them."""
    X, y = make_images()
    # Unusual values, so that a constant set by the estimator is noticed each time.
    with (
        np.errstate(under="warn", over="ignore"),
        np.printoptions(precision=3),
        sklearn.config_context(working_memory=321),
    ):
        before = _settings()
        run(estimator_orig, X, y)
        after = _settings()
    changed = [key for key in before if before[key] != after[key]]
    if changed:
        raise AssertionError(f"{name} must leave global settings alone, it changes {changed}")


def check_fit_prints_nothing(name, estimator_orig):
    """Unless it is asked to by `verbose`, an estimator prints nothing; it may warn."""
    parameters = estimator_orig.get_params(deep=True)
    silent = {key: False for key in parameters if key.rsplit("__", 1)[-1] == "verbose"}
    estimator = prepare(estimator_orig, **silent)
    X, y = make_images()
    stream = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
    ):
        warnings.simplefilter("ignore")  # warnings go to stderr too
        estimator.fit(X, y)
        outputs(estimator, X, y)
    if stream.getvalue():
        raise AssertionError(f"{name} must be silent by default, it printed {stream.getvalue()!r}")


def _assert_same_copy(copied, estimator, X, y, message):
    actual, expected = outputs(copied, X, y), outputs(estimator, X, y)
    if is_sampler(estimator):  # it resamples anew
        assert_same_fits(estimator, actual, expected, message)
    else:
        assert_same(actual, expected, message)


def _prepare_cold(estimator_orig):
    parameters = estimator_orig.get_params(deep=True)
    warm = {key: False for key in parameters if key.rsplit("__", 1)[-1] == "warm_start"}
    return prepare(estimator_orig, **warm)


def _plain(estimator):
    """Parameters without estimators, whose own parameters are there as well."""
    parameters = estimator.get_params(deep=True)
    return {key: value for key, value in parameters.items() if not _holds_estimators(value)}


def _holds_estimators(value):
    if isinstance(value, list | tuple):
        return any(_holds_estimators(item) for item in value)
    return hasattr(value, "get_params")


def _is_array(value):
    return isinstance(value, np.ndarray)


@contextlib.contextmanager
def _global_random_states_seeded(seed):
    of_numpy, torch = check_random_state(None), sys.modules.get("torch")
    kept = of_numpy.get_state(), random.getstate(), torch and torch.random.get_rng_state()
    try:
        of_numpy.seed(seed)
        random.seed(seed)
        if torch:
            torch.manual_seed(seed)
        yield
    finally:
        of_numpy.set_state(kept[0])
        random.setstate(kept[1])
        if torch:
            torch.random.set_rng_state(kept[2])


def _global_random_states():
    torch = sys.modules.get("torch")
    return {
        "numpy": pickle.dumps(check_random_state(None).get_state()),
        "Python": random.getstate(),
        "torch": torch and torch.random.get_rng_state().numpy().tobytes(),
    }


def _assert_same_states(method, before):
    after = _global_random_states()
    changed = [key for key in before if before[key] != after[key]]
    if changed:
        raise AssertionError(
            f"{method} must leave global random states alone, it changes that of "
            f"{', '.join(changed)}"
        )


def _settings():
    settings = {
        "numpy.geterr": np.geterr(),
        "numpy.get_printoptions": repr(np.get_printoptions()),
        "sklearn.get_config": sklearn.get_config(),
        "the working directory": os.getcwd(),
    }
    torch = sys.modules.get("torch")
    if torch:
        settings["torch.get_num_threads"] = torch.get_num_threads()
        settings["torch.get_default_dtype"] = torch.get_default_dtype()
        settings["torch.is_grad_enabled"] = torch.is_grad_enabled()
        settings["torch.are_deterministic_algorithms_enabled"] = (
            torch.are_deterministic_algorithms_enabled()
        )
    return settings
