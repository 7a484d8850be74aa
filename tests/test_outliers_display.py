import sys
import tracemalloc

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from pictures import shown
from sklearn.exceptions import NotFittedError

from skmars.inspection import OutlierDisplay
from skmars.outliers import OutlierRemover


@pytest.fixture
def spoiled(terrain):
    """Scenes of which rows 2, 5 and 8 share an intricate mask, and a remover that knows it."""
    X, y = terrain
    y = np.random.default_rng(0).integers(0, 3, y.shape)
    y[[2, 5, 8]] = y[2]
    return X, y, OutlierRemover(method="repeated_mask").fit(X, y)


def test_shows_each_outlier_with_its_reason(spoiled):
    X, _, remover = spoiled
    display = OutlierDisplay.from_estimator(remover, X, images_per_row=2)
    assert display.axes_.shape == (2, 2)
    assert [len(panel.images) for panel in display.axes_.ravel()] == [1, 1, 1, 0]
    titles = [panel.get_title(loc="left") for panel in display.axes_.ravel()[:3]]
    assert titles == [f"image {row}\nshares its mask with 2 other images" for row in (2, 5, 8)]
    assert display.figure_ is display.axes_[0, 0].figure


def test_shows_masks_beside_the_images(spoiled):
    X, y, remover = spoiled
    display = OutlierDisplay.from_estimator(remover, X, y, images_per_row=3)
    assert display.axes_.shape == (1, 6)
    mask = shown(display.axes_[0, 1])
    assert mask.shape == (*y.shape[1:], 3)
    assert len(np.unique(mask.reshape(-1, 3), axis=0)) == len(np.unique(y[2]))
    np.testing.assert_array_equal(mask, shown(display.axes_[0, 3]))


def test_a_label_has_one_colour_in_all_masks(spoiled):
    X, y, _ = spoiled
    y = np.full_like(y, 255)
    y[2, 0, 0], y[5, 0, 0] = 0, 1
    # Masks may also be one array.
    display = OutlierDisplay(X[:2], [2, 5], ["", ""], masks=y[[2, 5]]).plot(images_per_row=2)
    first, second = shown(display.axes_[0, 1]), shown(display.axes_[0, 3])
    assert not np.array_equal(first[0, 0], second[0, 0])
    np.testing.assert_array_equal(first[1], second[1])


def test_the_highest_scores_come_first(spoiled):
    X, _, remover = spoiled
    remover.scores_[8] += 5
    display = OutlierDisplay.from_estimator(remover, X, max_images=2)
    assert list(display.rows) == [8, 2]


def test_a_dark_image_looks_dark(spoiled):
    X, _, remover = spoiled
    X = X.copy()
    X[2] = np.arange(X[2].size).reshape(X[2].shape) % 3
    display = OutlierDisplay.from_estimator(remover, X, images_per_row=3)
    assert shown(display.axes_[0, 0]).max() < 0.2
    stretched = OutlierDisplay(display.images, display.rows, display.reasons).plot()
    assert shown(stretched.axes_[0, 0]).max() > 0.8


@pytest.mark.parametrize("n_channels", [1, 2, 3])
def test_any_number_of_channels(spoiled, n_channels):
    X, _, remover = spoiled
    X = np.repeat(X[..., None], n_channels, axis=3)
    display = OutlierDisplay.from_estimator(remover, X)
    assert shown(display.axes_[0, 0]).shape == (*X.shape[1:3], 3)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.float16])
def test_images_of_other_dtypes(spoiled, dtype):
    X, _, remover = spoiled
    bright = X > 100
    images = bright if dtype is bool else np.where(bright, 127, -127).astype(dtype)
    display = OutlierDisplay.from_estimator(remover, images)
    assert display.limits == ((0.0, 1.0) if dtype is bool else (-127.0, 127.0))


def test_images_in_an_array(spoiled):
    X = spoiled[0]
    display = OutlierDisplay(X[:2], [0, 1], ["a", "b"]).plot()
    assert [panel.get_title(loc="left") for panel in display.axes_.flat[:2]] == [
        "image 0\na",
        "image 1\nb",
    ]


def test_limits_take_little_memory():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (96, 400, 500), dtype=np.uint8)
    y = rng.integers(0, 3, X.shape, dtype=np.uint8)
    y[:3] = y[0]
    remover = OutlierRemover(method="repeated_mask").fit(X, y)
    tracemalloc.start()
    display = OutlierDisplay.from_estimator(remover, X, max_images=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * X.size / 2
    np.testing.assert_allclose(display.limits, np.percentile(X, (0.5, 99.5)), atol=2)


def test_without_outliers(terrain):
    remover = OutlierRemover(method="repeated_mask").fit(*terrain)
    display = OutlierDisplay.from_estimator(remover, terrain[0])
    assert display.axes_[0, 0].get_title(loc="left") == "no outliers"


def test_in_an_axes_of_the_user(spoiled):
    X, _, remover = spoiled
    figure, ax = plt.subplots()
    assert OutlierDisplay.from_estimator(remover, X, ax=ax).figure_ is figure


def test_bad_input(spoiled):
    X, y, remover = spoiled
    with pytest.raises(ValueError, match="fitted to 24 images, but X has 23"):
        OutlierDisplay.from_estimator(remover, X[1:])
    with pytest.raises(ValueError, match="but y has 20"):
        OutlierDisplay.from_estimator(remover, X, y[:20])
    with pytest.raises(NotFittedError):
        OutlierDisplay.from_estimator(OutlierRemover(), X)


def test_says_what_to_install(spoiled, monkeypatch):
    X, _, remover = spoiled
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="the extra 'plot'"):
        OutlierDisplay.from_estimator(remover, X)
