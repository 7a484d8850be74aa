"""What to search: distributions of parameters, and the space of what the report tried."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial
from sklearn.base import BaseEstimator, clone

from skmars.augmentation import Augmenter, choose_augmenter
from skmars.nn import BLOCKS, SKIPS
from skmars.outliers import OutlierRemover
from skmars.segmenter import MarsSegmenter
from skmars.tuning.naming import kept_choices, stays_as_it_is, value_of

__all__ = [
    "DefaultSpace",
    "Space",
    "check_choices",
    "copy_with",
    "default_space",
    "find_steps",
    "suggest_params",
]


Space = Mapping[str, BaseDistribution] | Callable[[BaseTrial], dict[str, Any]]


def suggest_params(trial: BaseTrial, space: Space) -> dict[str, Any]:
    """Let a trial choose parameters out of a space.

    Parameters
    ----------
    trial : optuna.Trial
        Of any study; also an `optuna.trial.FixedTrial`.
    space : dict of str to optuna distribution, or callable
        Names are those of `set_params`, so that `segment__learning_rate` reaches into a
        Pipeline. A callable gets the trial and returns a dict of parameters; it may ask for one
        parameter only if another has a certain value. A study keeps choices of a dict that are no
        plain values, such as tuples and losses, by a text; those of a callable need names of its
        own.

    Returns
    -------
    params : dict
        For `estimator.set_params(**params)`.

    Raises
    ------
    TypeError
        If the space is neither, or its callable does not return a dict.

    Examples
    --------
    >>> from optuna.distributions import FloatDistribution
    >>> from optuna.trial import FixedTrial
    >>> from skmars.tuning import suggest_params
    >>> space = {"segment__learning_rate": FloatDistribution(1e-4, 1e-2, log=True)}
    >>> suggest_params(FixedTrial({"segment__learning_rate": 0.001}), space)
    {'segment__learning_rate': 0.001}
    """
    if callable(space):
        params = space(trial)
        if not isinstance(params, dict):
            raise TypeError(f"a space must return a dict of parameters, got {params!r}")
        return params
    if not isinstance(space, Mapping):
        raise TypeError(f"space must be a dict of distributions or a callable, got {space!r}")
    return {name: _suggest(trial, name, how) for name, how in space.items()}


def _suggest(trial: BaseTrial, name: str, how: BaseDistribution) -> Any:
    if isinstance(how, FloatDistribution):
        return trial.suggest_float(name, how.low, how.high, step=how.step, log=how.log)
    if isinstance(how, IntDistribution):
        return trial.suggest_int(name, how.low, how.high, step=how.step, log=how.log)
    if isinstance(how, CategoricalDistribution):
        return value_of(how, trial.suggest_categorical(name, kept_choices(how.choices)))
    raise TypeError(f"the space's {name!r} must be an Optuna distribution, got {how!r}")


def names_by_text(space: Space) -> list[str]:
    """Names of parameters whose choices a study keeps as texts."""
    if not isinstance(space, Mapping):
        return []
    choices = {name: getattr(how, "choices", ()) for name, how in space.items()}
    return [name for name, own in choices.items() if any(map(_is_by_text, own, kept_choices(own)))]


def _is_by_text(choice: Any, kept: Any) -> bool:
    return isinstance(kept, str) and not isinstance(choice, str)


def check_choices(trial: BaseTrial) -> None:
    """Refuse choices that a study cannot keep, which the function of a space has asked for.

    Raises
    ------
    ValueError
        If one is not None, a number, a text, or a list or dict of these. A dict of distributions
        asks for none: there the others go by a text.
    """
    for name, how in trial.distributions.items():
        others = [choice for choice in getattr(how, "choices", ()) if not stays_as_it_is(choice)]
        if others:
            raise ValueError(
                f"space asks for {name!r} with the choice {others[0]!r}, which a study cannot "
                "keep; give each choice a name, as in "
                f'{{"small": (1, 2)}}[trial.suggest_categorical({name!r}, ["small"])]'
            )


def copy_with(estimator: BaseEstimator, params: Mapping[str, Any]) -> BaseEstimator:
    """Clone an estimator and set parameters to copies: choices stay as they are in the space."""
    copies = {name: clone(value, safe=False) for name, value in params.items()}
    return clone(estimator).set_params(**copies)


def default_space(
    estimator: BaseEstimator | None = None, *, fixed: Iterable[str] = ()
) -> "DefaultSpace":
    """Space of what the student report tried, and of random windows and CutMix.

    Depth, blocks, skips, attention and ASPP; dropout; loss with its parameters and class
    weights; learning rate, its schedule and weight decay; the second phase with a part of the net
    frozen; augmentation; and, in a Pipeline with an `OutlierRemover`, the removal of outliers.
    What has a meaning only beside another choice, such as focal's gamma, is asked only then.

    Parameters
    ----------
    estimator : MarsSegmenter or Pipeline, default=None
        What is to be searched; its names are used. By default those of a MarsSegmenter alone.
    fixed : iterable of str, default=()
        Names of parameters, as `get_params` has them, that stay as they are in the estimator.

    Returns
    -------
    space : callable
        For `suggest_params` and `SegmenterSearchCV`; pickles.

    Raises
    ------
    ValueError
        If there is no MarsSegmenter in the estimator, no parameter of a name in `fixed`, or if
        that is the segmenter itself.

    Examples
    --------
    >>> from optuna import create_study
    >>> from skmars import make_pipeline
    >>> from skmars.tuning import default_space, suggest_params
    >>> params = suggest_params(create_study().ask(), default_space(make_pipeline()))
    >>> "segment__depth" in params
    True
    """
    estimator = MarsSegmenter() if estimator is None else estimator
    fixed = list(fixed)
    params = estimator.get_params()
    unknown = sorted(set(fixed) - set(params))
    if unknown:
        raise ValueError(f"fixed names {unknown}, which are no parameters of {estimator!r}")
    steps = list(find_steps(estimator))
    segmenters = [pair for pair in steps if isinstance(pair[1], MarsSegmenter)]
    if not segmenters:
        raise ValueError(f"there is no default space for {estimator!r}: give one of your own")
    prefix, segmenter = segmenters[0]
    if whole := [name for name in fixed if f"{prefix}__".startswith(f"{name}__")]:
        raise ValueError(f"fixed names {whole}, of which parameters are searched: name those")
    return DefaultSpace(
        segmenter=prefix,
        removers=tuple(name for name, step in steps if isinstance(step, OutlierRemover)),
        augmenter=clone(choose_augmenter(segmenter.augmentation) or Augmenter()),
        fixed={name: params[name] for name in fixed},
    )


def find_steps(estimator, prefix: str = ""):
    """Names of `set_params` and estimators: the estimator, and the steps of Pipelines within."""
    yield prefix, estimator
    for name, step in getattr(estimator, "steps", ()):
        if hasattr(step, "get_params"):
            yield from find_steps(step, f"{prefix}__{name}" if prefix else name)


@dataclass(frozen=True)
class DefaultSpace:
    """The space of `default_space`, for a segmenter and removers of these names."""

    segmenter: str
    removers: tuple[str, ...]
    augmenter: Augmenter
    fixed: Mapping[str, Any]

    def __call__(self, trial: BaseTrial) -> dict[str, Any]:
        """Let a trial choose."""
        prefix = f"{self.segmenter}__" if self.segmenter else ""
        choose = _Chooser(trial, prefix, self.fixed)
        _choose_net(choose)
        _choose_loss(choose)
        _choose_training(choose)
        _choose_augmentation(choose, self.augmenter)
        for name in self.removers:
            if name not in self.fixed and f"{name}__method" not in self.fixed:
                _choose_remover(_Chooser(trial, "", self.fixed, choose.params), name)
        return choose.params


class _Chooser:
    """Ask a trial for parameters of one step, and collect the answers."""

    def __init__(
        self,
        trial: BaseTrial,
        prefix: str,
        fixed: Mapping[str, Any],
        params: dict[str, Any] | None = None,
    ):
        self.trial = trial
        self.prefix = prefix
        self.fixed = fixed
        self.params: dict[str, Any] = {} if params is None else params

    def has(self, name: str) -> bool:
        """Whether a parameter is fixed."""
        return self.prefix + name in self.fixed

    def fixed_value(self, name: str) -> Any:
        """Value of a parameter that is fixed; None for others."""
        return self.fixed.get(self.prefix + name)

    def set(self, name: str, value: Any) -> None:
        """Set a parameter that is not fixed."""
        if not self.has(name):
            self.params[self.prefix + name] = value

    def one_of(self, name: str, *choices) -> Any:
        """Choose one of some values."""
        if self.has(name):
            return self.fixed[self.prefix + name]
        value = self.trial.suggest_categorical(self.prefix + name, choices)
        self.set(name, value)
        return value

    def number(self, name: str, low: float, high: float, *, log: bool = False) -> None:
        """Choose a number."""
        if not self.has(name):
            self.set(name, self.trial.suggest_float(self.prefix + name, low, high, log=log))

    def hidden_number(self, name: str, low: float, high: float) -> float:
        """Ask for what is no parameter by itself, but goes into one."""
        return self.trial.suggest_float(self.prefix + name, low, high)


def _choose_net(choose: _Chooser) -> None:
    choose.one_of("depth", 2, 3, 4)
    choose.one_of("block", *BLOCKS)
    choose.one_of("skip", *SKIPS)
    choose.one_of("attention", True, False)
    choose.one_of("aspp", True, False)
    choose.number("dropout", 0.0, 0.5)


def _choose_loss(choose: _Chooser) -> None:
    # Parameters that are fixed belong to the loss that there is.
    if not choose.fixed_value("loss_params"):
        losses = ("cross_entropy", "focal", "dice", "focal+dice", "focal+boundary")
        loss = choose.one_of("loss", *losses)
        if callable(loss):
            return
        if not choose.has("loss_params"):
            _choose_loss_params(choose, [term.strip() for term in loss.split("+")])
    if choose.one_of("class_weight", None, "balanced", "sqrt") is not None:
        choose.number("max_class_weight", 1.5, 20.0, log=True)


def _choose_loss_params(choose: _Chooser, terms: list[str]) -> None:
    params = {}
    if "focal" in terms:
        params["gamma"] = choose.hidden_number("loss_params.gamma", 0.5, 4.0)
    for term in terms[1:]:
        name = f"{term}_weight"
        params[name] = choose.hidden_number(f"loss_params.{name}", 0.1, 2.0)
    choose.set("loss_params", params or None)


def _choose_training(choose: _Chooser) -> None:
    choose.number("learning_rate", 3e-4, 1e-2, log=True)
    choose.number("weight_decay", 1e-4, 1e-1, log=True)
    if not choose.fixed_value("scheduler_params"):
        choose.one_of("scheduler", "cosine", "plateau")
        if not choose.has("scheduler"):
            # The estimator's own are those of its own schedule.
            choose.set("scheduler_params", None)
    if choose.one_of("freeze", None, "encoder", "encoder+bottleneck") is not None:
        choose.number("fine_tune_learning_rate", 3e-5, 1e-3, log=True)


def _choose_augmentation(choose: _Chooser, augmenter: Augmenter) -> None:
    if choose.has("augmentation"):
        return
    if not choose.trial.suggest_categorical(choose.prefix + "augmentation", (True, False)):
        choose.set("augmentation", None)
        return
    choose.set("augmentation", clone(augmenter))
    choose.one_of("augmentation__horizontal_flip", True, False)
    choose.one_of("augmentation__vertical_flip", True, False)
    choose.number("augmentation__brightness", 0.0, 0.5)
    choose.number("augmentation__contrast", 0.0, 0.5)
    choose.number("augmentation__crop_scale", 0.5, 1.0)
    choose.number("augmentation__random_crop", 0.5, 1.0)
    choose.number("augmentation__paste_rare_class", 0.0, 0.5)
    choose.number("augmentation__cutmix", 0.0, 1.0)


def _choose_remover(choose: _Chooser, name: str) -> None:
    methods = ("none", "repeated_mask", "appearance", "auto")
    method = choose.trial.suggest_categorical(f"{name}__method", methods)
    if method == "none":
        choose.set(name, "passthrough")
    else:
        choose.set(f"{name}__method", method)
