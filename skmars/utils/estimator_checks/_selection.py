"""Which checks an estimator has to pass."""

from collections.abc import Callable, Iterator

from sklearn.utils import estimator_checks as scikit_learn
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter

from skmars.utils.estimator_checks import (
    _fit_state,
    _formats,
    _input,
    _parameters,
    _prediction,
    _samplers,
    _weights,
)
from skmars.utils.estimator_checks._tools import has_parameter, is_sampler

__all__ = ["CALLED", "own_checks", "select_checks"]

# Those of scikit-learn that look at no data, or at none that matters, in the order they run.
CALLED = (
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_param_validation",
    "check_outlier_contamination",
)

# Those that only some estimators can pass, and how they are known.
CONDITIONS: dict[str, Callable[..., bool]] = {
    "check_param_validation": lambda est: _has_constraints(est) and not is_sampler(est),
    "check_samplers_param_validation": lambda est: _has_constraints(est) and is_sampler(est),
    "check_outlier_contamination": lambda est: "contamination" in est.get_params(deep=False),
    "check_outliers_fit_predict": lambda est: hasattr(est, "fit_predict"),
    # A pipeline of samplers knows no rows and cannot be a step of another.
    "check_samplers_in_pipeline": lambda est: not hasattr(est, "steps"),
    "check_samplers_keep_originals": lambda est: not hasattr(est, "steps"),
    "check_samplers_sample_indices": lambda est: not hasattr(est, "steps"),
    "check_estimators_nan_inf": lambda est: not get_tags(est).input_tags.allow_nan,
    "check_estimators_partial_fit_n_channels": lambda est: hasattr(est, "partial_fit"),
    "check_predict_proba": lambda est: hasattr(est, "predict_proba"),
    "check_ignore_label": lambda est: "ignore_label" in est.get_params(deep=False),
    "check_class_weight_segmenters": lambda est: "class_weight" in est.get_params(deep=False),
    "check_score_sample_weight": lambda est: (
        hasattr(est, "score") and has_parameter(_last_step(est).score, "sample_weight")
    ),
    **{
        name: lambda est: has_fit_parameter(est, "sample_weight")
        for name in _weights.__all__
        if name != "check_class_weight_segmenters"
    },
}

# Theirs, and those of which samplers have variants of their own.
FOR_SEGMENTERS = {
    *_prediction.__all__,
    *_weights.__all__,
    "check_dict_unchanged",
    "check_estimators_unfitted",
    "check_fit_images_predict_one_image",
    "check_n_channels_in_after_fitting",
    "check_param_validation",
    "check_predict_5d",
}
FOR_SAMPLERS = {
    *_samplers.__all__,
    "check_outlier_contamination",
    "check_samplers_param_validation",
}
MODULES = (_parameters, _formats, _input, _fit_state, _prediction, _weights, _samplers)


def own_checks() -> dict[str, Callable]:
    """All checks of this package by their names, in the order in which they run."""
    return {name: getattr(module, name) for module in MODULES for name in module.__all__}


def select_checks(estimator) -> Iterator[Callable]:
    """Checks of scikit-learn and of this package that an estimator has to pass.

    Parameters
    ----------
    estimator : estimator
        A sampler if it has `fit_resample`, otherwise a segmenter.

    Yields
    ------
    check : callable
        Takes the name of the estimator and the estimator.
    """
    # Older versions of scikit-learn lack some.
    called = {name: getattr(scikit_learn, name) for name in CALLED if hasattr(scikit_learn, name)}
    others = FOR_SEGMENTERS if is_sampler(estimator) else FOR_SAMPLERS
    for name, check in {**called, **own_checks()}.items():
        if name not in others and CONDITIONS.get(name, lambda est: True)(estimator):
            yield check


def _has_constraints(estimator) -> bool:
    return hasattr(estimator, "_parameter_constraints")


def _last_step(estimator):
    # The score of a pipeline names weights even if that of its last step does not.
    steps = getattr(estimator, "steps", None)
    return steps[-1][1] if steps else estimator
