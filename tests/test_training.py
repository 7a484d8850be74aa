import math
import time

import numpy as np
import pytest
import torch
from fit_records import Record, other_masks, same_state, scores_of, state_of
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback, EarlyStopping, EpochScoring

from skmars import MarsSegmenter, device
from skmars.training.callbacks import ValidationScore

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
    scores = scores_of(segmenter)
    # Stopped at the first chance, not later.
    since = [epoch - int(np.argmax(scores[: epoch + 1])) for epoch in range(len(scores))]
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


def test_scores_of_skorch_are_callbacks(terrain, fast):
    def n_channels(net, X, y):
        return net.infer(X[:2][0]).shape[1]

    score = EpochScoring(n_channels, name="channels", use_caching=False)
    segmenter = MarsSegmenter(**fast, callbacks=[score]).fit(*terrain)
    assert [row["channels"] for row in segmenter.net_.history] == [5, 5]


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


# What surrounds a fit


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_of_torch_around_a_fit_change_nothing(mode, terrain, fast, tmp_path):
    expected = MarsSegmenter(**fast).fit(*terrain)
    with mode():
        segmenter = MarsSegmenter(**fast).fit(*terrain)
        segmenter.save(tmp_path / "model")
        loaded = MarsSegmenter.load(tmp_path / "model")
        assert torch.is_grad_enabled() is False
    for one in (segmenter, loaded):
        assert same_state(state_of(one), state_of(expected))
    loaded.partial_fit(*terrain)


def test_loading_measures_arithmetic_in_any_mode(terrain, fast, tmp_path):
    MarsSegmenter(**{**fast, "precision": "auto"}).fit(*terrain).save(tmp_path / "model")
    device._fastest.cache_clear()
    with torch.no_grad():
        loaded = MarsSegmenter.load(tmp_path / "model")
    assert loaded.precision_ in {"float32", "bfloat16"}


@pytest.mark.parametrize("factor", [1e35, 1e-35])
@pytest.mark.parametrize("of_pixels", [True, False])
def test_only_ratios_of_weights_matter(factor, of_pixels, terrain, fast):
    X, y = terrain
    shape = y.shape if of_pixels else len(y)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, shape)
    expected = MarsSegmenter(**fast).fit(X, y, sample_weight=weight).predict_proba(X)
    found = MarsSegmenter(**fast).fit(X, y, sample_weight=factor * weight).predict_proba(X)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_own_loss_is_not_asked_about_images_without_a_label(terrain, fast):
    X, y = terrain
    y = y.copy()
    y[3] = 255
    params = {**fast, "batch_size": 1, "validation_fraction": None, "ignore_label": 255}
    segmenter = MarsSegmenter(**params, loss=torch.nn.CrossEntropyLoss()).fit(X, y)
    assert all(math.isfinite(row["train_loss"]) for row in segmenter.history_)


def test_partial_fit_goes_on_in_another_layout(terrain, fast, monkeypatch):
    found = []
    for channels_last in (False, True):
        monkeypatch.undo()
        arithmetic = device.Arithmetic("float32", False)
        monkeypatch.setattr("skmars.training.net.choose_arithmetic", lambda *_, a=arithmetic: a)
        segmenter = MarsSegmenter(**fast).fit(*terrain)
        arithmetic = device.Arithmetic("float32", channels_last)
        monkeypatch.setattr("skmars.training.steps.choose_arithmetic", lambda *_, a=arithmetic: a)
        found.append(segmenter.partial_fit(*terrain).predict_proba(terrain[0]))
    np.testing.assert_allclose(*found, atol=1e-3)


def test_partial_fit_goes_on_with_the_optimizer(terrain, fast):
    segmenter = MarsSegmenter(**fast)
    for n_calls in (1, 2, 3):
        segmenter.partial_fit(*terrain)
        steps = {int(state["step"]) for state in segmenter.net_.optimizer_.state.values()}
        assert steps == {3 * n_calls}


def test_best_epoch_of_a_warm_start_is_not_of_an_earlier_fit(terrain, fast):
    X, y = terrain
    params = {**fast, "max_epochs": 6, "learning_rate": 0.01, "early_stopping": True}
    segmenter = MarsSegmenter(**params, warm_start=True, ema_decay=None)
    segmenter.fit(X, y, validation_data=(X, y))
    segmenter.set_params(learning_rate=0.3, max_epochs=2).fit(X, y, validation_data=(X, y))
    scores = scores_of(segmenter)
    assert max(scores[:6]) > max(scores[6:])
    assert segmenter.best_epoch_ == 6 + np.argmax(scores[6:])
