"""A study as scikit-learn's searches show theirs."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from scipy.stats import rankdata

from skmars.tuning.evaluation import BY_TEXT, CHOSEN, Objective
from skmars.tuning.naming import as_kept, value_of
from skmars.tuning.spaces import Space, suggest_params
from skmars.tuning.trials import ERROR

__all__ = ["check_same_space", "params_of", "pareto_front", "results_table"]


def params_of(trial: FrozenTrial, space: Space) -> dict[str, Any]:
    """Parameters for `set_params` that a trial has chosen; of a broken one, as far as it came."""
    if isinstance(space, Mapping):
        return {name: value_of(space.get(name), kept) for name, kept in trial.params.items()}
    # A function that raised in the trial would raise here again.
    if not trial.user_attrs.get(CHOSEN, False):
        return dict(trial.params)
    try:
        return suggest_params(FixedTrial(trial.params, trial.number), space)
    except ValueError:
        # The space has lost what this trial chose; only those with a score were asked for that.
        if trial.state == TrialState.COMPLETE:
            raise
        return dict(trial.params)


def check_same_space(study: optuna.Study, space: Space) -> None:
    """Check that a study can go on with a space.

    Raises
    ------
    ValueError
        If a parameter was chosen from another kind of distribution or from other choices; or if a
        function asks for other parameters than a trial with a score has.
    """
    for trial in study.get_trials(deepcopy=False):
        if not _is_of_space(trial, space):
            raise ValueError(
                f"the study {study.study_name!r} was made with another space: give another "
                "study_name"
            )


def _is_of_space(trial: FrozenTrial, space: Space) -> bool:
    if isinstance(space, Mapping):
        # It may have become wider or narrower, but a text alone is not what it stands for.
        if not space.keys() >= set(trial.user_attrs.get(BY_TEXT, ())):
            return False
        kept = {name: as_kept(how) for name, how in space.items()}
        return _are_compatible(trial.distributions, kept)
    if trial.state != TrialState.COMPLETE:
        return True
    replayed = FixedTrial(trial.params, trial.number)
    # It raises where a parameter is asked for that the trial does not have.
    with contextlib.suppress(ValueError):
        suggest_params(replayed, space)
    same_names = replayed.params == trial.params
    return same_names and _are_compatible(trial.distributions, replayed.distributions)


def _are_compatible(
    before: Mapping[str, BaseDistribution], now: Mapping[str, BaseDistribution]
) -> bool:
    """Whether Optuna lets a study choose by both."""
    try:
        for name in before.keys() & now.keys():
            check_distribution_compatibility(before[name], now[name])
    except ValueError:
        return False
    return True


def results_table(
    trials: Sequence[FrozenTrial], space: Space, objectives: Sequence[Objective], n_splits: int
) -> dict[str, Any]:
    """A row a trial, with the columns of `GridSearchCV.cv_results_` and some of Optuna's.

    Parameters
    ----------
    trials : sequence of FrozenTrial
        Ended.
    space : space
        Of the search.
    objectives : sequence of Objective
        One, whose columns end in "score", or several, whose columns end in their names.
    n_splits : int
        Number of folds.

    Returns
    -------
    results : dict of str to array or list
    """
    n = len(trials)
    params = [params_of(trial, space) for trial in trials]
    results: dict[str, Any] = {
        "trial_number": np.array([trial.number for trial in trials], dtype=int),
        "state": np.array([trial.state.name for trial in trials]),
        "error": np.array([trial.user_attrs.get(ERROR, "") for trial in trials]),
    }
    for what in ("fit_time", "score_time"):
        times = _column(trials, n_splits, lambda trial, what=what: trial.user_attrs.get(what))
        results[f"mean_{what}"], results[f"std_{what}"] = times.mean(axis=1), times.std(axis=1)
    for name in sorted({name for row in params for name in row}):
        column = np.ma.masked_all(n, dtype=object)
        for place, row in enumerate(params):
            if name in row:
                column[place] = row[name]
        results[f"param_{name}"] = column
    results["params"] = params
    for objective, suffix in zip(objectives, column_suffixes(objectives), strict=True):
        scores = _column(
            trials,
            n_splits,
            lambda trial, name=objective.name: trial.user_attrs.get("scores", {}).get(name),
        )
        for split in range(n_splits):
            results[f"split{split}_test_{suffix}"] = scores[:, split]
        results[f"mean_test_{suffix}"] = scores.mean(axis=1)
        results[f"std_test_{suffix}"] = scores.std(axis=1)
        losses = objective.sign * scores.mean(axis=1)
        means = np.where(np.isnan(scores).any(axis=1), np.inf, losses)
        results[f"rank_test_{suffix}"] = rankdata(means, method="min").astype(int)
    return results


def column_suffixes(objectives: Sequence[Objective]) -> list[str]:
    """What columns of scores end in: "score" for one objective, the names of several."""
    return ["score"] if len(objectives) == 1 else [objective.name for objective in objectives]


def _column(trials: Sequence[FrozenTrial], n_splits: int, read) -> np.ndarray:
    """A value a fold of each trial, NaN where it has none."""
    rows = np.full((len(trials), n_splits), np.nan)
    for place, trial in enumerate(trials):
        values = read(trial)
        if trial.state == TrialState.COMPLETE and values is not None:
            rows[place, : len(values)] = values
    return rows


def pareto_front(results: dict[str, Any], objectives: Sequence[Objective]) -> np.ndarray:
    """Rows of trials that no other one matches in all objectives and beats in one.

    Parameters
    ----------
    results : dict
        As `results_table` gives it.
    objectives : sequence of Objective

    Returns
    -------
    rows : ndarray of int
        Best first, by the first objective.
    """
    losses = np.stack(
        [
            objective.sign * results[f"mean_test_{suffix}"]
            for objective, suffix in zip(objectives, column_suffixes(objectives), strict=True)
        ],
        axis=1,
    )
    rows = np.flatnonzero(~np.isnan(losses).any(axis=1))
    kept = [
        row
        for row in rows
        if not any(
            (losses[other] <= losses[row]).all() and (losses[other] < losses[row]).any()
            for other in rows
        )
    ]
    return np.array(sorted(kept, key=lambda row: tuple(losses[row])), dtype=int)
