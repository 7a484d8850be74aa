import pytest
import torch
from skorch.callbacks import Callback

from skmars import MarsSegmenter


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
    recorder = Weights()
    segmenter.set_params(callbacks=[recorder]).partial_fit(*terrain)
    last = recorder.steps_[-1]["head.weight"]
    assert torch.equal(segmenter.net_.module_.head.weight.double(), last)


def test_average_is_validated_where_training_is_compiled(terrain, fast, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    segmenter, _ = fit_averaged(terrain, fast, ema_decay=0.9, compile=True)
    X, y = (part[:7] for part in terrain)
    kept = segmenter.history_[segmenter.best_epoch_]
    assert segmenter.score(X, y) == pytest.approx(kept["valid_mean_iou"], abs=1e-6)
