import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback

from skmars import Augmenter, MarsSegmenter
from skmars.batches import SegmentationDataset, measure_scaling
from skmars.losses import IGNORE_INDEX
from skmars.transforms import Batch

OFF = {"horizontal_flip": False}
EACH = [
    {"horizontal_flip": True},
    {**OFF, "vertical_flip": True},
    {**OFF, "brightness": 0.5},
    {**OFF, "contrast": 0.5},
    {**OFF, "crop_scale": 0.5},
    {**OFF, "crop_scale": 2.0, "ignore_label": 9},
    {**OFF, "paste_rare_class": 1.0},
    {**OFF, "cutmix": 1.0},
]
CROP = {**OFF, "random_crop": 0.5}
EVERYTHING = {
    "vertical_flip": True,
    "brightness": 0.3,
    "contrast": 0.3,
    "crop_scale": (0.6, 1.3),
    "paste_rare_class": 0.5,
    "cutmix": 0.5,
    "ignore_label": 9,
}


def copies(X, y, **params):
    """Only the changed copies."""
    X_more, y_more = Augmenter(random_state=0, **params).fit_resample(X, y)
    return X_more[len(X) :], y_more[len(X) :]


def matched(n=200, shape=(12, 20)):
    """Images whose intensity tells their label: 10 a label, 40 for the rarest."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, (n, *shape))
    y[: n // 10, 2:5, 3:6] = 4
    return (10 * y).astype(np.uint8), y


def prepared(X, y, **params):
    dataset = SegmentationDataset(X, y, np.unique(y), None)
    mean, scale = measure_scaling(X, dataset.rows)
    return Augmenter(**params).prepare(dataset, mean, scale, np.random.default_rng(0)), dataset


def changed(augment, dataset, weight=None):
    images, (target, _) = dataset[np.arange(len(dataset))]
    return augment(Batch(images.float(), target, weight))


@pytest.mark.parametrize("n_copies", [0, 1, 3])
def test_copies_are_appended_to_what_was_given(terrain, n_copies):
    X, y = terrain
    augmenter = Augmenter(n_copies=n_copies, crop_scale=0.7, random_state=0)
    X_more, y_more = augmenter.fit_resample(X, y)
    assert X_more.shape == (len(X) * (1 + n_copies), *X.shape[1:])
    assert X_more.dtype == X.dtype
    assert y_more.dtype == y.dtype
    np.testing.assert_array_equal(X_more[: len(X)], X)
    np.testing.assert_array_equal(y_more[: len(X)], y)
    np.testing.assert_array_equal(augmenter.sample_indices_, np.arange(len(X_more)) % len(X))


def test_no_copies_hand_back_the_arrays_themselves(terrain):
    X, y = terrain
    X_more, y_more = Augmenter(n_copies=0).fit_resample(X, y)
    assert X_more is X
    assert y_more is y


def test_copies_differ_from_each_other():
    X, y = matched(50)
    X_more, _ = Augmenter(n_copies=2, brightness=0.5, random_state=0).fit_resample(X, y)
    assert not np.array_equal(X_more[50:100], X_more[100:])


def test_copies_are_made_a_few_at_a_time(monkeypatch):
    X, y = matched(50)
    monkeypatch.setattr("skmars.augmentation.NUMBERS_AT_ONCE", 7 * X[0].size)
    augmenter = Augmenter(n_copies=2, random_state=0)
    X_more, y_more = augmenter.fit_resample(X, y)
    np.testing.assert_array_equal(X_more, 10 * y_more)
    # Each is its original or the mirror image of it.
    originals = X[augmenter.sample_indices_]
    turned = (X_more != originals).any(axis=(1, 2))
    assert 0.35 < turned[50:].mean() < 0.65
    np.testing.assert_array_equal(X_more[turned], originals[turned, :, ::-1])


def test_regions_are_pasted_a_few_images_at_a_time(monkeypatch):
    X, y = matched(50)
    monkeypatch.setattr("skmars.augmentation.NUMBERS_AT_ONCE", 7 * X[0].size)
    augmenter = Augmenter(**OFF, paste_rare_class=1.0, n_copies=2, random_state=0)
    X_more, y_more = augmenter.fit_resample(X, y)
    np.testing.assert_array_equal(X_more, 10 * y_more)
    pasted = y_more == 4
    assert pasted[50:].any(axis=(1, 2)).all()
    np.testing.assert_array_equal(y_more[~pasted], y[augmenter.sample_indices_][~pasted])


@pytest.mark.parametrize(("dim", "name"), [(2, "horizontal_flip"), (1, "vertical_flip")])
def test_flips_turn_half_of_the_images_with_their_masks(dim, name):
    X, y = matched()
    X_copy, y_copy = copies(X, y, **{**OFF, name: True})
    turned = np.array([np.array_equal(a, b) for a, b in zip(np.flip(X, dim), X_copy, strict=True)])
    assert 0.35 < turned.mean() < 0.65
    np.testing.assert_array_equal(X_copy, np.where(turned[:, None, None], np.flip(X, dim), X))
    np.testing.assert_array_equal(y_copy, np.where(turned[:, None, None], np.flip(y, dim), y))


@pytest.mark.parametrize("params", [EACH[0], EACH[1], EACH[6]])
def test_image_and_mask_move_together_to_the_pixel(params):
    X_copy, y_copy = copies(*matched(), **params)
    np.testing.assert_array_equal(X_copy, 10 * y_copy)


def test_window_of_an_image_and_its_mask_are_the_same():
    # A ramp is the same after a bilinear resize, so that it tells where the window was.
    column = np.tile(np.arange(40.0), (100, 16, 1))
    X_copy, y_copy = copies(column, column.astype(int), **OFF, crop_scale=0.5)
    assert np.abs(X_copy - y_copy).max() <= 0.5 + 1e-9
    extent = X_copy[:, 0, -1] - X_copy[:, 0, 0]
    assert 0.49 * 39 < extent.min() < 0.56 * 39
    assert 0.94 * 39 < extent.max() <= 39
    assert X_copy.min() < 1
    assert X_copy.max() > 38


def test_window_beyond_the_image_shows_the_mean_and_no_label():
    X, y = matched()
    augmenter = Augmenter(**OFF, crop_scale=(2.0, 2.0), ignore_label=9, random_state=0)
    X_more, y_more = augmenter.fit_resample(X, y)
    empty = y_more[len(X) :] == 9
    assert empty.mean() == pytest.approx(0.75, abs=0.01)
    assert set(X_more[len(X) :][empty]) == {round(X.mean())}


def test_window_of_the_whole_image_changes_nothing():
    X, y = matched()
    X_copy, y_copy = copies(X, y, **OFF, crop_scale=(1, 1))
    np.testing.assert_array_equal(X_copy, X)
    np.testing.assert_array_equal(y_copy, y)


def test_brightness_shifts_by_standard_deviations():
    X = np.random.default_rng(0).normal(5, 2, (300, 6, 7))
    y = np.zeros(X.shape, int)
    shift = copies(X, y, **OFF, brightness=0.5)[0] - X
    assert np.ptp(shift, axis=(1, 2)).max() < 1e-9
    assert -1.01 < shift.min() < -0.95
    assert 0.95 < shift.max() < 1.01


def test_contrast_stretches_around_the_mean_of_the_image():
    X = np.random.default_rng(0).normal(5, 2, (300, 6, 7, 2))
    X_copy = copies(X, np.zeros(X.shape[:3], int), **OFF, contrast=0.4)[0]
    np.testing.assert_allclose(X_copy.mean(axis=(1, 2)), X.mean(axis=(1, 2)))
    factor = X_copy.std(axis=(1, 2)) / X.std(axis=(1, 2))
    np.testing.assert_allclose(factor[:, 0], factor[:, 1])
    assert 0.6 <= factor.min() < 0.65
    assert 1.35 < factor.max() <= 1.4 + 1e-9


def test_ignored_label_that_masks_neither_have_nor_hold(terrain):
    X, y = terrain
    y_more = Augmenter(ignore_label=-1, random_state=0).fit_resample(X, y.astype(np.uint8))[1]
    assert y_more.dtype == np.uint8
    np.testing.assert_array_equal(np.unique(y_more), np.unique(y))


def test_contrast_of_a_range():
    X = np.random.default_rng(0).normal(5, 2, (300, 6, 7))
    X_copy = copies(X, np.zeros(X.shape, int), **OFF, contrast=(0.5, 0.9))[0]
    factor = X_copy.std(axis=(1, 2)) / X.std(axis=(1, 2))
    assert 0.5 - 1e-9 <= factor.min() < 0.53
    assert 0.87 < factor.max() <= 0.9 + 1e-9
    assert factor.mean() == pytest.approx(0.7, abs=0.02)


def test_rare_regions_are_pasted_in_their_rows_only():
    X, y = matched()
    copy = copies(X, y, **OFF, paste_rare_class=1.0)[1]
    assert (copy == 4).any(axis=(1, 2)).all()
    rows = (copy == 4).any(axis=(0, 2))
    np.testing.assert_array_equal(np.flatnonzero(rows), [2, 3, 4])
    # Sideways they go anywhere.
    assert (copy == 4).any(axis=(0, 1)).all()
    np.testing.assert_array_equal(copy[copy != 4], y[copy != 4])


def test_probability_of_pasting():
    X, y = matched(1000)
    changed = copies(X, y, **OFF, paste_rare_class=0.3)[1][100:] == 4
    assert 0.25 < changed.any(axis=(1, 2)).mean() < 0.35


def test_images_without_weight_give_no_regions():
    X, y = matched()
    weight = np.ones(len(X))
    weight[1:20] = 0
    y[0, 7, 7] = 4
    dataset = SegmentationDataset(X, y, np.unique(y), None, sample_weight=weight)
    augmenter = Augmenter(**OFF, paste_rare_class=1.0)
    augment = augmenter.prepare(dataset, np.zeros(1), np.ones(1), np.random.default_rng(0))
    pasted = changed(augment, dataset).target[20:] == 3
    assert pasted.any(dim=(1, 2)).all()
    assert set(torch.nonzero(pasted)[:, 1].tolist()) == {2, 3, 4, 7}
    weight[0] = 0
    assert not (
        changed(
            augmenter.prepare(dataset, np.zeros(1), np.ones(1), np.random.default_rng(0)), dataset
        ).target[20:]
        == 3
    ).any()


def test_pixels_without_weight_are_not_pasted():
    X, y = matched()
    weight = np.ones(y.shape)
    weight[:20, 2:4, 3:6] = 0
    dataset = SegmentationDataset(X, y, np.unique(y), None, sample_weight=weight)
    augmenter = Augmenter(**OFF, paste_rare_class=1.0)
    augment = augmenter.prepare(dataset, np.zeros(1), np.ones(1), np.random.default_rng(0))
    pasted = changed(augment, dataset).target[20:] == 3
    assert set(torch.nonzero(pasted)[:, 1].tolist()) == {4}


def test_pixels_without_weight_are_not_the_rarest_class():
    X, y = matched()
    weight = np.where(y == 4, 0.0, 1.0)
    dataset = SegmentationDataset(X, y, np.unique(y), None, sample_weight=weight)
    augmenter = Augmenter(**OFF, paste_rare_class=1.0)
    augment = augmenter.prepare(dataset, np.zeros(1), np.ones(1), np.random.default_rng(0))
    rarest = int(np.bincount(y.ravel(), minlength=3)[:3].argmin())
    before = torch.from_numpy(y) == rarest
    assert (changed(augment, dataset).target == rarest).sum() > before.sum()


def test_rare_class_is_never_the_ignored_one():
    X, y = matched()
    augmenter = Augmenter(**OFF, paste_rare_class=1.0, ignore_label=4, random_state=0)
    y_more = augmenter.fit_resample(X, y)[1]
    assert (y_more[len(X) :] == 4).sum() <= (y == 4).sum()


@pytest.mark.parametrize("params", EACH)
def test_no_new_labels_and_no_new_values_of_the_range(terrain, params):
    X, y = terrain
    y = np.array([3, 17, 40, 90, 200], dtype=np.uint8)[y]
    X_copy, y_copy = copies(X, y, **params)
    assert set(np.unique(y_copy)) <= {3, 17, 40, 90, 200, params.get("ignore_label", 3)}
    assert not np.array_equal(X_copy, X)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, np.int64, "f4", "f8"])
def test_integers_stay_in_their_range(dtype):
    X = np.random.default_rng(0).random((30, 8, 9)) < 0.5
    X = (X * (1 if np.dtype(dtype).kind in "bf" else 250)).astype(dtype)
    X_copy = copies(X, X.astype(int), **OFF, brightness=3.0)[0]
    assert X_copy.dtype == X.dtype
    assert np.isfinite(X_copy).all()
    if X.dtype == np.uint8:
        assert {0, 255} <= set(np.unique(X_copy))
        # A range that wraps around would show some pixels darker in a brightened image.
        assert all((a >= b).all() or (a <= b).all() for a, b in zip(X_copy, X, strict=True))


def random_state():
    return np.random.mtrand._rand.get_state()[1].copy()


def test_one_seed_one_result_and_the_global_ones_untouched(terrain):
    numpy_state, torch_state = random_state(), torch.get_rng_state()
    results = [copies(*terrain, **EVERYTHING) for _ in range(2)]
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    np.testing.assert_array_equal(random_state(), numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)
    others = [Augmenter(**EVERYTHING, random_state=s).fit_resample(*terrain)[0] for s in (0, 1)]
    assert not np.array_equal(*others)


def test_arrays_given_are_not_written_to(terrain):
    X, y = (part.copy() for part in terrain)
    X.flags.writeable = y.flags.writeable = False
    copies(X, y, **EVERYTHING)
    augment, dataset = prepared(X, y, **EVERYTHING)
    images, (target, _) = dataset[np.arange(len(X))]
    batch = Batch(images.float(), target, None)
    before = Batch(batch.images.clone(), batch.target.clone(), None)
    augment(batch)
    assert torch.equal(batch.images, before.images)
    assert torch.equal(batch.target, before.target)


@pytest.mark.parametrize("params", [EACH[0], EACH[1], {**OFF, "crop_scale": 0.5}, CROP, EACH[-1]])
def test_weights_of_pixels_move_along(params):
    X, y = matched()
    augment, dataset = prepared(X, y, **params)
    batch = changed(augment, dataset, torch.from_numpy(1.0 + y).float())
    codes = torch.from_numpy(dataset.classes)[batch.target]
    assert torch.equal(batch.weight, (1.0 + codes).float())


def test_weights_of_images_stay():
    parts_of_others = {"cutmix": 0.0, "paste_rare_class": 0.0}
    augment, dataset = prepared(*matched(), **{**EVERYTHING, **parts_of_others})
    weight = torch.rand(len(dataset))
    assert torch.equal(changed(augment, dataset, weight).weight, weight)


def test_in_training_nothing_shown_is_ignored():
    augment, dataset = prepared(*matched(), **OFF, crop_scale=(2.0, 2.0))
    share = (changed(augment, dataset).target == IGNORE_INDEX).float().mean()
    assert float(share) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize(("share", "size"), [(0.5, (6, 10)), (0.71, (9, 14)), (0.01, (1, 1))])
def test_random_crops_are_windows_of_their_images(share, size):
    rng = np.random.default_rng(0)
    X = rng.permutation(40 * 12 * 20).reshape(40, 12, 20)
    augment, dataset = prepared(X, X % 7, **OFF, random_crop=share)
    batch = changed(augment, dataset)
    assert batch.target.shape == (40, *size)
    starts = set()
    for image, target, whole in zip(batch.images[:, 0].int(), batch.target, X, strict=True):
        top, left = np.argwhere(whole == int(image[0, 0]))[0]
        starts.add((top, left))
        window = whole[top : top + size[0], left : left + size[1]]
        np.testing.assert_array_equal(image, window)
        np.testing.assert_array_equal(target, window % 7)
    # Anywhere, the last place as well as the first.
    rows, columns = (set(places) for places in zip(*starts, strict=True))
    if size[0] > 1:
        assert rows == set(range(12 - size[0] + 1))
    assert len(columns) > 5


def test_cutmix_shows_a_rectangle_of_another_image():
    n, height, width = 300, 12, 20
    numbers = np.arange(n)[:, None, None]
    pixels = np.arange(height * width).reshape(height, width)
    augment, dataset = prepared(numbers * 1000 + pixels, (numbers + pixels) % 7, **OFF, cutmix=0.4)
    batch = changed(augment, dataset, torch.arange(n).float())
    values = batch.images[:, 0].double().numpy()
    # Each pixel, its label and its weight stay at their place, and come from one image; labels
    # without weight are not told.
    sources = values // 1000
    np.testing.assert_array_equal(values % 1000, np.broadcast_to(pixels, values.shape))
    labels = np.where(sources == 0, IGNORE_INDEX, (sources + pixels) % 7)
    np.testing.assert_array_equal(batch.target, labels)
    np.testing.assert_array_equal(batch.weight, sources)
    places = []
    for number, source in enumerate(sources):
        foreign = np.argwhere(source != number)
        if not len(foreign):
            continue
        (top, left), (bottom, right) = foreign.min(0), foreign.max(0) + 1
        assert len(np.unique(source[top:bottom, left:right])) == 1
        assert len(foreign) == (bottom - top) * (right - left)
        places.append((top, bottom, left, right))
    tops, bottoms, lefts, rights = np.array(places).T
    assert set(bottoms - tops) == set(range(3, 9))
    assert set(rights - lefts) == set(range(5, 15))
    # Anywhere, up to all four borders.
    assert (tops.min(), bottoms.max(), lefts.min(), rights.max()) == (0, height, 0, width)
    assert len(places) / n == pytest.approx(0.4, abs=0.1)


def test_cutmix_of_one_image_is_the_image():
    X, y = matched(1)
    augment, dataset = prepared(X, y, **OFF, cutmix=1.0)
    np.testing.assert_array_equal(changed(augment, dataset).images[:, 0], X)


def test_training_on_crops_predicts_whole_images(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast, augmentation=Augmenter(**CROP)).fit(X, y)
    assert segmenter.predict(X[:3]).shape == y[:3].shape


def test_copies_cannot_be_smaller(terrain):
    with pytest.raises(ValueError, match=r"random_crop=0\.5 makes smaller images"):
        Augmenter(**CROP).fit_resample(*terrain)


@pytest.fixture(scope="module")
def train_with(terrain, fast_for_all):
    """Train on images that are augmented, and predict."""
    X, y = terrain

    def train_with(params):
        # The same random numbers are drawn for the order of the images.
        segmenter = MarsSegmenter(**fast_for_all, augmentation=Augmenter(**params))
        return segmenter.fit(X, y).predict_proba(X[:2])

    return train_with


@pytest.fixture(scope="module")
def plain(train_with):
    return train_with(OFF)


@pytest.mark.parametrize("params", [*EACH, CROP])
def test_training_sees_each_change(params, train_with, plain):
    assert not np.array_equal(train_with(params), plain)


def test_training_with_everything_is_reproducible(terrain, fast):
    X, y = terrain
    augmenter = Augmenter(**EVERYTHING)
    fits = [MarsSegmenter(**fast, augmentation=augmenter).fit(X, y) for _ in range(2)]
    assert fits[0].history_[-1]["train_loss"] == fits[1].history_[-1]["train_loss"]
    np.testing.assert_array_equal(*(fit.predict_proba(X[:2]) for fit in fits))
    assert vars(augmenter) == vars(Augmenter(**EVERYTHING))


def test_seed_of_the_augmenter_is_its_own(terrain, fast):
    X, y = terrain
    losses = {
        MarsSegmenter(**fast, augmentation=Augmenter(brightness=1.0, random_state=seed))
        .fit(X, y)
        .history_[-1]["train_loss"]
        for seed in (0, 0, 1)
    }
    assert len(losses) == 2


class Watch(Callback):
    def __init__(self):
        self.validated = []

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        if not training:
            self.validated.append(batch[0].clone())


def test_validation_images_are_not_changed(terrain, fast):
    X, y = terrain
    watch = Watch()
    segmenter = MarsSegmenter(**fast, augmentation=Augmenter(brightness=5.0), callbacks=[watch])
    segmenter.fit(X, y, validation_data=(X[:8], y[:8]))
    np.testing.assert_array_equal(watch.validated[0][:, 0].numpy(), X[:8])


def test_partial_fit_augments_too(terrain, fast):
    X, y = terrain
    plain, changed = (
        MarsSegmenter(**fast, augmentation=augmentation).partial_fit(X, y)
        for augmentation in (Augmenter(**OFF), Augmenter(**OFF, brightness=2.0))
    )
    assert plain.history_[0]["train_loss"] != changed.history_[0]["train_loss"]


@pytest.mark.parametrize("augmenter", [None, Augmenter(**OFF, brightness=2.0, random_state=0)])
def test_each_partial_fit_changes_an_image_anew(augmenter, terrain, fast):
    X, y = terrain
    params = {**fast, "learning_rate": 1e-12, "dropout": 0.0, "augmentation": augmenter}
    fits = [MarsSegmenter(**params) for _ in range(2)]
    for segmenter in fits:
        for _ in range(3):
            segmenter.partial_fit(X[:1], y[:1], classes=range(5))
    first, again = ([round(row["train_loss"], 5) for row in one.history_] for one in fits)
    assert first == again
    assert len(set(first)) == (1 if augmenter is None else 3)


def test_colour_images_of_one_row(fast):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, (8, 1, 5, 3), dtype=np.uint8)
    y = (X[..., 0] > 128).astype(int)
    X_copy, y_copy = copies(X, y, **EVERYTHING)
    assert X_copy.shape == X.shape
    assert y_copy.shape == y.shape


def test_nested_parameters_and_clones():
    segmenter = MarsSegmenter(augmentation=Augmenter())
    segmenter.set_params(augmentation__brightness=0.4)
    copy = clone(segmenter)
    assert copy.augmentation is not segmenter.augmentation
    assert copy.get_params()["augmentation__brightness"] == 0.4


def test_saved_with_the_segmenter(terrain, fast, tmp_path):
    X, y = terrain
    augmenter = Augmenter(crop_scale=(0.5, 1.0), brightness=0.1, random_state=3)
    segmenter = MarsSegmenter(**fast, augmentation=augmenter).fit(X, y)
    segmenter.save(tmp_path / "m")
    loaded = MarsSegmenter.load(tmp_path / "m")
    assert loaded.augmentation.get_params() == augmenter.get_params()
    assert pickle.loads(pickle.dumps(segmenter)).augmentation.brightness == 0.1


def test_default_changes_the_light(terrain, fast):
    X, y = terrain
    light = Augmenter(
        horizontal_flip=False, brightness=0.3, contrast=0.3, random_crop=0.75, cutmix=0.5
    )
    default, told, off = (
        MarsSegmenter(**fast | {"augmentation": augmentation}).fit(X, y).predict_proba(X[:2])
        for augmentation in ("auto", light, None)
    )
    np.testing.assert_array_equal(default, told)
    assert np.abs(default - off).max() > 1e-4


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"brightness": -0.1}, "brightness"),
        ({"contrast": 1.1}, "contrast"),
        ({"contrast": (0.9, 0.5)}, "low <= high"),
        ({"contrast": (-0.1, 1.0)}, "contrast"),
        ({"contrast": (0.5, math.inf)}, "contrast"),
        ({"contrast": (0.5, 0.7, 1.0)}, "contrast"),
        ({"contrast": ("0.5", 1.0)}, "contrast"),
        ({"crop_scale": 0}, "crop_scale"),
        ({"crop_scale": (0.5,)}, "crop_scale"),
        ({"crop_scale": (0, 0.5)}, "above 0"),
        ({"crop_scale": (1.5, 0.5)}, "low <= high"),
        ({"crop_scale": (0.5, "1")}, "crop_scale"),
        ({"crop_scale": "0.5"}, "crop_scale"),
        ({"random_crop": 0}, "random_crop"),
        ({"random_crop": 1.1}, "random_crop"),
        ({"paste_rare_class": 1.5}, "paste_rare_class"),
        ({"cutmix": -0.1}, "cutmix"),
        ({"n_copies": -1}, "n_copies"),
        ({"horizontal_flip": 2}, "horizontal_flip"),
        ({"crop_scale": 1.5}, "ignore_label"),
        ({"crop_scale": 1.5, "ignore_label": -1}, "ignore_label"),
    ],
)
def test_bad_parameters(terrain, params, message):
    with pytest.raises(ValueError, match=message):
        Augmenter(**params).fit_resample(*terrain)


def test_bad_parameters_stop_a_fit_before_it_starts(terrain, fast):
    segmenter = MarsSegmenter(**fast, augmentation=Augmenter(crop_scale=(2, 1)))
    with pytest.raises(ValueError, match="low <= high"):
        segmenter.fit(*terrain)
    assert not hasattr(segmenter, "net_")
    with pytest.raises(ValueError, match="augmentation"):
        MarsSegmenter(**fast, augmentation="flip").fit(*terrain)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda X, y: (X[0], y[0]), ValueError),
        (lambda X, y: (X, y[:-1]), ValueError),
        (lambda X, y: (X, y[:, 1:]), ValueError),
        (lambda X, y: (X[:0], y[:0]), ValueError),
        (lambda X, y: (np.where(X > 100, np.nan, 1.0), y), ValueError),
        (lambda X, y: (X, y + 0.5), ValueError),
        (lambda X, y: (X.astype(str), y), TypeError),
        (lambda X, y: (X, None), ValueError),
    ],
)
def test_bad_images_and_masks(terrain, spoil, error):
    with pytest.raises(error):
        Augmenter().fit_resample(*spoil(*terrain))


def test_everything_ignored(terrain):
    X, y = terrain
    with pytest.raises(ValueError, match="leaves no labelled pixel"):
        Augmenter(ignore_label=1).fit(X, np.ones_like(y))


@pytest.mark.parametrize("seed", range(4))
def test_large_images_are_mixed_all_the_same(seed):
    X = np.repeat(np.array([50, 150, 250], dtype=np.uint8), 1000 * 600).reshape(3, 1000, 600)
    augmenter = Augmenter(horizontal_flip=False, cutmix=1.0, n_copies=1, random_state=seed)
    copies, masks = augmenter.fit_resample(X, X // 100)
    assert all(len(np.unique(image)) == 2 for image in copies[3:])
    np.testing.assert_array_equal(masks, copies // 100)


def test_pasted_pixels_bring_their_weights():
    X, y = matched()
    rare = int(np.unique(y, return_counts=True)[1].argmin())
    weight = np.where(y == np.unique(y)[rare], 10.0, 1.0)
    weight[0] = 0
    augmenter = Augmenter(**OFF, paste_rare_class=1.0)
    classes = np.unique(y)
    dataset = SegmentationDataset(X, y, classes, None, sample_weight=weight, mean_weight=2.0)
    augment = augmenter.prepare(
        dataset, *measure_scaling(X, dataset.rows), np.random.default_rng(0)
    )
    images, (target, given) = dataset[np.arange(len(X))]
    batch = augment(Batch(images.float(), target, given))
    assert (batch.target == rare).sum() > (target == rare).sum()
    expected = torch.where(batch.target == rare, 5.0, 0.5)
    counted = batch.target != IGNORE_INDEX
    assert torch.equal(batch.weight[counted], expected[counted])
    assert (batch.weight[~counted] == 0).all()
