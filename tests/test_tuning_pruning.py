import numpy as np
import optuna
import pytest
from clocks import Duration, take_over_time
from optuna.pruners import BasePruner
from optuna.trial import TrialState
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import Pipeline
from skorch.callbacks import Callback

from skmars import MarsSegmenter
from skmars.tuning import PruningCallback
from skmars.tuning.storages import open_storage


class PruneAt(BasePruner):
    """Find a trial hopeless as soon as it has reported a step."""

    def __init__(self, step):
        self.step = step

    def prune(self, study, trial):
        return trial.last_step >= self.step


@pytest.fixture
def data(terrain):
    X, y = terrain
    return X, np.minimum(y, 3)


@pytest.fixture
def segmenter(fast):
    return MarsSegmenter(**{**fast, "max_epochs": 3})


def make_study(step=10**9, storage=None):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize", pruner=PruneAt(step), storage=storage)


def test_every_epoch_is_reported(data, segmenter):
    trial = make_study().ask()
    segmenter.set_params(callbacks=[PruningCallback(trial)]).fit(*data)
    reported = trial.study.trials[0].intermediate_values
    assert reported == {i: row["valid_mean_iou"] for i, row in enumerate(segmenter.history_)}


def test_second_phase_goes_on_counting(data, segmenter):
    trial = make_study().ask()
    segmenter.set_params(freeze="encoder", fine_tune_epochs=2, early_stopping=False)
    segmenter.set_params(callbacks=[PruningCallback(trial)]).fit(*data)
    assert list(trial.study.trials[0].intermediate_values) == [0, 1, 2, 3, 4]


def test_hopeless_trial_ends_with_its_epoch(data, segmenter):
    study = make_study(step=1)

    def objective(trial):
        segmenter.set_params(callbacks=[PruningCallback(trial)]).fit(*data)
        raise AssertionError("has not been ended")

    study.optimize(objective, n_trials=1)
    assert study.trials[0].state == TrialState.PRUNED
    assert list(study.trials[0].intermediate_values) == [0, 1]


def test_folds_report_to_steps_of_their_own_in_a_database(data, segmenter, tmp_path):
    study = make_study(storage=f"sqlite:///{tmp_path}/study.db")

    def objective(trial):
        segmenter.set_params(max_epochs=1, callbacks=[PruningCallback(trial)])
        return cross_val_score(segmenter, *data, cv=3, error_score="raise").mean()

    study.optimize(objective, n_trials=4)
    assert [list(trial.intermediate_values) for trial in study.trials] == [[0, 1, 2]] * 4


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_folds_report_to_steps_of_their_own(data, segmenter, in_pipeline):
    trial = make_study().ask()
    segmenter.set_params(callbacks=[PruningCallback(trial)])
    estimator = Pipeline([("segment", segmenter)]) if in_pipeline else segmenter
    cross_val_score(estimator, *data, cv=3, error_score="raise")
    reported = trial.study.trials[0].intermediate_values
    assert list(reported) == list(range(9))
    by_hand = [
        row["valid_mean_iou"]
        for train, _ in KFold(3).split(data[0])
        for row in clone(segmenter)
        .set_params(callbacks=None)
        .fit(data[0][train], data[1][train])
        .history_
    ]
    np.testing.assert_allclose(list(reported.values()), by_hand, atol=1e-6)


class StopAfterTwoEpochs(Callback):
    """Ends each fit the way skorch's own callbacks do."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt


def test_folds_that_stop_early_end_at_the_same_step(data, segmenter):
    trial = make_study().ask()
    callbacks = [PruningCallback(trial), StopAfterTwoEpochs()]
    segmenter.set_params(max_epochs=5, callbacks=callbacks)
    cross_val_score(segmenter, *data, cv=2, error_score="raise")
    reported = trial.study.trials[0].intermediate_values
    assert list(reported) == [0, 1, 4, 5, 6, 9]
    assert (reported[4], reported[9]) == (reported[1], reported[6])


def test_hopeless_trial_ends_with_a_fold_that_stops_early(data, segmenter):
    study = make_study(step=4)

    def objective(trial):
        callbacks = [PruningCallback(trial), StopAfterTwoEpochs()]
        segmenter.set_params(max_epochs=5, callbacks=callbacks)
        return cross_val_score(segmenter, *data, cv=2, error_score="raise").mean()

    study.optimize(objective, n_trials=1)
    assert study.trials[0].state == TrialState.PRUNED
    assert list(study.trials[0].intermediate_values) == [0, 1, 4]


def test_pruned_within_the_second_fold(data, segmenter):
    study = make_study(step=4)

    def objective(trial):
        segmenter.set_params(callbacks=[PruningCallback(trial)])
        return cross_val_score(segmenter, *data, cv=3, error_score="raise").mean()

    study.optimize(objective, n_trials=1)
    assert study.trials[0].state == TrialState.PRUNED
    assert list(study.trials[0].intermediate_values) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_folds_in_threads_and_processes(data, segmenter, tmp_path, backend):
    import joblib

    trial = make_study(storage=open_storage(f"journal://{tmp_path}/study.log")).ask()
    segmenter.set_params(callbacks=[PruningCallback(trial)], max_epochs=2)
    with joblib.parallel_config(backend, n_jobs=2):
        cross_val_score(segmenter, *data, cv=2, error_score="raise")
    assert set(trial.study.trials[0].intermediate_values) == {0, 1, 2, 3}


def test_clones_share_the_trial(segmenter):
    callback = PruningCallback(make_study().ask())
    copy = clone(segmenter.set_params(callbacks=[callback]))
    assert copy.callbacks[0] is callback


@pytest.mark.parametrize("max_epochs", [2, 1000])
def test_under_a_time_limit_steps_are_shares_of_the_schedule(
    data, segmenter, max_epochs, monkeypatch
):
    class Rates(Callback):
        """The learning rate when an epoch is reported: that of its last batch."""

        def on_epoch_end(self, net, **kwargs):
            rates.append(net.optimizer_.param_groups[0]["lr"])

    trial, rates = make_study().ask(), []
    # Each fit has time for 32 batches, two an epoch.
    duration = Duration(take_over_time(monkeypatch), training=1 / 32)
    segmenter.set_params(time_limit=1.0, max_epochs=max_epochs, scheduler_params={"warmup": 0.0})
    segmenter.set_params(callbacks=[PruningCallback(trial), Rates(), duration])
    cross_val_score(segmenter, *data, cv=2, error_score="raise")
    done = np.arange(1, 17) / 16
    steps = np.unique(np.ceil(done * max_epochs)) - 1
    assert list(trial.study.trials[0].intermediate_values) == [*steps, *(max_epochs + steps)]
    cosine = 0.01 + 0.99 * (1 + np.cos(np.pi * (done - 1 / 32))) / 2
    expected = segmenter.learning_rate * np.tile(cosine, 2)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_nothing_to_validate_on_is_an_error(data, segmenter):
    segmenter.set_params(validation_fraction=None, callbacks=[PruningCallback(make_study().ask())])
    with pytest.raises(ValueError, match="validation"):
        segmenter.fit(*data)
