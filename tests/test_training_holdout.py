import numpy as np
import pytest
import torch
from fit_records import Record, numbered, scores_of

from skmars import Ensemble, MarsSegmenter


@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_images_that_do_not_count_are_not_held_out(seed, pixels, terrain, fast):
    X, y = terrain
    y = y.copy()
    y[:6] = 9
    weight = np.repeat([1.0, 0.0, 1.0], [6, 6, 12])
    if pixels:
        weight = np.broadcast_to(weight[:, None, None], y.shape)
    record = Record()
    params = {**fast, "max_epochs": 1, "ignore_label": 9, "random_state": seed}
    segmenter = MarsSegmenter(**params, callbacks=[record])
    segmenter.fit(numbered(X), y, sample_weight=weight)
    assert set(record.ids[False]) <= set(range(12, 24))
    assert set(record.ids[True]) >= set(range(12))
    assert np.isfinite(scores_of(segmenter)).all()


def test_groups_stay_together_where_some_images_do_not_count(terrain, fast):
    X, y = terrain
    groups = np.repeat(np.arange(8), 3)
    record = Record()
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 1}, callbacks=[record])
    segmenter.fit(numbered(X), y, groups=groups, sample_weight=np.tile([1.0, 0.0, 1.0], 8))
    held_out = {groups[int(number)] for number in record.ids[False]}
    assert not held_out & {groups[int(number)] for number in record.ids[True]}


@pytest.mark.parametrize("missing", [float("nan"), None, np.datetime64("NaT")])
def test_groups_that_are_missing_are_refused(missing, terrain, fast):
    names = ["a", "b"] * 11 + ["c", missing]
    for groups in (names, np.array(names, dtype=object)):
        with pytest.raises(ValueError, match="some are missing"):
            MarsSegmenter(**fast).fit(*terrain, groups=groups)


def test_missing_groups_of_pandas_are_refused(terrain, fast):
    pandas = pytest.importorskip("pandas")
    groups = pandas.Series(["a", "b"] * 11 + ["c", pandas.NA], dtype="string")
    with pytest.raises(ValueError, match="some are missing"):
        MarsSegmenter(**fast).fit(*terrain, groups=groups)


def test_held_out_images_are_not_trained_on(terrain, fast):
    X, y = terrain
    record = Record()
    MarsSegmenter(**fast, validation_fraction=0.25, callbacks=[record]).fit(numbered(X), y)
    train, valid = set(record.ids[True]), set(record.ids[False])
    assert not train & valid
    assert train | valid == set(range(24))
    assert len(valid) == 6
    # Each once an epoch.
    assert sorted(record.ids[True]) == sorted(list(train) * 2)
    assert sorted(record.ids[False]) == sorted(list(valid) * 2)


def test_batches_are_shuffled_anew_each_epoch(terrain, fast):
    record = Record()
    MarsSegmenter(**fast, validation_fraction=None, callbacks=[record]).fit(
        numbered(terrain[0]), terrain[1]
    )
    first, second = record.ids[True][:24], record.ids[True][24:]
    assert sorted(first) == sorted(second) == list(range(24))
    assert first != second
    assert first != sorted(first)


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_not_split(seed, terrain, fast):
    X, y = terrain
    groups = np.arange(24) % 8
    record = Record()
    params = {**fast, "max_epochs": 1, "random_state": seed, "callbacks": [record]}
    MarsSegmenter(**params, validation_fraction=0.25).fit(numbered(X), y, groups=groups)
    train, valid = set(record.ids[True]), set(record.ids[False])
    assert len(valid) == 6
    assert not set(groups[list(train)]) & set(groups[list(valid)])


def test_held_out_images_have_their_share_of_each_class(terrain, fast):
    X, y = terrain
    record = Record()
    params = {**fast, "max_epochs": 1, "callbacks": [record], "batch_size": 24}
    MarsSegmenter(**params, validation_fraction=0.34).fit(numbered(X), y)
    counts = np.stack([np.bincount(mask.ravel(), minlength=5) for mask in y])
    shares = counts[sorted(set(record.ids[False]))].sum(axis=0) / counts.sum(axis=0)
    # Big rocks (4) are in few of the images.
    np.testing.assert_allclose(shares[:4], 0.34, atol=0.15)


def test_held_out_images_have_no_part_in_the_scaling(terrain, fast):
    X, y = terrain
    X = numbered(X)
    record = Record()
    params = {**fast, "max_epochs": 1, "callbacks": [record]}
    segmenter = MarsSegmenter(**params, validation_fraction=0.5).fit(X, y)
    train = X[sorted(record.ids[True])]
    assert train.mean() != pytest.approx(X.mean(), rel=1e-3)
    np.testing.assert_allclose(segmenter.mean_, train.mean(), rtol=1e-9)
    np.testing.assert_allclose(segmenter.scale_, train.std(), rtol=1e-9)


def test_validation_data_are_validated_on_and_all_of_x_is_trained_on(terrain, fast):
    X, y = terrain
    X = numbered(X)
    record = Record()
    segmenter = MarsSegmenter(**fast, callbacks=[record])
    segmenter.fit(X[:14], y[:14], validation_data=(X[14:], y[14:]))
    assert set(record.ids[True]) == set(range(14))
    assert set(record.ids[False]) == set(range(14, 24))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_validation_masks_may_have_another_dtype(dtype, terrain, fast):
    X, y = terrain
    labels = np.array([-3, 0, 2, 100, 200], dtype=np.int16)
    known = np.isin(y, [1, 2, 3, 4])
    y_valid = np.where(known, labels[y], 0)
    segmenter = MarsSegmenter(**fast, early_stopping=False)
    segmenter.fit(X, labels[y], validation_data=(X, y_valid.astype(dtype)))
    expected = segmenter.score(X, y_valid)
    assert scores_of(segmenter)[-1] == pytest.approx(expected, abs=1e-6)


def test_validation_images_may_have_another_size(terrain, fast):
    X, y = terrain
    data = X[:5, :21, :17], y[:5, :21, :17]
    segmenter = MarsSegmenter(**fast, early_stopping=False).fit(X, y, validation_data=data)
    assert scores_of(segmenter)[-1] == pytest.approx(segmenter.score(*data), abs=1e-6)


def test_validation_data_without_a_label_are_refused(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast, ignore_label=255)
    with pytest.raises(ValueError, match="no labelled pixel in validation_data"):
        segmenter.fit(X, y, validation_data=(X[:4], np.full_like(y[:4], 255)))


@pytest.mark.parametrize("of_pixels", [True, False])
def test_validation_data_may_have_weights(of_pixels, terrain, fast):
    X, y = terrain
    shape = (8, *y.shape[1:]) if of_pixels else (8, 1, 1)
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0.5, 2, shape) * (rng.random(shape) < 0.6)
    wrong = np.where(pixels > 0, y[:8], (y[:8] + 1) % 5).astype(y.dtype)
    weight = pixels if of_pixels else pixels.ravel()
    params = {**fast, "max_epochs": 1}
    fits = [
        MarsSegmenter(**params).fit(X, y, validation_data=(X[:8], masks, weight))
        for masks in (y[:8], wrong)
    ]
    for name in ("valid_loss", "valid_mean_iou"):
        assert fits[0].history_[0][name] == pytest.approx(fits[1].history_[0][name], rel=1e-6)
    expected = fits[0].score(X[:8], y[:8], sample_weight=weight)
    assert scores_of(fits[0])[-1] == pytest.approx(expected, abs=1e-6)
    assert expected != fits[0].score(X[:8], y[:8])


@pytest.mark.parametrize(
    ("params", "weight", "message"),
    [
        ({}, np.ones(7), r"validation_data\[2\] must have shape \(8,\)"),
        ({}, np.full(8, -1.0), r"validation_data\[2\] must be finite, at least 0"),
        ({}, np.zeros(8), r"validation_data\[2\] .* not 0 everywhere"),
        ({"ignore_label": 9}, np.eye(8)[0], r"validation_data\[2\] is 0 wherever"),
        ({"loss": torch.nn.functional.cross_entropy}, np.ones(8), "callable loss"),
    ],
)
def test_bad_weights_of_validation_data(params, weight, message, terrain, fast):
    X, y = terrain
    y_valid = y[:8].copy()
    if "ignore_label" in params:
        y_valid[0] = 9
    with pytest.raises(ValueError, match=message):
        MarsSegmenter(**fast, **params).fit(X, y, validation_data=(X[:8], y_valid, weight))


def test_members_of_an_ensemble_are_validated_by_the_weights(terrain, fast):
    X, y = terrain[0], np.minimum(terrain[1], 3)
    weight = np.random.default_rng(0).random(y.shape) ** 4
    first = np.arange(len(X)) < 12
    ensemble = Ensemble(MarsSegmenter(**{**fast, "max_epochs": 1}), n_members=2, random_state=0)
    for member in ensemble.fit(X, y, sample_weight=weight, groups=first).estimators_:
        scores = [
            member.score(X[half], y[half], sample_weight=weight[half]) for half in (first, ~first)
        ]
        # Rounding may decide a pixel of which two classes are as good as equally probable.
        assert np.isclose(scores, scores_of(member)[-1], rtol=0, atol=1e-3).any()


def test_images_that_are_too_few_to_hold_some_out(terrain, fast):
    X, y = (part[:1] for part in terrain)
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 1})
    way_out = "cannot hold out.*set validation_fraction=None or give validation_data"
    with pytest.raises(ValueError, match=way_out):
        segmenter.fit(X, y)
    segmenter.fit(X, y, validation_data=(X, y))
    segmenter.set_params(validation_fraction=None).fit(X, y)
