import numpy as np
import pytest
import torch
from clocks import Duration, take_over_time
from fit_records import Record, other_masks
from skorch.callbacks import Callback

from skmars import MarsSegmenter

# Learning rates


def cosine_rates(rate, progress, warmup=0.05, final=0.01):
    decay = np.clip((progress - warmup) / (1 - warmup), 0, 1)
    cosine = final + (1 - final) * (1 + np.cos(np.pi * decay)) / 2
    return rate * np.where(progress < warmup, np.maximum(progress / warmup, 0.01), cosine)


def evenly(n_steps):
    """What is done before each step."""
    return np.arange(n_steps) / n_steps


def test_cosine_rates_of_every_step_of_both_phases(terrain, fast):
    record = Record()
    params = {**fast, "max_epochs": 7, "batch_size": 7, "learning_rate": 3e-3}
    params |= {"freeze": "encoder", "fine_tune_epochs": 5, "validation_fraction": None}
    segmenter = MarsSegmenter(
        **params, fine_tune_learning_rate=4e-4, early_stopping=False, callbacks=[record]
    ).fit(*terrain)
    n = 4  # batches of at most 7 out of 24 images
    expected = np.concatenate(
        [cosine_rates(3e-3, evenly(7 * n)), cosine_rates(4e-4, evenly(5 * n))]
    )
    np.testing.assert_allclose(record.rates, expected, rtol=1e-6)
    rates = [row["learning_rate"] for row in segmenter.history_]
    np.testing.assert_allclose(rates, expected[n - 1 :: n], rtol=1e-6)


def test_scheduler_params_reach_the_schedule(terrain, fast):
    record = Record()
    params = {**fast, "scheduler_params": {"warmup": 0.5, "final": 0.3}, "callbacks": [record]}
    MarsSegmenter(**params, validation_fraction=None).fit(*terrain)
    expected = cosine_rates(2e-3, evenly(6), warmup=0.5, final=0.3)
    np.testing.assert_allclose(record.rates, expected, rtol=1e-6)


def test_without_a_schedule_each_phase_keeps_its_rate(terrain, fast):
    record = Record()
    params = {**fast, "scheduler": None, "freeze": "decoder", "fine_tune_epochs": 1}
    MarsSegmenter(
        **params, learning_rate=0.003, fine_tune_learning_rate=0.0004, callbacks=[record]
    ).fit(*terrain)
    assert record.rates == [0.003] * 6 + [0.0004] * 3


@pytest.mark.parametrize("validate", [True, False])
def test_plateau_against_torch(validate, terrain, fast):
    X, y = terrain
    params = {**fast, "max_epochs": 12, "learning_rate": 0.02, "scheduler": "plateau"}
    params["scheduler_params"] = {"factor": 0.3, "patience": 1, "threshold": 0.05, "final": 0.02}
    segmenter = MarsSegmenter(**params, early_stopping=False, validation_fraction=None)
    validation_data = (X[12:], other_masks(y[12:])) if validate else None
    history = segmenter.fit(X[:12], y[:12], validation_data=validation_data).history_

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.3, patience=1, threshold=0.05, min_lr=0.02 * 0.02
    )
    for row in history:
        assert row["learning_rate"] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-4)
        scheduler.step(row["valid_loss" if validate else "train_loss"])
    assert not validate or history[-1]["learning_rate"] < 0.02


# Time, by a clock that moves with the batches


@pytest.fixture
def clock(monkeypatch):
    return take_over_time(monkeypatch)


@pytest.mark.parametrize(
    ("freeze", "max_epochs", "phases"),
    [
        (None, 1, {"train": 24}),
        ("encoder", 2, {"train": 16, "fine_tune": 8}),
        ("encoder", 1000, {"train": 16, "fine_tune": 8}),
    ],
)
def test_time_limit_with_short_epochs(freeze, max_epochs, phases, clock, terrain, fast):
    record = Record()
    params = {**fast, "max_epochs": max_epochs, "time_limit": 3.0, "freeze": freeze}
    params |= {"fine_tune_epochs": max(max_epochs // 2, 1), "validation_fraction": None}
    segmenter = MarsSegmenter(
        **params, patience=1, callbacks=[record, Duration(clock, training=1 / 8)]
    ).fit(*terrain)
    assert clock.now == 3.0
    rates = {"train": 2e-3, "fine_tune": 2e-4}
    expected = [cosine_rates(rates[phase], evenly(n_steps)) for phase, n_steps in phases.items()]
    np.testing.assert_allclose(record.rates, np.concatenate(expected), rtol=1e-6)
    # Epochs of three steps, of which the time may cut off the last one of a phase.
    expected = [phase for phase, n_steps in phases.items() for _ in range(-(-n_steps // 3))]
    assert [row["phase"] for row in segmenter.history_] == expected


@pytest.mark.parametrize(("freeze", "n_phases"), [(None, 1), ("encoder+bottleneck", 2)])
def test_time_limit_within_an_epoch(freeze, n_phases, clock, terrain, fast):
    X, y = terrain
    record = Record()
    params = {**fast, "batch_size": 1, "time_limit": float(n_phases), "freeze": freeze}
    params["augmentation"] = None
    # Validation batches that take as long as a forward pass is thought to.
    duration = Duration(clock, training=1 / 16, validation=0.35 / 16)
    segmenter = MarsSegmenter(**params, fine_tune_epochs=2, callbacks=[record, duration])
    segmenter.fit(X, y, validation_data=(X[:8], y[:8]))
    assert segmenter.n_iter_ == n_phases
    # In a second there are 13 steps, and a validation that takes as long as 2.8 of them.
    assert clock.now == pytest.approx(n_phases * (13 + 2.8) / 16)
    progress = np.arange(13) / (16 - 2.8)
    # A single step does not yet tell how long a validation takes.
    progress[1] = 1 / 16
    expected = [cosine_rates(2e-3, progress)]
    if n_phases == 2:
        left = 32 - (13 + 2.8)
        expected.append(cosine_rates(2e-4, np.arange(13) / (left - 2.8)))
    np.testing.assert_allclose(record.rates, np.concatenate(expected), rtol=1e-6)


def test_time_limit_where_validation_images_are_larger(clock, terrain, fast):
    X, y = terrain
    valid = [np.kron(part[:2], np.ones((1, 2, 2), dtype=part.dtype)) for part in (X, y)]
    # Four times as many pixels as an image, of which a step sees a window of 9/16.
    seconds = 0.35 * 4 * 16 / 9 / 16
    record = Record()
    params = {**fast, "batch_size": 1, "time_limit": 1.0}
    duration = Duration(clock, training=1 / 16, validation=seconds)
    segmenter = MarsSegmenter(**params, callbacks=[record, duration])
    segmenter.fit(X, y, validation_data=tuple(valid))
    assert len(record.rates) == 11
    assert clock.now == pytest.approx(11 / 16 + 2 * seconds)
    assert clock.now <= 1.0


def test_slow_first_batch_does_not_end_the_epoch(clock, terrain, fast):
    class SlowStart(Callback):
        def on_train_begin(self, net, **kwargs):
            self.seconds = 0.25

        def on_batch_begin(self, net, **kwargs):
            clock.advance(self.seconds)
            self.seconds = 0.0

    record = Record()
    # By the first step alone, the validation would take all of the time.
    duration = Duration(clock, training=1 / 16, validation=0.35 / 16)
    params = {**fast, "batch_size": 1, "time_limit": 2.0, "augmentation": None}
    segmenter = MarsSegmenter(**params, callbacks=[record, SlowStart(), duration])
    segmenter.fit(*terrain, validation_data=terrain)
    assert segmenter.n_iter_ == 1
    assert len(record.rates) == 20
    assert clock.now == pytest.approx(0.25 + (20 + 24 * 0.35) / 16)


def test_second_phase_knows_how_long_a_validation_takes(clock, terrain, fast):
    X, y = terrain
    # Each validation batch takes as long as two steps, which nobody expects.
    duration = Duration(clock, training=1 / 8, validation=1 / 4)
    params = {**fast, "batch_size": 1, "time_limit": 4.0, "freeze": "encoder"}
    segmenter = MarsSegmenter(**params, fine_tune_epochs=2, callbacks=[duration])
    segmenter.fit(X, y, validation_data=(X[:2], y[:2]))
    assert [row["phase"] for row in segmenter.history_] == ["train", "fine_tune"]
    assert clock.now == 4.0


def test_time_limit_counts_from_the_call(clock, terrain, fast):
    class SlowArray:
        def __array__(self, dtype=None, copy=None):
            clock.advance(0.75)
            return terrain[0]

    record = Record()
    params = {**fast, "time_limit": 1.5, "validation_fraction": None}
    segmenter = MarsSegmenter(**params, callbacks=[record, Duration(clock, training=1 / 8)])
    segmenter.fit(SlowArray(), terrain[1])
    assert clock.now == 1.5
    np.testing.assert_allclose(record.rates, cosine_rates(2e-3, evenly(6)), rtol=1e-6)


@pytest.mark.parametrize("freeze", [None, "encoder"])
def test_a_net_was_trained_however_short_the_time(freeze, clock, terrain, fast):
    record = Record()
    callbacks = [record, Duration(clock, training=1 / 8)]
    segmenter = MarsSegmenter(**fast, time_limit=1e-3, freeze=freeze, callbacks=callbacks)
    segmenter.fit(*terrain)
    assert len(record.rates) == segmenter.n_iter_ == 1
    assert np.isfinite(segmenter.history_[0]["train_loss"])
    segmenter.score(*terrain)


def test_without_a_cosine_patience_ends_the_training_before_the_time(clock, terrain, fast):
    X, y = terrain
    params = {**fast, "time_limit": 60, "scheduler": None, "patience": 2, "learning_rate": 0.01}
    params |= {"early_stopping": True, "callbacks": [Duration(clock, training=1 / 8)]}
    segmenter = MarsSegmenter(**params)
    segmenter.fit(X[:12], y[:12], validation_data=(X[12:], other_masks(y[12:])))
    assert segmenter.n_iter_ == segmenter.best_epoch_ + 1 + 2
    assert clock.now < 60


def test_patience_does_not_cut_a_cosine_short(clock, terrain, fast):
    X, y = terrain
    record = Record()
    params = {**fast, "max_epochs": 1000, "time_limit": 2.0, "early_stopping": True, "patience": 1}
    params["callbacks"] = [record, Duration(clock, training=1 / 32)]
    segmenter = MarsSegmenter(**params)
    segmenter.fit(X[:12], y[:12], validation_data=(X[12:], other_masks(y[12:])))
    np.testing.assert_allclose(record.rates, cosine_rates(2e-3, evenly(64)), rtol=1e-6)
    assert segmenter.best_epoch_ + 1 < segmenter.n_iter_ - 1
