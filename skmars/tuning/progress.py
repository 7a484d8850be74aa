"""A bar that tells how far a search is."""

import contextlib
from typing import Any

import optuna
from optuna.trial import TrialState
from tqdm.auto import tqdm

from skmars.tuning.trials import finished_trials

__all__ = ["Progress"]


class Progress(contextlib.AbstractContextManager):
    """A bar with the best score so far and the number of pruned and failed trials.

    Parameters
    ----------
    study : optuna.Study
    n_trials : int or None
        Trials in all.
    shown : bool
        If not, nothing happens.
    """

    def __init__(self, study: optuna.Study, n_trials: int | None, *, shown: bool):
        self.study = study
        self.bar: Any = tqdm(total=n_trials, unit="trial", disable=not shown)
        self.update()

    def update(self) -> None:
        """Show the study as it is now."""
        if self.bar.disable:
            return
        trials = finished_trials(self.study)
        counts = {
            state.name.lower(): sum(trial.state == state for trial in trials)
            for state in (TrialState.PRUNED, TrialState.FAIL)
        }
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        sign = 1 if self.study.directions[0].name == "MAXIMIZE" else -1
        best = max((sign * trial.values[0] for trial in complete), default=float("nan")) * sign
        self.bar.set_postfix_str(
            f"best {best:.4f}, {counts['pruned']} pruned, {counts['fail']} failed", refresh=False
        )
        self.bar.n = len(trials)
        self.bar.refresh()

    def __exit__(self, *error) -> None:
        self.update()
        self.bar.close()
