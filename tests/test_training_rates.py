import time

import numpy as np
import pytest
import torch
from fit_records import Record, other_masks
from skorch.callbacks import Callback

from skmars import MarsSegmenter

# Learning rates


def cosine_rates(rate, n_steps, warmup=0.05, final=0.01):
    progress = np.arange(n_steps) / n_steps
    decay = np.clip((progress - warmup) / (1 - warmup), 0, 1)
    cosine = final + (1 - final) * (1 + np.cos(np.pi * decay)) / 2
    return rate * np.where(progress < warmup, np.maximum(progress / warmup, 0.01), cosine)


def test_cosine_rates_of_every_step_of_both_phases(terrain, fast):
    record = Record()
    params = {**fast, "max_epochs": 7, "batch_size": 7, "learning_rate": 3e-3}
    params |= {"freeze": "encoder", "fine_tune_epochs": 5, "validation_fraction": None}
    segmenter = MarsSegmenter(
        **params, fine_tune_learning_rate=4e-4, early_stopping=False, callbacks=[record]
    ).fit(*terrain)
    n = 4  # batches of at most 7 out of 24 images
    expected = np.concatenate([cosine_rates(3e-3, 7 * n), cosine_rates(4e-4, 5 * n)])
    np.testing.assert_allclose(record.rates, expected, rtol=1e-6)
    rates = [row["learning_rate"] for row in segmenter.history_]
    np.testing.assert_allclose(rates, expected[n - 1 :: n], rtol=1e-6)


def test_scheduler_params_reach_the_schedule(terrain, fast):
    record = Record()
    params = {**fast, "scheduler_params": {"warmup": 0.5, "final": 0.3}, "callbacks": [record]}
    MarsSegmenter(**params, validation_fraction=None).fit(*terrain)
    expected = cosine_rates(2e-3, 6, warmup=0.5, final=0.3)
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


# Time


def assert_in_time(seconds, limit, history, rates):
    assert seconds < 1.05 * limit + 0.3
    assert seconds > 0.7 * limit
    # The schedule of each phase has come to its end, or as near as the last step lets it.
    last = {row["phase"]: row["learning_rate"] for row in history}
    for phase, rate in last.items():
        assert rate < 0.1 * rates[phase], phase
    assert list(last) == list(rates)


@pytest.fixture(scope="module")
def warm():
    """A first fit, so that what torch imports late is not timed."""
    X = np.random.default_rng(0).integers(0, 255, (4, 8, 8), dtype=np.uint8)
    for n_threads in (1, "auto"):
        params = {"depth": 2, "base_channels": 4, "max_epochs": 1, "precision": "float32"}
        MarsSegmenter(**params, n_threads=n_threads).fit(X, X > 100)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(("freeze", "max_epochs"), [(None, 1), ("encoder", 1000)])
def test_time_limit_with_short_epochs(freeze, max_epochs, terrain, fast):
    limit = 2.0
    params = {**fast, "max_epochs": max_epochs, "time_limit": limit, "freeze": freeze}
    segmenter = MarsSegmenter(
        **params, patience=1, fine_tune_epochs=max(max_epochs // 2, 1), validation_fraction=0.3
    )
    started = time.perf_counter()
    segmenter.fit(*terrain)
    seconds = time.perf_counter() - started
    rates = {"train": 2e-3} | ({"fine_tune": 2e-4} if freeze else {})
    assert_in_time(seconds, limit, segmenter.history_, rates)
    assert segmenter.n_iter_ > 10


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(("freeze", "n_valid"), [(None, 400), ("encoder+bottleneck", 96)])
def test_time_limit_within_an_epoch(freeze, n_valid, terrain, fast):
    limit = 2.0
    X, y = (np.concatenate([part] * 200) for part in terrain)  # 4,800 images
    params = {**fast, "base_channels": 8, "time_limit": limit, "freeze": freeze}
    segmenter = MarsSegmenter(
        **params, fine_tune_epochs=2, learning_rate=1e-3, fine_tune_learning_rate=1e-4
    )
    started = time.perf_counter()
    segmenter.fit(X, y, validation_data=(X[:n_valid], y[:n_valid]))
    seconds = time.perf_counter() - started
    rates = {"train": 1e-3} | ({"fine_tune": 1e-4} if freeze else {})
    assert_in_time(seconds, limit, segmenter.history_, rates)
    assert segmenter.n_iter_ == len(rates)


@pytest.mark.usefixtures("warm")
def test_slow_first_batch_does_not_end_the_epoch(terrain, fast):
    class SlowStart(Callback):
        def on_train_begin(self, net, **kwargs):
            self.seconds = 0.3

        def on_batch_begin(self, net, training=False, **kwargs):
            time.sleep(self.seconds)
            self.seconds = 0.0

    X, y = (np.concatenate([part] * 60) for part in terrain)
    params = {**fast, "base_channels": 8, "time_limit": 2.0, "callbacks": [SlowStart()]}
    segmenter = MarsSegmenter(**params).fit(X, y, validation_data=(X[:200], y[:200]))
    assert segmenter.n_iter_ == 1


@pytest.mark.usefixtures("warm")
def test_second_phase_knows_how_long_a_validation_takes(terrain, fast):
    class SlowValidation(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            time.sleep(0.0 if training else 0.25)

    limit = 3.0
    X, y = (np.concatenate([part] * 60) for part in terrain)
    params = {**fast, "time_limit": limit, "freeze": "encoder", "callbacks": [SlowValidation()]}
    started = time.perf_counter()
    MarsSegmenter(**params, fine_tune_epochs=2).fit(X, y, validation_data=(X[:24], y[:24]))
    assert time.perf_counter() - started < 1.05 * limit + 0.3


@pytest.mark.usefixtures("warm")
def test_time_limit_counts_from_the_call(terrain, fast):
    class SlowArray:
        def __array__(self, dtype=None, copy=None):
            time.sleep(0.8)
            return terrain[0]

    limit = 1.5
    started = time.perf_counter()
    MarsSegmenter(**fast, time_limit=limit).fit(SlowArray(), terrain[1])
    assert 0.85 * limit < time.perf_counter() - started < 1.05 * limit + 0.3


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("freeze", [None, "encoder"])
def test_a_net_was_trained_however_short_the_time(freeze, terrain, fast):
    segmenter = MarsSegmenter(**fast, time_limit=1e-3, freeze=freeze)
    started = time.perf_counter()
    segmenter.fit(*terrain)
    assert time.perf_counter() - started < 2
    assert segmenter.n_iter_ >= 1
    assert np.isfinite(segmenter.history_[0]["train_loss"])
    segmenter.score(*terrain)


@pytest.mark.usefixtures("warm")
def test_without_a_cosine_patience_ends_the_training_before_the_time(terrain, fast):
    X, y = terrain
    params = {**fast, "time_limit": 60, "scheduler": None, "patience": 2, "learning_rate": 0.01}
    params["early_stopping"] = True
    started = time.perf_counter()
    MarsSegmenter(**params).fit(X[:12], y[:12], validation_data=(X[12:], other_masks(y[12:])))
    assert time.perf_counter() - started < 30


@pytest.mark.usefixtures("warm")
def test_patience_does_not_cut_a_cosine_short(terrain, fast):
    X, y = terrain
    params = {**fast, "max_epochs": 1000, "time_limit": 2.0, "early_stopping": True, "patience": 1}
    segmenter = MarsSegmenter(**params)
    segmenter.fit(X[:12], y[:12], validation_data=(X[12:], other_masks(y[12:])))
    assert segmenter.history_[-1]["learning_rate"] < 0.1 * 2e-3
    assert segmenter.best_epoch_ < segmenter.n_iter_ - 1


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("freeze", [None, "encoder"])
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_time_limit_of_the_default_net(freeze, precision):
    limit = 20.0
    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, (600, 64, 128), dtype=np.uint8)
    segmenter = MarsSegmenter(time_limit=limit, freeze=freeze, precision=precision, random_state=0)
    started = time.perf_counter()
    segmenter.fit(X, X > 100)
    seconds = time.perf_counter() - started
    rates = {"train": 2e-3} | ({"fine_tune": 2e-4} if freeze else {})
    assert_in_time(seconds, limit, segmenter.history_, rates)
