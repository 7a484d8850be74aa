"""Checks of the constructor, its parameters and the tags."""

import inspect
from copy import deepcopy

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.utils import get_tags

from skmars.utils.estimator_checks._tools import (
    call,
    fit_methods,
    is_sampler,
    make_images,
    prepare,
    refused,
)

__all__ = [
    "check_constructor_signature",
    "check_constructor_stores_parameters",
    "check_dont_overwrite_parameters",
    "check_estimators_overwrite_params",
    "check_fit_score_takes_y",
    "check_image_tags",
    "check_images_not_changed",
    "check_samplers_param_validation",
    "check_set_params_refuses_unknown",
]


def check_constructor_signature(name, estimator_orig):
    """The constructor names each of its parameters: no `*args`, no `**kwargs`."""
    Estimator = type(estimator_orig)
    for parameter in inspect.signature(Estimator).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise AssertionError(
                f"the constructor of {name} must name all its parameters, so that they can be "
                f"read, set and cloned; it takes {parameter}"
            )
    stored = set(estimator_orig.get_params(deep=False))
    named = set(inspect.signature(Estimator).parameters)
    if stored != named:
        raise AssertionError(
            f"get_params of {name} must return what its constructor takes; "
            f"they differ in {sorted(stored ^ named)}"
        )


def check_constructor_stores_parameters(name, estimator_orig):
    """The constructor stores whatever it is given, neither checked nor copied."""
    Estimator = type(estimator_orig)
    values = {parameter: object() for parameter in inspect.signature(Estimator).parameters}
    try:
        estimator = Estimator(**values)
    except Exception as error:
        raise AssertionError(
            f"the constructor of {name} must store parameters as they are and leave their check "
            f"to fit; it raised {type(error).__name__}: {error}"
        ) from error
    for parameter, value in values.items():
        if getattr(estimator, parameter, None) is not value:
            raise AssertionError(
                f"the constructor of {name} must store {parameter} as it is, neither changed "
                "nor copied"
            )


def check_set_params_refuses_unknown(name, estimator_orig):
    """Constructor and `set_params` refuse parameters that do not exist."""
    estimator = clone(estimator_orig)
    with refused(f"{name}.set_params must refuse an unknown parameter", (ValueError,)):
        estimator.set_params(unheard_of=1)
    with refused(f"the constructor of {name} must refuse an unknown parameter", (TypeError,)):
        type(estimator)(**{**estimator.get_params(deep=False), "unheard_of": 1})


def check_estimators_overwrite_params(name, estimator_orig):
    """Fitting changes no parameter, nor what is in it."""
    X, y = make_images()
    for method in fit_methods(estimator_orig):
        estimator = prepare(estimator_orig)
        before = deepcopy(estimator.get_params(deep=False))
        values = estimator.get_params(deep=False)
        call(estimator, method, X, y)
        for parameter, value in estimator.get_params(deep=False).items():
            # Fitting the steps of a pipeline is what a pipeline is for.
            if parameter == "steps":
                continue
            if value is not values[parameter] or joblib.hash(value) != joblib.hash(
                before[parameter]
            ):
                raise AssertionError(
                    f"{name}.{method} must not change the parameter {parameter}; "
                    f"it was {before[parameter]!r} and is {value!r}"
                )


def check_dont_overwrite_parameters(name, estimator_orig):
    """Fitting adds only attributes whose name begins or ends with an underscore."""
    X, y = make_images()
    estimator = prepare(estimator_orig)
    before = dict(vars(estimator))
    estimator.fit(X, y)
    added = [
        attribute
        for attribute in vars(estimator)
        if attribute not in before and not attribute.startswith("_")
    ]
    wrong = [attribute for attribute in added if not attribute.endswith("_")]
    if wrong:
        raise AssertionError(
            f"{name}.fit adds {wrong}; public attributes that fit adds must end with an underscore"
        )


def check_images_not_changed(name, estimator_orig):
    """Neither fitting nor predicting writes into the images or the masks."""
    for dtype in (np.uint8, np.float32, np.float64):
        X, y = make_images()
        X = X.astype(dtype)
        images, masks = X.copy(), y.copy()
        for method in fit_methods(estimator_orig):
            call(prepare(estimator_orig), method, images, masks)
            _assert_untouched(f"{name}.{method}", images, X, masks, y)
        if not is_sampler(estimator_orig):
            estimator = prepare(estimator_orig).fit(X.copy(), y.copy())
            for method in ("predict", "predict_proba", "score"):
                if hasattr(estimator, method):
                    arguments = (images, masks) if method == "score" else (images,)
                    getattr(estimator, method)(*arguments)
                    _assert_untouched(f"{name}.{method}", images, X, masks, y)


def check_fit_score_takes_y(name, estimator_orig):
    """All methods that take masks take them as their second argument, called y."""
    X, y = make_images()
    estimator = prepare(estimator_orig).fit(X, y)
    methods = fit_methods(estimator)
    if hasattr(estimator, "score"):
        methods.append("score")
    elif not is_sampler(estimator):
        raise AssertionError(f"{name} must have score(X, y), which searches and splits use")
    for method in methods:
        parameters = inspect.signature(getattr(estimator, method)).parameters
        names = [parameter for parameter in parameters if parameter != "self"]
        if names[:2] != ["X", "y"]:
            raise AssertionError(
                f"{name}.{method} must take (X, y) as its first arguments, got {names}"
            )


def check_image_tags(name, estimator_orig):
    """The tags say that images are taken, no tables, and that a segmenter needs masks."""
    if hasattr(estimator_orig, "steps"):
        return  # scikit-learn itself writes those of a pipeline
    tags = get_tags(estimator_orig)
    if tags.input_tags.two_d_array or not tags.input_tags.three_d_array:
        raise AssertionError(
            f"the tags of {name} must have three_d_array=True and two_d_array=False: "
            f"got {tags.input_tags}"
        )
    if not is_sampler(estimator_orig) and not tags.target_tags.required:
        raise AssertionError(f"the tags of {name} must have target_tags.required=True")


def check_samplers_param_validation(name, estimator_orig):
    """A sampler with declared constraints holds `fit` and `fit_resample` to them."""
    constraints = estimator_orig._parameter_constraints
    parameters = estimator_orig.get_params(deep=False)
    if set(constraints) != set(parameters):
        raise AssertionError(
            f"_parameter_constraints and parameters of {name} must be of the same names; they "
            f"differ in {sorted(set(constraints) ^ set(parameters))}"
        )
    X, y = make_images()
    for parameter, constraint in constraints.items():
        if constraint == "no_validation":
            continue
        for method in fit_methods(estimator_orig):
            estimator = clone(estimator_orig).set_params(**{parameter: object()})
            message = f"{name}.{method} must refuse a wrong type of {parameter} by its name"
            with refused(message, match=parameter):
                getattr(estimator, method)(X, y)


def _assert_untouched(method, images, X, masks, y):
    if not np.array_equal(images, X):
        raise AssertionError(f"{method} must not write into the images")
    if not np.array_equal(masks, y):
        raise AssertionError(f"{method} must not write into the masks")
