import pickle

import numpy as np
import pytest
import torch

from skmars import MarsSegmenter


def test_forward_pass_is_compiled_when_asked(terrain, fast, monkeypatch):
    compiled = []

    def pretend(function):
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", pretend)
    for choice in ("auto", False):
        MarsSegmenter(**fast, compile=choice).fit(*terrain)
    assert compiled == []
    segmenter = MarsSegmenter(**fast, compile=True).fit(*terrain)
    assert compiled == [segmenter.net_.module_.forward]
    MarsSegmenter(**fast, compile=np.True_).fit(*terrain)
    assert len(compiled) == 2


def test_partial_fit_compiles_as_it_is_asked_then(terrain, fast, monkeypatch):
    calls = []

    def pretend(function):
        return lambda x: calls.append(len(x)) or function(x)

    monkeypatch.setattr(torch, "compile", pretend)
    segmenter = MarsSegmenter(**fast, compile=True).fit(*terrain)
    n_calls = len(calls)
    assert n_calls > 0
    segmenter.set_params(compile=False).partial_fit(*terrain)
    assert len(calls) == n_calls
    segmenter.set_params(compile=True).partial_fit(*terrain)
    assert len(calls) > n_calls


@pytest.mark.slow
def test_compiled_and_eager_training_agree(terrain, fast):
    X, y = terrain
    params = {**fast, "max_epochs": 1, "validation_fraction": None, "dropout": 0.0}
    # Without dropout, whose random numbers the compiler draws in its own way.
    eager = MarsSegmenter(**params).fit(X, y)
    compiled = MarsSegmenter(**params, compile=True).fit(X, y)
    np.testing.assert_allclose(compiled.predict_proba(X), eager.predict_proba(X), atol=1e-3)
    again = pickle.loads(pickle.dumps(compiled))
    np.testing.assert_allclose(again.predict_proba(X), compiled.predict_proba(X), atol=1e-5)
