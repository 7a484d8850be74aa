"""What one trial does: parameters out of the space, fits over the folds, scores."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import optuna
from sklearn.base import BaseEstimator, clone
from sklearn.metrics import check_scoring
from sklearn.model_selection import cross_validate

from skmars.metrics.scorers import SegmentationScorer
from skmars.training.setup import choose_epochs
from skmars.tuning.pruning import PruningCallback
from skmars.tuning.spaces import Space, find_steps, suggest_params

__all__ = ["COSTS", "Aim", "Evaluation", "make_aims"]

Scorer = Callable[..., float]

# Of nets that do not count them by these names.
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


# Aims of which less is better.
COSTS: dict[str, Scorer] = {"n_parameters": n_parameters, "seconds_per_image": seconds_per_image}


@dataclass(frozen=True)
class Aim:
    """One thing to be as good as possible."""

    name: str
    scorer: Scorer
    direction: Literal["minimize", "maximize"]


def make_aims(scoring, estimator: BaseEstimator) -> list[Aim]:
    """Understand `scoring=`: one aim or two.

    Parameters
    ----------
    scoring : None, str, callable, or sequence of one or two of them
        None is the estimator's `score`. Names are those of `SegmentationScorer`, of `COSTS`, and
        of scikit-learn.
    estimator : estimator
        What is to be scored.

    Returns
    -------
    aims : list of Aim

    Raises
    ------
    ValueError
        If a name is unknown, there are more than two aims, or the first is a cost.
    """
    several = isinstance(scoring, Sequence) and not isinstance(scoring, str)
    wanted = list(scoring) if several else [scoring]
    if len(wanted) not in (1, 2):
        raise ValueError(f"scoring must be one aim or two, got {len(wanted)}: {scoring!r}")
    aims = [_make_aim(one, estimator) for one in wanted]
    if aims[0].name in COSTS:
        raise ValueError(f"the first aim of scoring must be an accuracy, got {aims[0].name!r}")
    if len({aim.name for aim in aims}) < len(aims):
        raise ValueError(f"scoring has the same aim twice: {scoring!r}")
    return aims


def _make_aim(scoring, estimator: BaseEstimator) -> Aim:
    if isinstance(scoring, str):
        if scoring in COSTS:
            return Aim(scoring, COSTS[scoring], "minimize")
        try:
            return Aim(scoring, SegmentationScorer(scoring), "maximize")
        except ValueError:
            return Aim(scoring, check_scoring(estimator, scoring), "maximize")
    scorer = check_scoring(estimator, scoring)
    name = "score" if scoring is None else getattr(scoring, "__name__", "score")
    return Aim(name, scorer, "maximize")


@dataclass(frozen=True)
class Evaluation:
    """The function of a trial that a study optimizes; pickles for other processes."""

    estimator: BaseEstimator
    space: Space
    X: np.ndarray
    y: np.ndarray
    folds: Iterable[tuple[np.ndarray, np.ndarray]]
    aims: Sequence[Aim]
    prune: bool = False
    fit_params: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, trial: optuna.Trial) -> float | list[float]:
        """Value of each aim, as the mean over the folds."""
        candidate = clone(self.estimator)
        candidate.set_params(**suggest_params(trial, self.space))
        watched = self.prune and self._watch(candidate, trial)
        results: list[Mapping[str, Any]] = []
        scores: dict[str, list[float]] = {aim.name: [] for aim in self.aims}
        for number, fold in enumerate(self.folds):
            results.append(self._fit_and_score(candidate, fold))
            for name, values in scores.items():
                values.append(float(results[-1][f"test_{name}"][0]))
            if self.prune and not watched:
                # Nothing tells of the epochs: at least a fold can be the last.
                trial.report(float(np.mean(scores[self.aims[0].name])), number)
                if trial.should_prune():
                    raise optuna.TrialPruned
        trial.set_user_attr("scores", scores)
        for what in ("fit_time", "score_time"):
            trial.set_user_attr(what, [float(result[what][0]) for result in results])
        values = [float(np.mean(values)) for values in scores.values()]
        if not np.isfinite(values).all():
            raise ValueError(f"the score is not finite: {scores}")
        return values[0] if len(values) == 1 else values

    def _fit_and_score(self, candidate, fold) -> Mapping[str, Any]:
        return cross_validate(
            candidate,
            self.X,
            self.y,
            cv=[fold],
            scoring={aim.name: aim.scorer for aim in self.aims},
            params=dict(self.fit_params),
            # Otherwise the end of a trial by its pruner would be taken for a failed fit.
            error_score="raise",
        )

    def _watch(self, candidate: BaseEstimator, trial: optuna.Trial) -> bool:
        """Let the segmenter in an estimator report its epochs; False if it has none to tell."""
        given = any(name.endswith("validation_data") for name in self.fit_params)
        for _, step in find_steps(candidate):
            params = step.get_params(deep=False)
            validates = given or params.get("validation_fraction") is not None
            if "callbacks" in params and validates:
                # Whether there is a second phase or not, a fold begins at the same step.
                n_images = min(len(train) for train, _ in self.folds)
                epochs = choose_epochs({**NO_EPOCHS, **params}, n_images)
                watch = PruningCallback(
                    trial, steps_per_fit=epochs.train + epochs.fine_tune or None
                )
                step.set_params(callbacks=[*(params["callbacks"] or ()), watch])
                return True
        return False
