import itertools

import numpy as np
import pytest
import torch

from skmars import MarsSegmenter
from skmars.prediction.windows import cover

SIDE = (32, 48)


@pytest.fixture(scope="module")
def small(terrain):
    """A trained net."""
    return train(terrain)


def train(terrain, **params):
    X, y = terrain
    segmenter = MarsSegmenter(
        depth=2,
        base_channels=4,
        max_epochs=2,
        learning_rate=0.01,
        batch_size=8,
        precision="float32",
        random_state=0,
        n_threads=1,
        tta=False,
        **params,
    )
    # Labels that are no indices, of a dtype of their own.
    return segmenter.fit(X, (10 * y).astype(np.int16))


def with_windows(segmenter, window, overlap=0.25, **params):
    """The same trained net with other windows, leaving the fixture as it is."""
    other = MarsSegmenter(**{**segmenter.get_params(), **params})
    vars(other).update({k: v for k, v in vars(segmenter).items() if k.endswith("_")})
    return other.set_params(window=window, overlap=overlap)


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape).astype(dtype)


# Where windows lie


@pytest.mark.parametrize("grid", [1, 4, 16])
@pytest.mark.parametrize("overlap", [0.0, 1 / 24, 0.25, 0.5, 0.8, 0.99])
@pytest.mark.parametrize(("length", "side"), [(1, 16), (16, 16), (17, 16), (200, 48), (301, 50)])
def test_windows_cover_an_axis(length, side, overlap, grid):
    spans = cover(length, side, overlap, grid)
    total = np.zeros(length)
    for span in spans:
        assert span.start % grid == 0
        assert 0 < span.stop - span.start <= side
        assert span.weights.min() >= 0
        total[span.start : span.stop] += span.weights
    np.testing.assert_allclose(total, 1, atol=1e-6)
    for one, other in itertools.pairwise(spans):
        wanted = min(side * overlap, side - grid)
        assert one.stop - other.start >= wanted - 1e-6
        halo = (one.stop - other.start) // 3
        assert not one.weights[len(one.weights) - halo :].any()
        assert not other.weights[:halo].any()
    # The ends of the image are no borders of windows.
    assert (spans[0].start, spans[-1].stop) == (0, length)
    assert spans[0].weights[0] == spans[-1].weights[-1] == 1


def test_weights_fall_off_smoothly():
    for span in cover(500, 128, 0.5, 8):
        assert np.abs(np.diff(span.weights)).max() < 0.15


def test_as_few_windows_as_will_do():
    assert len(cover(736 + 768, 768, 1 / 24, 8)) == 2
    assert len(cover(736 + 769, 768, 1 / 24, 8)) == 3


# Windows against whole images


@pytest.mark.parametrize("shape", [(288, 160), (267, 151), (40, 401)])
@pytest.mark.parametrize("skip", ["concat", "fusion"])
def test_windows_equal_the_whole_image_if_the_halo_holds_the_receptive_field(
    shape, skip, terrain, small
):
    segmenter = small if skip == "concat" else train(terrain, skip=skip)
    X = noise(1, *shape)
    # Its radius at depth 2 is 45 pixels; a third of what these windows share is 48.
    windowed = with_windows(segmenter, (192, 192), 0.75)
    np.testing.assert_allclose(windowed.predict_proba(X), segmenter.predict_proba(X), atol=2e-5)


def test_halo_within_the_receptive_field_shows(small):
    X = noise(1, 128, 128)
    near = with_windows(small, (64, 64), 0.25).predict_proba(X)
    assert np.abs(near - small.predict_proba(X)).max() > 1e-3


def test_wide_windows_equal_the_whole_image_far_from_their_borders(small):
    X = noise(1, 128, 256)
    whole = small.predict_proba(X)
    halves = with_windows(small, (128, 128), 0.0).predict_proba(X)
    error = np.abs(halves - whole).max(axis=(0, 1, 2))
    assert error[:82].max() < 2e-5
    assert error[174:].max() < 2e-5
    assert error[126:130].max() > 1e-3


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("window", [SIDE, (33, 49), (1000, 1000)])
def test_images_that_fit_into_the_window_are_predicted_whole(window, tta, small, terrain):
    X, _ = terrain
    whole = with_windows(small, None, tta=tta)
    windowed = with_windows(small, window, tta=tta)
    np.testing.assert_array_equal(windowed.predict(X), whole.predict(X))
    np.testing.assert_array_equal(windowed.predict_proba(X), whole.predict_proba(X))


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize(("window", "overlap"), [((32, 40), 0.25), ((50, 16), 0.8), ([24, 24], 0)])
def test_probabilities_add_up_and_give_the_labels(window, overlap, tta, small):
    X = noise(3, 75, 90)
    segmenter = with_windows(small, window, overlap, tta=tta)
    proba = segmenter.predict_proba(X)
    assert proba.shape == (3, 5, 75, 90)
    assert proba.dtype == np.float32
    assert proba.min() >= 0
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-5)
    labels = segmenter.predict(X)
    assert labels.dtype == np.int16
    np.testing.assert_array_equal(labels, segmenter.classes_[proba.argmax(axis=1)])


def test_tta_of_windows_is_that_of_the_whole_image(small):
    X = noise(1, 64, 128)
    whole = with_windows(small, None, tta=True).predict_proba(X)
    windowed = with_windows(small, (64, 120), 0.75, tta=True).predict_proba(X)
    np.testing.assert_allclose(windowed, whole, atol=2e-5)


@pytest.mark.parametrize("tta", [False, True])
def test_blending_is_the_weighted_mean_of_the_windows(tta, small):
    X = noise(1, 70, 85)
    expected = np.zeros((5, 70, 85))
    for row in cover(70, 32, 0.5, 4):
        for column in cover(85, 40, 0.5, 4):
            part = X[:, row.start : row.stop, column.start : column.stop]
            p = small.predict_proba(part)[0]
            if tta:
                p = (p + small.predict_proba(part[:, :, ::-1])[0, ..., ::-1]) / 2
            weights = np.outer(row.weights, column.weights)
            expected[:, row.start : row.stop, column.start : column.stop] += weights * p
    actual = with_windows(small, (32, 40), 0.5, tta=tta).predict_proba(X)[0]
    np.testing.assert_allclose(actual, expected, atol=2e-5)


def test_net_that_is_constant_leaves_no_seam(small):
    segmenter = with_windows(small, (32, 48), 0.5)
    head = small.net_.module_.head
    before = head.weight.detach().clone()
    try:
        torch.nn.init.zeros_(head.weight)
        proba = segmenter.predict_proba(noise(1, 100, 130))
    finally:
        with torch.no_grad():
            head.weight.copy_(before)
    np.testing.assert_allclose(proba, np.broadcast_to(proba[..., :1, :1], proba.shape), atol=1e-6)


# Many images


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_windows_depend_neither_on_the_batch_nor_on_other_images(batch_size, small):
    # The first is as wide as the last window of a row of the second.
    sizes = [(140, 38), (75, 90), (20, 30), (75, 90), (140, 35), (33, 200), (16, 16), (32, 40)]
    images = [noise(*size, seed=k) for k, size in enumerate(sizes)]
    images[3] = images[3].astype(np.float32)
    images[4] = images[4][..., None]
    segmenter = with_windows(small, (32, 40), 0.5, batch_size=batch_size)
    together, labels = segmenter.predict_proba(images), segmenter.predict(images)
    for image, p, label in zip(images, together, labels, strict=True):
        np.testing.assert_allclose(p, segmenter.predict_proba(image[None])[0], atol=2e-5)
        assert label.shape == image.shape[:2]
        np.testing.assert_array_equal(label, segmenter.classes_[p.argmax(axis=0)])


class Spy:
    """Notes the shapes that a net is given."""

    def __init__(self, net):
        self.net, self.infer, self.shapes = net, net.predictor(), []

    def __enter__(self):
        self.net.predictor = lambda: self._infer
        return self.shapes

    def __exit__(self, *error):
        del self.net.predictor

    def _infer(self, x):
        self.shapes.append(tuple(x.shape))
        return self.infer(x)


def test_windows_of_many_images_fill_batches(small):
    segmenter = with_windows(small, (32, 32), 0.0, batch_size=8)
    images = [noise(64, 64, seed=k) for k in range(4)] + [noise(64, 128)] * 2
    with Spy(segmenter.net_) as shapes:
        segmenter.predict(images)
    assert shapes == [(8, 1, 32, 32)] * 4
    # Few windows a row come from many images.
    with Spy(segmenter.net_) as shapes:
        segmenter.predict(noise(8, 64, 32))
    assert shapes == [(8, 1, 32, 32)] * 2


def test_batches_of_large_windows_are_smaller(small):
    segmenter = with_windows(small, (512, 256), 0.0, batch_size=8)
    with Spy(segmenter.net_) as shapes:
        segmenter.predict(noise(1, 512, 1024))
    assert shapes == [(2, 1, 512, 256)] * 2


def test_batches_of_large_images_are_smaller(small):
    segmenter = with_windows(small, None, 0.0, batch_size=8)
    with Spy(segmenter.net_) as shapes:
        segmenter.predict(noise(3, 512, 256))
        segmenter.predict(noise(2, 512, 1024))
        segmenter.predict(noise(9, 32, 64))
    assert shapes[:2] == [(2, 1, 512, 256), (1, 1, 512, 256)]
    assert shapes[2:4] == [(1, 1, 512, 1024)] * 2
    assert shapes[4:] == [(5, 1, 32, 64), (4, 1, 32, 64)]


def test_colour_images_in_windows(terrain):
    X, y = terrain
    rgb = np.stack([X, 255 - X, X // 2], axis=-1)
    segmenter = MarsSegmenter(
        depth=2, base_channels=2, max_epochs=1, random_state=0, window=(16, 16)
    ).fit(rgb, y)
    assert segmenter.predict(rgb).shape == y.shape
    assert 0 <= segmenter.score(list(rgb), list(y)) <= 1


# Wrong windows, also those that are set after the fit


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"window": (3, 32)}, r"window.*4.*\(3, 32\)"),
        ({"window": (32,)}, "window"),
        ({"window": 32}, "window"),
        ({"window": (32.0, 32)}, "window"),
        ({"window": (32, 32), "overlap": 1.0}, "overlap"),
        ({"window": (32, 32), "overlap": -0.1}, "overlap"),
        ({"window": (32, 32), "overlap": None}, "overlap"),
        ({"window": (32, 32), "overlap": float("nan")}, "overlap"),
    ],
)
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_wrong_windows_show_at_prediction(params, match, method, small):
    segmenter = with_windows(small, None).set_params(**params)
    with pytest.raises(ValueError, match=match):
        getattr(segmenter, method)(noise(1, 64, 64))
    with pytest.raises(ValueError, match=match):
        segmenter.predict_large(noise(64, 64), np.zeros((64, 64), np.int16))
