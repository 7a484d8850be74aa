import copy
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


PREDICTIONS = {
    "predict": lambda segmenter, X: segmenter.predict(X),
    "predict_proba": lambda segmenter, X: segmenter.predict_proba(X),
    "predict_large": lambda segmenter, X: segmenter.predict_large(
        X[1], np.zeros(X[1].shape, np.uint8)
    ),
}


@pytest.mark.parametrize("predict", PREDICTIONS.values(), ids=PREDICTIONS)
def test_warning_points_at_the_caller(predict, terrain, segmenter):
    X = terrain[0][:3] / 255
    with pytest.warns(UserWarning, match="same scale") as caught:
        predict(segmenter, X)
    assert [warning.filename for warning in caught] == [__file__]


TRAININGS = {
    "partial_fit": lambda one, X, y: one.partial_fit(X / 255, y),
    "warm_start": lambda one, X, y: one.set_params(warm_start=True).fit(X / 255, y),
    "validation_data": lambda one, X, y: one.fit(X, y, validation_data=(X[:4] / 255, y[:4])),
}


@pytest.mark.parametrize("train", TRAININGS.values(), ids=TRAININGS)
def test_trainings_on_another_scale_than_before_warn(train, terrain, segmenter):
    again = copy.deepcopy(segmenter)
    with pytest.warns(UserWarning, match="same scale") as caught:
        train(again, *terrain)
    assert [warning.filename for warning in caught] == [__file__]


def test_channels_are_compared_each_with_its_own(terrain, fast):
    X, y = terrain
    # Reflectance and elevation: what is between their means is no spread.
    X = np.stack([X / 255, X * 0.1 - 4500], axis=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segmenter = MarsSegmenter(**fast).fit(X, y)
        segmenter.predict(X)
        segmenter.predict_large(X[0], np.zeros(X.shape[1:3], np.uint8))
    with pytest.warns(UserWarning, match="same scale"):
        segmenter.predict(X * 1000)


def test_constant_first_image_hides_no_other(terrain, segmenter):
    X = terrain[0][:12] / 255
    X[0] = 0.1
    with pytest.warns(UserWarning, match="same scale"):
        segmenter.predict(X)


@pytest.mark.parametrize(
    "change",
    [
        lambda X: [X[0] / 255, X[1]],
        lambda X: [X[0].astype(float) * 257, X[1], X[2] / 255],
        lambda X: np.concatenate([X[:5] / 255, X[5:]]),
    ],
)
def test_images_that_are_not_all_on_another_scale_do_not_warn(change, terrain, segmenter):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segmenter.predict(change(terrain[0]))


def test_flat_image_among_fractions_does_not_warn(terrain, fast):
    X, y = terrain[0] / 255, terrain[1]
    segmenter = MarsSegmenter(**fast).fit(X, y)
    sky = np.random.default_rng(0).normal(0.7, 0.001, (1, 32, 48))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segmenter.predict(sky)
        segmenter.predict_large(sky[0], np.zeros((32, 48), np.uint8))
    with pytest.warns(UserWarning, match="same scale"):
        segmenter.predict(terrain[0])


def test_image_is_not_copied_to_be_looked_at(segmenter):
    X = np.random.default_rng(0).integers(0, 255, (1, 1000, 1000), dtype=np.uint8)
    tracemalloc.start()
    labels = segmenter.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes + labels.nbytes + 4 * X.size


@pytest.mark.parametrize("nodata", [None, -9999.0])
def test_mosaics_on_another_scale_warn(nodata, terrain, segmenter):
    mosaic = np.tile(terrain[0][0], (5, 5)) / 255
    how = {}
    if nodata is not None:
        mosaic[:30] = nodata
        how = {"nodata": nodata, "nodata_label": 255}
    target = np.zeros(mosaic.shape, np.uint8)
    with pytest.warns(UserWarning, match="same scale"):
        segmenter.predict_large(mosaic, target, **how)


def test_pixels_without_data_have_no_scale(terrain, segmenter):
    mosaic = np.tile(terrain[0][0], (5, 5)).astype(np.float32)
    # Each of the patches that are looked at has some.
    mosaic[::7] = -3e38
    target = np.zeros(mosaic.shape, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        segmenter.predict_large(mosaic, target, nodata=-3e38, nodata_label=255)


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("predict", PREDICTIONS.values(), ids=PREDICTIONS)
@pytest.mark.filterwarnings("ignore:the images have")
def test_intensities_beyond_what_the_net_computes_are_refused(predict, tta, terrain, segmenter):
    X = terrain[0][:3].astype(float)
    X[1, 5, 5] = 1e300
    segmenter.set_params(tta=tta)
    try:
        with pytest.raises(ValueError, match=r"not finite.*their median"):
            predict(segmenter, X)
    finally:
        segmenter.set_params(tta=False)


# Missing data in training


def reflectances(terrain, fill):
    """Fractions up to 0.3 whose first rows are without data and ignored."""
    X, y = terrain[0] / np.float32(850), terrain[1].astype(np.int16)
    X[:, :4], y[:, :4] = fill, 255
    return X, y


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("fill", [-9999, -1e30, 5])
def test_filling_that_images_would_be_scaled_by_warns(fill, method, terrain, fast):
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 1}, ignore_label=255)
    with pytest.warns(UserWarning, match=r"ignore_label=255.*their median") as caught:
        getattr(segmenter, method)(*reflectances(terrain, fill))
    assert caught[0].filename == __file__


def test_filling_of_one_channel_alone_warns(terrain, fast):
    X, y = reflectances(terrain, 0.1)
    rgb = np.stack([X, X, X], axis=-1)
    rgb[:, :4, :, 2] = -9999
    with pytest.warns(UserWarning, match=r"ignore_label=255.*their median"):
        MarsSegmenter(**{**fast, "max_epochs": 1}, ignore_label=255).fit(rgb, y)


def test_filling_like_the_other_pixels_does_not_warn(terrain, fast):
    X, y = reflectances(terrain, 0.1)
    # Opacity varies only where there are no data.
    X = np.stack([X, np.where(y == 255, 0, 1)], axis=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MarsSegmenter(**{**fast, "max_epochs": 1}, ignore_label=255).fit(X, y)


@pytest.mark.parametrize("border", [0, 255])
def test_black_or_white_borders_do_not_warn(border, terrain, fast):
    X, y = terrain[0].copy(), terrain[1].astype(np.int16)
    X[:, :, :24], y[:, :, :24] = border, 255
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MarsSegmenter(**{**fast, "max_epochs": 1}, ignore_label=255).fit(X, y)


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
    with pytest.raises(ValueError, match=r"X contains NaN.*their median.*ignore_label"):
        MarsSegmenter().fit(X, y)
    X[3, :2] = np.inf
    with pytest.raises(ValueError, match=r"X contains infinity.*their median.*ignore_label"):
        MarsSegmenter().fit(X, y)
