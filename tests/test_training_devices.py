"""Where and how precisely a fitted segmenter computes, and what it leaves as it was."""

import copy
import pickle
from multiprocessing.pool import ThreadPool

import numpy as np
import pytest
import torch
from fit_records import same_state, state_of

from skmars import MarsSegmenter


@pytest.fixture(scope="module")
def pickled(terrain, fast_for_all):
    # Few images: where bfloat16 is imitated, a step takes seconds.
    X, y = (part[:8] for part in terrain)
    params = {**fast_for_all, "max_epochs": 1, "device": "cpu", "validation_fraction": None}
    return pickle.dumps(MarsSegmenter(**params).fit(X, y))


@pytest.fixture
def fitted(pickled):
    return pickle.loads(pickled)


# Parameters that are set after a fit


def test_precision_that_is_set_is_predicted_in(fitted, terrain):
    X = terrain[0][:2]
    exact = fitted.predict_proba(X)
    coarse = fitted.set_params(precision="bfloat16").predict_proba(X)
    assert fitted.precision_ == "bfloat16"
    assert 0 < np.abs(coarse - exact).max() < 0.2
    np.testing.assert_array_equal(fitted.set_params(precision="auto").predict_proba(X), coarse)
    assert fitted.precision_ == "bfloat16"
    again = fitted.set_params(precision="float32").predict_proba(X)
    np.testing.assert_allclose(again, exact, atol=1e-6)


def test_threads_that_predict_after_the_precision_is_set(fitted, terrain):
    X = terrain[0][:2]
    expected = copy.deepcopy(fitted).set_params(precision="bfloat16").predict_proba(X)
    before = torch.get_rng_state()
    fitted.set_params(precision="bfloat16")
    with ThreadPool(4) as threads:
        for found in threads.map(fitted.predict_proba, [X] * 4):
            np.testing.assert_array_equal(found, expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_mosaics_are_predicted_in_the_precision_that_is_set(fitted, terrain):
    image = terrain[0][0]
    fitted.set_params(precision="bfloat16", window=(16, 16))
    labels = fitted.predict_large(image, np.zeros(image.shape, dtype=np.uint8))
    assert fitted.precision_ == "bfloat16"
    np.testing.assert_array_equal(labels, fitted.predict(image[None])[0])


def test_device_that_is_set_is_predicted_on(fitted, terrain):
    X = terrain[0][:2]
    expected = fitted.predict_proba(X)
    found = fitted.set_params(device="cpu:0").predict_proba(X)
    assert fitted.device_ == "cpu:0"
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("params", [{"device": "abacus"}, {"precision": "low"}])
@pytest.mark.parametrize("method", ["predict", "predict_proba", "partial_fit"])
def test_devices_and_precisions_that_do_not_exist(params, method, fitted, terrain):
    X, y = (part[:2] for part in terrain)
    expected = fitted.predict(X)
    arguments = (X, y) if method == "partial_fit" else (X,)
    ((name, value),) = params.items()
    before = fitted.get_params()[name]
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        getattr(fitted.set_params(**params), method)(*arguments)
    np.testing.assert_array_equal(fitted.set_params(**{name: before}).predict(X), expected)


def test_training_goes_on_as_if_nothing_had_been_predicted_in_between(fitted, pickled, terrain):
    X, y = (part[:8] for part in terrain)
    fitted.set_params(precision="bfloat16").predict(X[:2])
    fitted.set_params(precision="float32").partial_fit(X, y)
    expected = pickle.loads(pickled).partial_fit(X, y)
    assert same_state(state_of(fitted), state_of(expected))


# What else there is


def test_default_device_of_torch_does_not_matter(terrain, fast):
    X, y = terrain
    params = {**fast, "max_epochs": 1, "device": "cpu", "loss": torch.nn.functional.cross_entropy}
    expected = MarsSegmenter(**params).fit(X, y)
    torch.set_default_device("meta")
    try:
        segmenter = MarsSegmenter(**params).fit(X, y)
        probabilities = segmenter.predict_proba(X)
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)
    assert same_state(state_of(segmenter), state_of(expected))
    np.testing.assert_array_equal(probabilities, expected.predict_proba(X))


def test_devices_that_are_not_used_are_left_alone(terrain, fast, monkeypatch):
    def refuse(*args):
        raise AssertionError("a device was asked")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("get_rng_state", "set_rng_state", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    MarsSegmenter(**{**fast, "max_epochs": 1}, device="cpu").fit(*terrain).predict(terrain[0])
