import copy
import math
import signal

import numpy as np
import pytest
import torch
from fit_records import same_state, state_of
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback, EarlyStopping

from skmars import MarsSegmenter


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


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_divergence_in_the_last_step_raises(method, terrain, fast):
    params = {**fast, "learning_rate": 1e30, "max_epochs": 1, "batch_size": 24}
    segmenter = MarsSegmenter(**params, scheduler=None, validation_fraction=None)
    with pytest.raises(FloatingPointError, match="diverged"):
        getattr(segmenter, method)(*terrain)
    with pytest.raises(NotFittedError):
        segmenter.predict(terrain[0])


@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("method", ["on_batch_end", "on_epoch_end"])
def test_ctrl_c_within_a_callback_is_no_callback_s_own_stop(method, terrain, fast):
    class Pressed(Callback):
        pass

    def press(self, net, **kwargs):
        if len(net.history) == 2:
            signal.raise_signal(signal.SIGINT)

    setattr(Pressed, method, press)
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 5}, callbacks=[Pressed()])
    with pytest.raises(KeyboardInterrupt):
        segmenter.fit(*terrain)
    with pytest.raises(NotFittedError):
        segmenter.predict(terrain[0])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def moments_of(segmenter):
    return segmenter.net_.optimizer_.state_dict()["state"]


def test_a_partial_fit_that_diverges_leaves_what_was_trained_before(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast).fit(X, y)
    probabilities, history = segmenter.predict_proba(X), list(segmenter.history_)
    moments, untroubled = copy.deepcopy(moments_of(segmenter)), copy.deepcopy(segmenter)
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        segmenter.set_params(learning_rate=1e30).partial_fit(X, y)
    np.testing.assert_array_equal(segmenter.predict_proba(X), probabilities)
    assert segmenter.history_ == history
    assert moments.keys() == moments_of(segmenter).keys()
    for number, state in moments.items():
        for name, value in state.items():
            assert torch.equal(value, moments_of(segmenter)[number][name]), name
    # It goes on as if there had been no such call.
    untroubled.set_params(learning_rate=1e-3).partial_fit(X, y)
    segmenter.set_params(learning_rate=1e-3).partial_fit(X, y)
    assert same_state(state_of(segmenter), state_of(untroubled))
    assert [row["epoch"] for row in segmenter.history_] == [1, 2, 3]


def test_a_callback_that_stops_does_not_hide_a_loss_that_is_not_finite(terrain, fast):
    stop = EarlyStopping(monitor="train_loss", patience=1, sink=lambda text: None)
    with pytest.raises(FloatingPointError, match="diverged"):
        MarsSegmenter(**fast, loss=nan_loss, callbacks=[stop]).fit(*terrain)


def test_weights_that_are_not_finite_where_a_callback_stops_within_an_epoch(terrain, fast):
    class Spoil(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 2:
                net.module_.head.bias.data.fill_(math.nan)
                raise KeyboardInterrupt

    with pytest.raises(FloatingPointError, match="diverged"):
        MarsSegmenter(**fast, ema_decay=None, callbacks=[Spoil()]).fit(*terrain)
