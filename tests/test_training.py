import math
import time

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback, EarlyStopping, EpochScoring

from skmars import MarsSegmenter
from skmars.training.callbacks import ValidationScore


@pytest.fixture
def fast(fast):
    return {**fast, "n_threads": 1}


class Record(Callback):
    """Everything a skorch callback can see of a fit."""

    def __init__(self):
        self.events = []
        self.states_begin = []
        self.states_end = []
        self.ids = {True: [], False: []}
        self.rates = []
        self.modes = set()

    @staticmethod
    def state_of(net):
        return {name: value.clone() for name, value in net.module_.state_dict().items()}

    def on_train_begin(self, net, **kwargs):
        self.events.append("train_begin")

    def on_train_end(self, net, **kwargs):
        self.events.append("train_end")

    def on_epoch_begin(self, net, **kwargs):
        self.events.append("epoch_begin")
        self.states_begin.append(self.state_of(net))

    def on_epoch_end(self, net, **kwargs):
        self.events.append("epoch_end")
        self.states_end.append(self.state_of(net))

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        # The first pixel of each image is its number.
        self.ids[training].extend(batch[0][:, 0, 0, 0].tolist())

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        if training:
            self.rates.append(net.optimizer_.param_groups[0]["lr"])
        self.modes.add((training, net.module_.training))


def numbered(X):
    X = X.copy()
    X[:, 0, 0] = np.arange(len(X))
    return X


def state_of(segmenter):
    return segmenter.net_.module_.state_dict()


def same_state(one, other, prefix=""):
    names = [name for name in one if name.startswith(prefix)]
    assert names
    return all(torch.equal(one[name], other[name]) for name in names)


def scores_of(segmenter):
    return [row["valid_mean_iou"] for row in segmenter.history_]


def other_masks(y):
    """Masks that a net which learns y is the worse at, the better it learns."""
    return (y + 1) % 5


# What history_ holds


@pytest.mark.parametrize("validate", [True, False])
def test_history_has_a_row_an_epoch_of_both_phases(validate, terrain, fast):
    params = {**fast, "max_epochs": 3, "freeze": "encoder", "fine_tune_epochs": 2}
    if not validate:
        params["validation_fraction"] = None
    segmenter = MarsSegmenter(**params, fine_tune_learning_rate=5e-4).fit(*terrain)
    keys = {"epoch", "phase", "train_loss", "learning_rate", "seconds"}
    keys |= {"valid_loss", "valid_mean_iou"} if validate else set()
    assert [set(row) for row in segmenter.history_] == [keys] * 5
    assert [row["epoch"] for row in segmenter.history_] == [1, 2, 3, 4, 5]
    assert [row["phase"] for row in segmenter.history_] == ["train"] * 3 + ["fine_tune"] * 2
    assert segmenter.n_iter_ == 5
    for row in segmenter.history_:
        numbers = [row[key] for key in sorted(keys - {"phase", "epoch"})]
        assert all(type(number) is float and math.isfinite(number) for number in numbers)
        assert row["train_loss"] > 0
        assert row["seconds"] > 0
        assert not validate or 0 <= row["valid_mean_iou"] <= 1


def test_seconds_are_those_of_the_epochs(terrain, fast):
    class Slow(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            time.sleep(0.1 * training)

    segmenter = MarsSegmenter(**fast, validation_fraction=None, callbacks=[Slow()])
    started = time.perf_counter()
    seconds = [row["seconds"] for row in segmenter.fit(*terrain).history_]
    assert min(seconds) > 0.3
    assert sum(seconds) < time.perf_counter() - started


def test_training_lowers_the_loss(terrain, fast):
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 8, "learning_rate": 0.01}).fit(*terrain)
    losses = [row["train_loss"] for row in segmenter.history_]
    assert losses[-1] < 0.9 * losses[0]


def test_validation_loss_is_the_loss_of_the_net(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast, early_stopping=False, class_weight=None)
    segmenter.fit(X[:16], y[:16], validation_data=(X[16:], y[16:]))
    target = np.searchsorted(segmenter.classes_, y[16:])
    proba = np.take_along_axis(segmenter.predict_proba(X[16:]), target[:, None], axis=1)
    assert segmenter.history_[-1]["valid_loss"] == pytest.approx(-np.log(proba).mean(), rel=1e-4)
    expected = segmenter.score(X[16:], y[16:])
    assert scores_of(segmenter)[-1] == pytest.approx(expected, abs=1e-6)


def test_validation_score_is_one_matrix_and_not_a_mean_over_batches(terrain, fast):
    X, y = terrain
    scores = []
    for batch_size in (1, 24):
        # A rate at which the weights do not depend on the batches.
        params = {**fast, "learning_rate": 1e-12, "batch_size": batch_size}
        params |= {"early_stopping": False, "max_epochs": 1}
        segmenter = MarsSegmenter(**params)
        segmenter.fit(X[:16], y[:16], validation_data=(X[16:], y[16:]))
        scores.append(scores_of(segmenter)[-1])
        assert scores[-1] == pytest.approx(segmenter.score(X[16:], y[16:]), abs=1e-6)


# The best weights, and when to stop


@pytest.mark.parametrize("freeze", [None, "encoder"])
@pytest.mark.parametrize("contrary", [True, False])
def test_best_weights_are_restored(freeze, contrary, terrain, fast):
    X, y = terrain
    X_valid, y_valid = X[12:], y[12:]
    if contrary:
        y_valid = other_masks(y_valid)
    params = {**fast, "max_epochs": 5, "learning_rate": 0.02, "freeze": freeze}
    params |= {"early_stopping": True, "fine_tune_epochs": 3, "fine_tune_learning_rate": 0.01}
    segmenter = MarsSegmenter(**params)
    segmenter.fit(X[:12], y[:12], validation_data=(X_valid, y_valid))
    scores = scores_of(segmenter)
    assert segmenter.score(X_valid, y_valid) == pytest.approx(max(scores), abs=1e-6)
    assert segmenter.best_epoch_ == int(np.argmax(scores))
    assert scores[-1] != max(scores) or not contrary


def test_without_validation_the_lowest_training_loss_is_best(terrain, fast):
    record = Record()
    params = {**fast, "max_epochs": 6, "learning_rate": 0.3, "scheduler": None}
    params |= {"early_stopping": True, "validation_fraction": None, "ema_decay": None}
    segmenter = MarsSegmenter(**params, callbacks=[record])
    segmenter.fit(*terrain)
    losses = [row["train_loss"] for row in segmenter.history_]
    assert segmenter.best_epoch_ == int(np.argmin(losses))
    assert same_state(state_of(segmenter), record.states_end[segmenter.best_epoch_])


def test_without_early_stopping_the_last_weights_stay(terrain, fast):
    X, y = terrain
    record = Record()
    params = {**fast, "max_epochs": 6, "learning_rate": 0.02, "early_stopping": False}
    params |= {"augmentation": None, "class_weight": None, "ema_decay": None}
    segmenter = MarsSegmenter(**params, patience=1, callbacks=[record])
    segmenter.fit(X[:12], y[:12], validation_data=(X[12:], other_masks(y[12:])))
    scores = scores_of(segmenter)
    assert max(scores[:-1]) > scores[-1]
    assert segmenter.n_iter_ == 6
    assert segmenter.best_epoch_ == 5
    assert same_state(state_of(segmenter), record.states_end[-1])


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_ends_the_training(patience, terrain, fast):
    X, y = terrain
    params = {**fast, "max_epochs": 60, "learning_rate": 0.01, "patience": patience}
    segmenter = MarsSegmenter(**params, early_stopping=True)
    segmenter.fit(X[:12], y[:12], validation_data=(X[12:], other_masks(y[12:])))
    assert segmenter.n_iter_ < 60
    assert segmenter.n_iter_ == segmenter.best_epoch_ + 1 + patience
    best = np.maximum.accumulate(scores_of(segmenter))
    # Stopped at the first chance, not later.
    since = [
        epoch - int(np.argmax(scores_of(segmenter)[: epoch + 1])) for epoch in range(len(best))
    ]
    assert max(since[:-1]) < patience


def test_patience_begins_anew_in_the_second_phase(terrain, fast):
    X, y = terrain
    params = {**fast, "max_epochs": 60, "learning_rate": 0.01, "patience": 2, "freeze": "encoder"}
    params |= {"early_stopping": True, "fine_tune_epochs": 60, "fine_tune_learning_rate": 0.01}
    segmenter = MarsSegmenter(**params)
    segmenter.fit(X[:12], y[:12], validation_data=(X[12:], other_masks(y[12:])))
    phases = [row["phase"] for row in segmenter.history_]
    assert 2 <= phases.count("fine_tune") < 60
    assert phases.count("train") < 60


# How many epochs


@pytest.fixture
def tiny_net(fast):
    """Settings of a net, and images of which an epoch takes a moment."""
    X = np.random.default_rng(0).integers(0, 255, (1700, 4, 4), dtype=np.uint8)
    settings = {**fast, "batch_size": 1700, "validation_fraction": None, "augmentation": None}
    settings |= {"max_epochs": "auto", "aspp": False, "attention": False}
    return settings, X


@pytest.mark.parametrize(("n_images", "n_epochs"), [(100, 160), (400, 80), (1700, 40)])
def test_fewer_images_get_more_epochs(n_images, n_epochs, tiny_net):
    settings, X = tiny_net
    segmenter = MarsSegmenter(**settings).fit(X[:n_images], X[:n_images] > 100)
    assert segmenter.n_iter_ == n_epochs


def test_images_held_out_are_not_counted(tiny_net):
    settings, X = tiny_net
    segmenter = MarsSegmenter(**settings | {"validation_fraction": 0.5})
    assert segmenter.fit(X[:200], X[:200] > 100).n_iter_ == 160


@pytest.mark.parametrize(("max_epochs", "quarter"), [("auto", 40), (60, 15), (3, 10)])
def test_second_phase_and_patience_are_a_quarter(max_epochs, quarter, tiny_net):
    settings, X = tiny_net
    X, y = X[:100], X[:100] > 100
    settings |= {"max_epochs": max_epochs, "freeze": "encoder"}
    # At such a rate only the statistics of the batches change, for a few epochs.
    settings |= {"learning_rate": 1e-30, "fine_tune_learning_rate": 1e-30, "ema_decay": None}
    segmenter = MarsSegmenter(**settings).fit(X, y)
    assert [row["phase"] for row in segmenter.history_].count("fine_tune") == quarter
    if max_epochs != 3:
        segmenter = MarsSegmenter(**settings, early_stopping=True)
        segmenter.fit(X, y, validation_data=(X, y))
        scores = [row["valid_mean_iou"] for row in segmenter.history_ if row["phase"] == "train"]
        assert len(scores) == int(np.argmax(scores)) + 1 + quarter


# The second phase


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        ("encoder", ["encoder"]),
        ("encoder+bottleneck", ["encoder", "bottleneck"]),
        ("decoder", ["decoder"]),
    ],
)
def test_frozen_part_stays_as_the_first_phase_left_it(freeze, frozen, terrain, fast):
    record = Record()
    params = {**fast, "dropout": 0.3, "early_stopping": False, "ema_decay": None, "freeze": freeze}
    segmenter = MarsSegmenter(**params, fine_tune_epochs=2, callbacks=[record]).fit(*terrain)
    after_first, last = record.states_end[1], state_of(segmenter)
    for part in ("encoder", "bottleneck", "decoder", "head"):
        assert same_state(after_first, last, part) == (part in frozen), part
    # The statistics of the batches, too.
    names = [name for name in last if "running" in name and name.split(".")[0] not in frozen]
    assert not any(torch.equal(after_first[name], last[name]) for name in names)


def test_second_phase_starts_from_the_best_of_the_first(terrain, fast):
    X, y = terrain
    record = Record()
    params = {**fast, "max_epochs": 5, "learning_rate": 0.02, "freeze": "encoder"}
    params |= {"fine_tune_epochs": 1, "ema_decay": None, "augmentation": None}
    segmenter = MarsSegmenter(**params, early_stopping=True, callbacks=[record])
    segmenter.fit(X[:12], y[:12], validation_data=(X[12:], other_masks(y[12:])))
    n_first = sum(row["phase"] == "train" for row in segmenter.history_)
    best = int(np.argmax(scores_of(segmenter)[:n_first]))
    assert best < n_first - 1
    assert same_state(record.states_begin[n_first], record.states_end[best])


def test_nothing_is_left_frozen(terrain, fast):
    params = {**fast, "max_epochs": 1, "freeze": "encoder", "fine_tune_epochs": 1}
    segmenter = MarsSegmenter(**params).fit(*terrain)
    assert all(parameter.requires_grad for parameter in segmenter.net_.module_.parameters())
    before = {name: value.clone() for name, value in state_of(segmenter).items()}
    segmenter.partial_fit(*terrain)
    assert not same_state(before, state_of(segmenter), "encoder")


def test_net_validates_in_evaluation_mode(terrain, fast):
    record = Record()
    MarsSegmenter(**fast, callbacks=[record]).fit(*terrain)
    assert record.modes == {(True, True), (False, False)}


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


# Callbacks


def test_callbacks_are_called_around_epochs_and_training(terrain, fast):
    record = Record()
    params = {**fast, "freeze": "encoder", "fine_tune_epochs": 1}
    MarsSegmenter(**params, callbacks=[record]).fit(*terrain)
    assert record.events == ["train_begin", *["epoch_begin", "epoch_end"] * 3, "train_end"]


def test_callbacks_see_what_history_will_hold(terrain, fast):
    rows = []

    class Reader(Callback):
        def on_epoch_end(self, net, **kwargs):
            row = net.history[-1]
            keys = ["phase", "train_loss", "valid_loss", "valid_mean_iou", "learning_rate"]
            rows.append([row[key] for key in keys])

    segmenter = MarsSegmenter(**fast, callbacks=[Reader()]).fit(*terrain)
    keys = ["phase", "train_loss", "valid_loss", "valid_mean_iou", "learning_rate"]
    assert rows == [[row[key] for key in keys] for row in segmenter.history_]


def test_named_callbacks_and_callback_classes_are_accepted(terrain, fast):
    stop = ("stop", EarlyStopping(monitor="train_loss", patience=50, sink=lambda text: None))
    assert MarsSegmenter(**fast, callbacks=(stop, Callback)).fit(*terrain).n_iter_ == 2


@pytest.mark.parametrize(("freeze", "monitor"), [(None, "valid_loss"), ("encoder", "train_loss")])
def test_skorchs_early_stopping_ends_a_phase(freeze, monitor, terrain, fast):
    # No loss is ever lower by its whole size.
    stop = EarlyStopping(monitor=monitor, patience=2, threshold=1.0, sink=lambda text: None)
    params = {**fast, "max_epochs": 20, "freeze": freeze, "callbacks": [stop]}
    params["fine_tune_epochs"] = 2
    segmenter = MarsSegmenter(**params, patience=50).fit(*terrain)
    phases = [row["phase"] for row in segmenter.history_]
    assert 1 < phases.count("train") <= 4
    assert ("fine_tune" in phases) == (freeze is not None)
    assert 0 <= segmenter.best_epoch_ < segmenter.n_iter_
    segmenter.predict(terrain[0])


@pytest.mark.parametrize("early_stopping", [True, False])
def test_stopped_within_an_epoch_the_history_has_whole_rows(early_stopping, terrain, fast):
    class Interrupt(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            if len(net.history) == 2:
                raise KeyboardInterrupt

    params = {**fast, "max_epochs": 5, "early_stopping": early_stopping}
    segmenter = MarsSegmenter(**params, callbacks=[Interrupt()]).fit(*terrain)
    keys = set(segmenter.history_[0])
    assert {"phase", "train_loss", "valid_mean_iou", "learning_rate", "seconds"} <= keys
    assert all(set(row) == keys for row in segmenter.history_)
    assert 0 <= segmenter.best_epoch_ < segmenter.n_iter_ == len(segmenter.history_)
    segmenter.partial_fit(*terrain)


def test_stopped_within_the_first_epoch_there_is_no_fit(terrain, fast):
    class Interrupt(Callback):
        def on_batch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    segmenter = MarsSegmenter(**fast, callbacks=[Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        segmenter.fit(*terrain)
    with pytest.raises(NotFittedError):
        segmenter.predict(terrain[0])


def test_stopped_before_the_first_epoch_there_is_no_fit(terrain, fast):
    class Veto(Callback):
        def on_train_begin(self, net, **kwargs):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        MarsSegmenter(**fast, callbacks=[Veto()]).fit(*terrain)


def test_stopped_after_the_last_epoch_there_is_a_fit(terrain, fast):
    class Late(Callback):
        def on_train_end(self, net, **kwargs):
            raise KeyboardInterrupt

    segmenter = MarsSegmenter(**fast, callbacks=[Late()]).fit(*terrain)
    assert segmenter.n_iter_ == fast["max_epochs"]


def test_interrupted_partial_fit_leaves_whole_rows(terrain, fast, monkeypatch):
    segmenter = MarsSegmenter(**fast).fit(*terrain)

    def interrupt(*args, **kwargs):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(segmenter.net_, "train_step", interrupt)
        with pytest.raises(MemoryError):
            segmenter.partial_fit(*terrain)
    segmenter.partial_fit(*terrain)
    assert [row["phase"] for row in segmenter.history_] == ["train", "train", "partial_fit"]
    assert [row["epoch"] for row in segmenter.history_] == [1, 2, 3]


def test_callbacks_are_not_kept_by_the_net(terrain, fast):
    segmenter = MarsSegmenter(**fast, callbacks=[Record()]).fit(*terrain)
    assert not segmenter.net_.callbacks_


# What is held out


@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_images_that_do_not_count_are_not_held_out(seed, pixels, terrain, fast):
    X, y = terrain
    y = y.copy()
    y[:6] = 9
    weight = np.repeat([1.0, 0.0, 1.0], [6, 6, 12])
    if pixels:
        weight = np.broadcast_to(weight[:, None, None], y.shape)
    record = Record()
    params = {**fast, "max_epochs": 1, "ignore_label": 9, "random_state": seed}
    segmenter = MarsSegmenter(**params, callbacks=[record])
    segmenter.fit(numbered(X), y, sample_weight=weight)
    assert set(record.ids[False]) <= set(range(12, 24))
    assert set(record.ids[True]) >= set(range(12))
    assert np.isfinite(scores_of(segmenter)).all()


def test_groups_stay_together_where_some_images_do_not_count(terrain, fast):
    X, y = terrain
    groups = np.repeat(np.arange(8), 3)
    record = Record()
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 1}, callbacks=[record])
    segmenter.fit(numbered(X), y, groups=groups, sample_weight=np.tile([1.0, 0.0, 1.0], 8))
    held_out = {groups[int(number)] for number in record.ids[False]}
    assert not held_out & {groups[int(number)] for number in record.ids[True]}


def test_held_out_images_are_not_trained_on(terrain, fast):
    X, y = terrain
    record = Record()
    MarsSegmenter(**fast, validation_fraction=0.25, callbacks=[record]).fit(numbered(X), y)
    train, valid = set(record.ids[True]), set(record.ids[False])
    assert not train & valid
    assert train | valid == set(range(24))
    assert len(valid) == 6
    # Each once an epoch.
    assert sorted(record.ids[True]) == sorted(list(train) * 2)
    assert sorted(record.ids[False]) == sorted(list(valid) * 2)


def test_batches_are_shuffled_anew_each_epoch(terrain, fast):
    record = Record()
    MarsSegmenter(**fast, validation_fraction=None, callbacks=[record]).fit(
        numbered(terrain[0]), terrain[1]
    )
    first, second = record.ids[True][:24], record.ids[True][24:]
    assert sorted(first) == sorted(second) == list(range(24))
    assert first != second
    assert first != sorted(first)


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_not_split(seed, terrain, fast):
    X, y = terrain
    groups = np.arange(24) % 8
    record = Record()
    params = {**fast, "max_epochs": 1, "random_state": seed, "callbacks": [record]}
    MarsSegmenter(**params, validation_fraction=0.25).fit(numbered(X), y, groups=groups)
    train, valid = set(record.ids[True]), set(record.ids[False])
    assert len(valid) == 6
    assert not set(groups[list(train)]) & set(groups[list(valid)])


def test_held_out_images_have_their_share_of_each_class(terrain, fast):
    X, y = terrain
    record = Record()
    params = {**fast, "max_epochs": 1, "callbacks": [record], "batch_size": 24}
    MarsSegmenter(**params, validation_fraction=0.34).fit(numbered(X), y)
    counts = np.stack([np.bincount(mask.ravel(), minlength=5) for mask in y])
    shares = counts[sorted(set(record.ids[False]))].sum(axis=0) / counts.sum(axis=0)
    # Big rocks (4) are in few of the images.
    np.testing.assert_allclose(shares[:4], 0.34, atol=0.15)


def test_held_out_images_have_no_part_in_the_scaling(terrain, fast):
    X, y = terrain
    X = numbered(X)
    record = Record()
    params = {**fast, "max_epochs": 1, "callbacks": [record]}
    segmenter = MarsSegmenter(**params, validation_fraction=0.5).fit(X, y)
    train = X[sorted(record.ids[True])]
    assert train.mean() != pytest.approx(X.mean(), rel=1e-3)
    np.testing.assert_allclose(segmenter.mean_, train.mean(), rtol=1e-9)
    np.testing.assert_allclose(segmenter.scale_, train.std(), rtol=1e-9)


def test_validation_data_are_validated_on_and_all_of_x_is_trained_on(terrain, fast):
    X, y = terrain
    X = numbered(X)
    record = Record()
    segmenter = MarsSegmenter(**fast, callbacks=[record])
    segmenter.fit(X[:14], y[:14], validation_data=(X[14:], y[14:]))
    assert set(record.ids[True]) == set(range(14))
    assert set(record.ids[False]) == set(range(14, 24))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_validation_masks_may_have_another_dtype(dtype, terrain, fast):
    X, y = terrain
    labels = np.array([-3, 0, 2, 100, 200], dtype=np.int16)
    known = np.isin(y, [1, 2, 3, 4])
    y_valid = np.where(known, labels[y], 0)
    segmenter = MarsSegmenter(**fast, early_stopping=False)
    segmenter.fit(X, labels[y], validation_data=(X, y_valid.astype(dtype)))
    expected = segmenter.score(X, y_valid)
    assert scores_of(segmenter)[-1] == pytest.approx(expected, abs=1e-6)


def test_validation_images_may_have_another_size(terrain, fast):
    X, y = terrain
    data = X[:5, :21, :17], y[:5, :21, :17]
    segmenter = MarsSegmenter(**fast, early_stopping=False).fit(X, y, validation_data=data)
    assert scores_of(segmenter)[-1] == pytest.approx(segmenter.score(*data), abs=1e-6)


def test_validation_data_without_a_label_do_not_end_the_training(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast, ignore_label=255)
    segmenter.fit(X, y, validation_data=(X[:4], np.full_like(y[:4], 255)))
    assert segmenter.n_iter_ == 2
    assert np.isnan(scores_of(segmenter)).all()


# What is printed


def test_silent_at_verbose_0(terrain, fast, capfd):
    params = {**fast, "freeze": "encoder", "fine_tune_epochs": 1}
    MarsSegmenter(**params).fit(*terrain).predict(terrain[0])
    assert capfd.readouterr() == ("", "")


def test_a_row_an_epoch_at_verbose_1(terrain, fast, capfd):
    params = {**fast, "freeze": "encoder", "fine_tune_epochs": 2, "verbose": 1}
    segmenter = MarsSegmenter(**params).fit(*terrain)
    out, err = capfd.readouterr()
    header, rule, *rows = out.strip().splitlines()
    for name in ("epoch", "train_loss", "valid_loss", "valid_mean_iou", "learning_rate"):
        assert name in header
    assert set(rule) <= set("- ")
    assert len(rows) == segmenter.n_iter_ == 4
    assert [int(row.split()[0]) for row in rows] == [1, 2, 3, 4]
    assert ["fine_tune" in row for row in rows] == [False, False, True, True]
    assert err == ""
    # Also the small ones at the end.
    place = header.split().index("learning_rate")
    rates = [row["learning_rate"] for row in segmenter.history_]
    assert [float(row.split()[place]) for row in rows] == pytest.approx(rates, rel=1e-3)


def test_a_bar_over_the_batches_at_verbose_2(terrain, fast, capfd):
    MarsSegmenter(**fast, verbose=2).fit(*terrain)
    out, err = capfd.readouterr()
    assert "train_loss" in out
    assert "it/s" in out + err


# Divergence


def nan_loss(logits, target):
    return logits.sum() * math.nan


def growing_loss(logits, target):
    return logits.square().sum() * 1e38


@pytest.mark.parametrize("loss", [nan_loss, growing_loss])
def test_diverged_training_raises(loss, terrain, fast):
    with pytest.raises(FloatingPointError, match="learning_rate"):
        MarsSegmenter(**fast, loss=loss).fit(*terrain)


def test_absurd_learning_rate_raises(terrain, fast):
    with pytest.raises(FloatingPointError, match="diverged"):
        MarsSegmenter(**{**fast, "learning_rate": 1e30, "max_epochs": 5}).fit(*terrain)


@pytest.mark.parametrize("warm_start", [True, False])
def test_a_fit_that_fails_leaves_the_estimator_as_it_was(warm_start, terrain, fast):
    segmenter = MarsSegmenter(**fast, warm_start=warm_start).fit(*terrain)
    before, history = vars(segmenter).copy(), list(segmenter.history_)
    masks = segmenter.predict(terrain[0])
    segmenter.set_params(learning_rate=1e30, max_epochs=5)
    with pytest.raises(FloatingPointError):
        segmenter.fit(*terrain)
    assert vars(segmenter).keys() == before.keys()
    assert segmenter.history_ == history
    np.testing.assert_array_equal(segmenter.predict(terrain[0]), masks)
    segmenter.set_params(learning_rate=1e-3, max_epochs=1).fit(*terrain)
    assert [row["epoch"] for row in segmenter.history_] == ([1, 2, 3] if warm_start else [1])


def test_a_first_fit_that_fails_leaves_it_unfitted(terrain, fast):
    segmenter = MarsSegmenter(**{**fast, "learning_rate": 1e30, "max_epochs": 5}, warm_start=True)
    with pytest.raises(FloatingPointError):
        segmenter.fit(*terrain)
    with pytest.raises(NotFittedError):
        segmenter.predict(terrain[0])
    segmenter.set_params(learning_rate=1e-3).fit(*terrain)


def test_a_first_partial_fit_that_fails_leaves_it_unfitted(terrain, fast):
    segmenter = MarsSegmenter(**fast, loss=nan_loss)
    with pytest.raises(FloatingPointError):
        segmenter.partial_fit(*terrain)
    with pytest.raises(NotFittedError):
        segmenter.predict(terrain[0])
    # Another net can be trained then.
    segmenter.set_params(loss="focal", depth=3).partial_fit(*terrain)
    assert np.isfinite(segmenter.predict_proba(terrain[0])).all()


def test_validation_score_of_many_weighted_pixels():
    score = ValidationScore()
    score.on_epoch_begin(None)
    right = torch.zeros(1, 2, 1024, 1024)
    right[:, 0] = 1
    target = torch.zeros(1, 1024, 1024, dtype=torch.int64)
    target[:, :, :8] = 1
    weight = torch.full((1,), 0.3)
    for _ in range(8):
        score.on_batch_end(None, batch=(None, (target, weight)), y_pred=right)
    n_wrong = 8 * 8 * 1024
    expected = 0.3 * np.array([[8 * 1024**2 - n_wrong, 0], [n_wrong, 0]])
    np.testing.assert_allclose(score.counts_.numpy(), expected, rtol=1e-6)


# Average of the weights


class Weights(Callback):
    """Records the weights after each training step."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        self.steps_ = []

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            weights = net.module_.state_dict()
            self.steps_.append({name: w.double().clone() for name, w in weights.items()})


def fit_averaged(terrain, fast, **params):
    recorder = Weights()
    segmenter = MarsSegmenter(
        **{**fast, "max_epochs": 4, "learning_rate": 1e-2, "callbacks": [recorder], **params}
    )
    X, y = terrain
    return segmenter.fit(X, y, validation_data=(X[:7], y[:7])), recorder.steps_


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_average_of_the_weights_is_that_of_the_formula(decay, terrain, fast):
    segmenter, steps = fit_averaged(terrain, fast, ema_decay=decay, early_stopping=False)
    expected = dict(steps[0])
    for number, weights in enumerate(steps[1:], start=1):
        share = min(decay, (1 + number) / (10 + number))
        for name, weight in weights.items():
            if not name.endswith("num_batches_tracked"):
                expected[name] = share * expected[name] + (1 - share) * weight
    for name, weight in segmenter.net_.module_.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(weight.double(), expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize("freeze", [None, "encoder"])
def test_average_is_what_is_validated_and_kept(early_stopping, freeze, terrain, fast):
    segmenter, steps = fit_averaged(
        terrain,
        fast,
        ema_decay=0.9,
        early_stopping=early_stopping,
        freeze=freeze,
        fine_tune_epochs=2,
    )
    X, y = (part[:7] for part in terrain)
    kept = segmenter.history_[segmenter.best_epoch_]
    assert segmenter.score(X, y) == pytest.approx(kept["valid_mean_iou"], abs=1e-6)
    last = steps[-1]["head.weight"]
    assert not torch.equal(segmenter.net_.module_.head.weight.double(), last)


def test_training_does_not_depend_on_its_average(terrain, fast):
    _, plain = fit_averaged(terrain, fast, ema_decay=None)
    _, averaged = fit_averaged(terrain, fast, ema_decay=0.9)
    for one, other in zip(plain, averaged, strict=True):
        torch.testing.assert_close(one["head.weight"], other["head.weight"], rtol=0, atol=0)


def test_average_ends_with_the_fit(terrain, fast):
    segmenter, _ = fit_averaged(terrain, fast, ema_decay=0.999)
    before = segmenter.net_.module_.head.weight.detach().clone()
    segmenter.partial_fit(*terrain)
    assert segmenter.net_.average is None
    assert not torch.equal(before, segmenter.net_.module_.head.weight)


def test_scores_of_skorch_are_callbacks(terrain, fast):
    def n_channels(net, X, y):
        return net.infer(X[:2][0]).shape[1]

    score = EpochScoring(n_channels, name="channels", use_caching=False)
    segmenter = MarsSegmenter(**fast, callbacks=[score]).fit(*terrain)
    assert [row["channels"] for row in segmenter.net_.history] == [5, 5]


def test_average_is_validated_where_training_is_compiled(terrain, fast, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    segmenter, _ = fit_averaged(terrain, fast, ema_decay=0.9, compile=True)
    X, y = (part[:7] for part in terrain)
    kept = segmenter.history_[segmenter.best_epoch_]
    assert segmenter.score(X, y) == pytest.approx(kept["valid_mean_iou"], abs=1e-6)
