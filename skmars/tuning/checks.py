"""What a search refuses before its first trial: spaces and folds that cannot be."""

import contextlib
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial
from sklearn.base import BaseEstimator

from skmars.base import BaseSegmenter
from skmars.metrics import SegmentationScorer
from skmars.model_selection import class_counts
from skmars.tuning.evaluation import Objective
from skmars.tuning.spaces import Space, check_choices, copy_with, find_steps, suggest_params
from skmars.tuning.studies import quiet_optuna

__all__ = ["check_folds", "check_space"]


def check_space(space: Space, estimator: BaseEstimator) -> None:
    """Choose parameters once, so that what is wrong is told before any trial."""
    for _, step in find_steps(estimator):
        if hasattr(step, "_parameter_constraints"):
            step._validate_params()
    with quiet_optuna():
        trial = optuna.create_study(sampler=RandomSampler(seed=0)).ask()
    with contextlib.suppress(optuna.TrialPruned):
        # The first choice may be one that the space refuses.
        params = suggest_params(trial, space)
        check_choices(trial)
        copy_with(estimator, params)
        try:
            suggest_params(FixedTrial(trial.params, trial.number), space)
        except Exception as error:
            raise ValueError(
                "space is asked for a trial's parameters again, with what that suggested and "
                f"nothing else of it, which failed with {type(error).__name__}: {error}"
            ) from error


def check_folds(
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    y: np.ndarray,
    labels: np.ndarray,
    objectives: Sequence[Objective],
    estimator: BaseEstimator,
) -> None:
    """Refuse folds without the labels that their scores need.

    Raises
    ------
    ValueError
        If a fold scores a segmenter on a label that it was not shown, or the IoU of a label that
        none of its images has.
    """
    present = class_counts(y, labels) > 0
    is_segmenter = any(isinstance(step, BaseSegmenter) for _, step in find_steps(estimator))
    needs_classes = is_segmenter and any(map(_asks_for_classes, objectives))
    for number, (train, test) in enumerate(folds):
        shown, scored = present[train].any(axis=0), present[test].any(axis=0)
        lost = labels[scored & ~shown]
        if needs_classes and len(lost):
            raise ValueError(
                f"labels {lost.tolist()} are only in the images that fold {number} scores, not in "
                "those that it trains on: use fewer folds or other groups, or leave them out"
            )
        for objective in objectives:
            if objective.label in labels[~scored].tolist():
                raise ValueError(
                    f"scoring={objective.name!r} needs label {objective.label} in the images that "
                    f"each fold scores, but those of fold {number} have none: use fewer folds or "
                    "other groups, or a SegmentationScorer that says what counts there (absent)"
                )


def _asks_for_classes(objective: Objective) -> bool:
    """Whether a segmenter cannot be scored on labels that it was not shown."""
    scorer = objective.scorer
    return objective.name == "score" or (
        isinstance(scorer, SegmentationScorer) and scorer.labels is None
    )
