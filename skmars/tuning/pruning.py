"""Ending trials that are hopeless, epoch by epoch."""

import math
import uuid

import optuna
from skorch.callbacks import Callback

__all__ = ["PruningCallback"]

CLAIM = "skmars:fit:"


class PruningCallback(Callback):
    """Report each epoch's validation score to an Optuna trial, and stop it if it is hopeless.

    For `MarsSegmenter(callbacks=[PruningCallback(trial)])`, alone, in a Pipeline, or within
    `cross_val_score(..., error_score="raise")`: without that, scikit-learn takes the end of a
    trial for a failed fit. Clones of the segmenter share the callback, and so the trial. In a
    cross-validation each fit reports to steps of its own, one after another, also where fits run
    in threads or processes, as long as the study's storage is not in memory.

    Parameters
    ----------
    trial : optuna.Trial
        Of a study with one objective.
    steps_per_fit : int or None, default=None
        How far apart the first steps of two fits are; by default the epochs that the segmenter
        plans. Give it if trials differ in that: the steps of later folds are compared only where
        they are the same for all trials.

    Raises
    ------
    optuna.TrialPruned
        After an epoch, if the study's pruner says so; `study.optimize` expects it.
    ValueError
        If nothing is validated on, so that there is nothing to report.

    Examples
    --------
    >>> import optuna
    >>> from skmars import MarsSegmenter
    >>> from skmars.datasets import make_terrain
    >>> from skmars.tuning import PruningCallback
    >>> X, y = make_terrain(24, random_state=0)
    >>> def objective(trial):
    ...     rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    ...     segmenter = MarsSegmenter(
    ...         depth=2, base_channels=4, max_epochs=2, learning_rate=rate,
    ...         callbacks=[PruningCallback(trial)],
    ...     )
    ...     return segmenter.fit(X, y).history_[-1]["valid_mean_iou"]
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> study = optuna.create_study(direction="maximize")
    >>> study.optimize(objective, n_trials=2)
    >>> len(study.trials[0].intermediate_values)
    2
    """

    def __init__(self, trial: optuna.Trial, *, steps_per_fit: int | None = None):
        self.trial = trial
        self.steps_per_fit = steps_per_fit
        # Fits in threads share the callback: for each net, the step of its next epoch, and the
        # first that belongs to the fit after it.
        self._steps: dict[int, tuple[int, int]] = {}

    def __sklearn_clone__(self):
        """A trial cannot be copied: clones of a segmenter report to the same one."""
        return self

    def on_train_begin(self, net, **kwargs):
        """Begin a fit: its steps follow those of the fits before."""
        n_steps = self.steps_per_fit or net.max_epochs
        first = self._claim_place() * n_steps
        self._steps[id(net)] = (first, first + n_steps)

    def on_epoch_end(self, net, **kwargs):
        """Report the epoch's score."""
        score = net.history[-1].get("valid_mean_iou")
        if score is None:
            raise ValueError(
                "PruningCallback needs a validation score: give the segmenter a "
                "validation_fraction or validation_data"
            )
        step, end = self._steps[id(net)]
        # Under a time limit there can be more epochs than planned.
        if step == end or math.isnan(score):
            return
        self.trial.report(score, step)
        self._steps[id(net)] = (step + 1, end)
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"mean IoU {score:.4f} after epoch {len(net.history)}")

    def on_train_end(self, net, **kwargs):
        """Forget the fit."""
        del self._steps[id(net)]

    def _claim_place(self) -> int:
        """How many fits of the trial began before this one, in any process."""
        key = CLAIM + uuid.uuid4().hex
        storage, number = self.trial.storage, self.trial._trial_id
        storage.set_trial_system_attr(number, key, True)
        claims = [name for name in storage.get_trial(number).system_attrs if CLAIM in name]
        return claims.index(key)
