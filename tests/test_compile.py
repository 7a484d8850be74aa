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
