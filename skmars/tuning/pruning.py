"""Pruning of unpromising trials, epoch by epoch."""

import math
import time
import uuid

import optuna
from skorch.callbacks import Callback

__all__ = ["PruningCallback"]

CLAIM = "skmars:fit:"
SECONDS_TO_ARRIVE = 0.05


class PruningCallback(Callback):
    """Report each epoch's validation score to an Optuna trial, and prune it if it is unpromising.

    The step of an epoch is its number, or how far the schedule is under a time limit and where
    more epochs than `steps_per_fit` are planned, so that trials are compared where their learning
    rates are alike. The last score of a fit also stands at the last step that is planned for it.

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
        # Fits in threads share the callback: for each net, the first step of its fit, and the
        # last one that was reported.
        self._steps: dict[int, tuple[int, int]] = {}

    def __sklearn_clone__(self):
        """A trial cannot be copied: clones of a segmenter report to the same one."""
        return self

    def on_train_begin(self, net, **kwargs):
        """Begin a fit: its steps follow those of the fits before."""
        first = self._claim_place() * self._n_steps(net)
        self._steps[id(net)] = (first, first - 1)

    def on_epoch_end(self, net, **kwargs):
        """Report the epoch's score."""
        if "valid_mean_iou" not in net.history[-1]:
            raise ValueError(
                "PruningCallback needs a validation score: give the segmenter a "
                "validation_fraction or validation_data"
            )
        done = net.pace.epochs_done()
        done *= min(1, self._n_steps(net) / net.max_epochs)
        # Less than rounding can add.
        self._report(net, math.ceil(done - 1e-6) - 1)

    def on_train_end(self, net, **kwargs):
        """End a fit: however few epochs it took, the next one begins where it would for all."""
        if net.history:
            self._report(net, self._n_steps(net) - 1)
        del self._steps[id(net)]

    def _n_steps(self, net) -> int:
        return self.steps_per_fit or net.max_epochs

    def _report(self, net, step_of_fit: int) -> None:
        """Report the last score to a step of the fit, unless that has one; maybe end the trial."""
        first, reported = self._steps[id(net)]
        step, score = first + step_of_fit, net.history[-1]["valid_mean_iou"]
        if step <= reported or step_of_fit >= self._n_steps(net) or math.isnan(score):
            return
        self.trial.report(score, step)
        self._steps[id(net)] = (first, step)
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"mean IoU {score:.4f} after epoch {len(net.history)}")

    def _claim_place(self) -> int:
        """How many fits of the trial began before this one, in any process."""
        # Databases give attributes in any order, so that the names have to tell it.
        key = f"{CLAIM}{time.time_ns():020}:{uuid.uuid4().hex}"
        storage, number = self.trial.storage, self.trial._trial_id
        storage.set_trial_system_attr(number, key, True)
        # Until claims have arrived that were made before, by fits in other processes.
        time.sleep(SECONDS_TO_ARRIVE)
        claims = [name for name in storage.get_trial(number).system_attrs if CLAIM in name]
        return sorted(claims).index(key)
