"""What one trial does: parameters out of the space, fits over the folds, scores."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import optuna
from sklearn.base import BaseEstimator
from sklearn.metrics import check_scoring
from sklearn.model_selection import cross_validate

from skmars.metrics.scorers import SegmentationScorer, label_of
from skmars.training.plan import choose_epochs
from skmars.tuning.naming import name_of
from skmars.tuning.pruning import PruningCallback
from skmars.tuning.spaces import (
    Space,
    check_choices,
    copy_with,
    find_steps,
    names_by_text,
    suggest_params,
)

__all__ = ["BY_TEXT", "CHOSEN", "COSTS", "Evaluation", "Objective", "make_objectives"]

Scorer = Callable[..., float]

# Name of a trial's user attribute: whether its parameters are complete.
CHOSEN = "chosen"

# User attribute of a trial: names of parameters whose choices go by a text.
BY_TEXT = "by_text"

# For segmenters without parameters of these names.
NO_EPOCHS = {"max_epochs": 0, "fine_tune_epochs": 0, "patience": 0}


def n_parameters(estimator, X, y) -> float:
    """Trainable parameters of the net in a fitted estimator."""
    for _, step in find_steps(estimator):
        if hasattr(step, "n_parameters_"):
            return float(step.n_parameters_)
    raise ValueError(f"{estimator!r} has no n_parameters_")


def seconds_per_image(estimator, X, y) -> float:
    """Time that the prediction of one image takes, of many."""
    started = time.perf_counter()
    estimator.predict(X)
    return (time.perf_counter() - started) / len(X)


# Objectives of which less is better.
COSTS: dict[str, Scorer] = {"n_parameters": n_parameters, "seconds_per_image": seconds_per_image}


@dataclass(frozen=True)
class Objective:
    """One thing to be as good as possible."""

    name: str
    scorer: Scorer
    direction: Literal["minimize", "maximize"]

    @property
    def sign(self) -> int:
        """Factor by which less becomes better."""
        return -1 if self.direction == "maximize" else 1

    @property
    def label(self) -> int | None:
        """Label whose IoU it is, if that is undefined for masks without it; otherwise None."""
        scorer = self.scorer
        if not isinstance(scorer, SegmentationScorer) or scorer.absent != "exclude":
            return None
        return label_of(scorer.metrics)


def make_objectives(scoring, estimator: BaseEstimator, labels: np.ndarray) -> list[Objective]:
    """Understand `scoring=`: one objective or two.

    Parameters
    ----------
    scoring : None, str, callable, or sequence of one or two of them
        None is the estimator's `score`. Names are those of `SegmentationScorer`, and of `COSTS`.
    estimator : estimator
        What is to be scored.
    labels : ndarray
        Those that the masks have, without the ignored one.

    Returns
    -------
    objectives : list of Objective

    Raises
    ------
    ValueError
        If a name is unknown or of a label that there is not, there are more than two objectives,
        or the first is a cost.
    """
    several = isinstance(scoring, Sequence) and not isinstance(scoring, str)
    wanted = list(scoring) if several else [scoring]
    if len(wanted) not in (1, 2):
        raise ValueError(f"scoring must be one objective or two, got {len(wanted)}: {scoring!r}")
    objectives = [_make_objective(one, estimator) for one in wanted]
    if objectives[0].name in COSTS:
        raise ValueError(
            f"the first objective of scoring must be an accuracy, got {objectives[0].name!r}"
        )
    for objective in objectives:
        if objective.label is not None and objective.label not in labels:
            raise ValueError(
                f"scoring={objective.name!r} is of a label that y does not have, or that the "
                "estimator ignores"
            )
    if len({objective.name for objective in objectives}) < len(objectives):
        raise ValueError(f"scoring has two objectives of one name: {scoring!r}")
    return objectives


def _make_objective(scoring, estimator: BaseEstimator) -> Objective:
    if isinstance(scoring, str):
        if scoring in COSTS:
            return Objective(scoring, COSTS[scoring], "minimize")
        return Objective(scoring, SegmentationScorer(scoring), "maximize")
    if isinstance(scoring, SegmentationScorer) and not isinstance(scoring.metrics, str):
        raise ValueError(
            f"a scorer of several metrics is no objective: {scoring!r}; give scoring the name of "
            "one, or a list of two names"
        )
    return Objective(_name_of(scoring), check_scoring(estimator, scoring), "maximize")


def _name_of(scoring) -> str:
    """What tells a scorer from others, in every process."""
    if scoring is None:
        return "score"
    if isinstance(scoring, SegmentationScorer):
        is_plain = repr(scoring) == repr(SegmentationScorer(scoring.metrics))
        return scoring.metrics if is_plain else repr(scoring)
    # Scorers of `make_scorer` have no name, but tell what they score.
    return name_of(scoring)


@dataclass(frozen=True)
class Evaluation:
    """The function of a trial that a study optimizes; pickles for other processes."""

    estimator: BaseEstimator
    space: Space
    X: np.ndarray
    y: np.ndarray
    folds: Sequence[tuple[np.ndarray, np.ndarray]]
    objectives: Sequence[Objective]
    prune: bool = False
    fit_params: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, trial: optuna.Trial) -> float | list[float]:
        """Value of each objective, as the mean over the folds."""
        params = suggest_params(trial, self.space)
        # What is asked for only beside another choice may not have been asked for before.
        check_choices(trial)
        trial.set_user_attr(CHOSEN, True)
        if named := names_by_text(self.space):
            trial.set_user_attr(BY_TEXT, named)
        candidate = copy_with(self.estimator, params)
        watched = self.prune and self._watch(candidate, trial)
        results: list[Mapping[str, Any]] = []
        scores: dict[str, list[float]] = {objective.name: [] for objective in self.objectives}
        for number, fold in enumerate(self.folds):
            results.append(self._fit_and_score(candidate, fold))
            for name, values in scores.items():
                values.append(float(results[-1][f"test_{name}"][0]))
            if not np.isfinite([values[-1] for values in scores.values()]).all():
                raise ValueError(f"the score is not finite: {scores}")
            if self.prune and not watched:
                # Nothing tells of the epochs: at least a fold can be the last.
                trial.report(float(np.mean(scores[self.objectives[0].name])), number)
                if trial.should_prune():
                    raise optuna.TrialPruned
        trial.set_user_attr("scores", scores)
        for what in ("fit_time", "score_time"):
            trial.set_user_attr(what, [float(result[what][0]) for result in results])
        values = [float(np.mean(values)) for values in scores.values()]
        return values[0] if len(values) == 1 else values

    def _fit_and_score(self, candidate, fold) -> Mapping[str, Any]:
        return cross_validate(
            candidate,
            self.X,
            self.y,
            cv=[fold],
            scoring={objective.name: objective.scorer for objective in self.objectives},
            params=dict(self.fit_params),
            # Otherwise the end of a trial by its pruner would be taken for a failed fit.
            error_score="raise",
        )

    def _watch(self, candidate: BaseEstimator, trial: optuna.Trial) -> bool:
        """Let the segmenter in an estimator report its epochs; False if it has none to tell."""
        given = any(name.endswith("validation_data") for name in self.fit_params)
        for name, step in find_steps(candidate):
            params = step.get_params(deep=False)
            validates = given or params.get("validation_fraction") is not None
            if "callbacks" in params and validates:
                watch = PruningCallback(trial, steps_per_fit=self._steps_per_fit(name, given))
                step.set_params(callbacks=[*(params["callbacks"] or ()), watch])
                return True
        return False

    def _steps_per_fit(self, name: str, validation_is_given: bool) -> int | None:
        """Steps of a fold: the same, whatever epochs, phases and validation a trial chooses."""
        step = dict(find_steps(self.estimator)).get(name)
        params = {} if step is None else step.get_params(deep=False)
        n_images = min(len(train) for train, _ in self.folds)
        if not validation_is_given:
            # Somewhat fewer than without the fraction: groups are held out as a whole.
            fraction = params.get("validation_fraction") or 0.0
            n_images = max(1, int(n_images * (1 - fraction) ** 2))
        epochs = choose_epochs({**NO_EPOCHS, **params}, n_images)
        return epochs.train + epochs.fine_tune or None
