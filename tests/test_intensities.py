import tracemalloc
import warnings

import numpy as np
import pytest

from skmars import MarsSegmenter


@pytest.fixture(scope="module")
def segmenter(terrain, fast_for_all):
    return MarsSegmenter(**fast_for_all).fit(*terrain)


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
@pytest.mark.parametrize(
    "change",
    [
        lambda X: X / 255.0,
        lambda X: X.astype(np.uint16) * 257,
        lambda X: list(X / np.float32(255)),
        lambda X: np.stack([X, X, X], axis=-1) / 255,
    ],
    ids=["fractions", "16 bits", "list", "colour"],
)
def test_images_on_another_scale_than_in_training_warn(change, method, terrain, segmenter):
    images = change(terrain[0][:3])
    if np.ndim(images) == 4:
        X, y = terrain
        segmenter = MarsSegmenter(**segmenter.get_params()).fit(np.stack([X] * 3, axis=-1), y)
    with pytest.warns(UserWarning, match="same scale"):
        getattr(segmenter, method)(images)


@pytest.mark.parametrize(
    "change",
    [
        lambda X: X,
        lambda X: X // 8,
        lambda X: X.astype(float) * 3,
        lambda X: np.zeros_like(X),
        lambda X: np.full_like(X, 255),
    ],
    ids=["as in training", "dark", "bright", "black", "white"],
)
def test_images_of_another_light_do_not_warn(change, terrain, segmenter):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segmenter.predict(change(terrain[0][:3]))


def test_foreign_byte_order_is_not_copied_as_a_whole(terrain, segmenter):
    # As FITS files have it; so many tiles that a copy of all would show.
    X = np.tile(terrain[0], (10, 1, 1)).astype(">f8")
    y = np.tile(terrain[1], (10, 1, 1))
    once = MarsSegmenter(**segmenter.get_params()).set_params(batch_size=8)
    once.fit(X[:24], y[:24])
    tracemalloc.start()
    once.partial_fit(X, y)
    once.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    labels = y.nbytes
    assert peak < labels + X.nbytes / 2


def test_images_without_data_are_told_what_to_do(terrain):
    X, y = terrain[0].astype(float), terrain[1]
    X[3, :2] = np.nan
    with pytest.raises(ValueError, match=r"X contains NaN.*ignore_label"):
        MarsSegmenter().fit(X, y)
    X[3, :2] = np.inf
    with pytest.raises(ValueError, match=r"X contains infinity.*ignore_label"):
        MarsSegmenter().fit(X, y)
