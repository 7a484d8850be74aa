import itertools

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    cross_val_score,
    cross_validate,
)

from skmars.model_selection import (
    SegmentationKFold,
    class_counts,
    holdout_split,
    train_val_test_split,
)


def make_counts(n=60, n_classes=4, seed=0):
    """Pixels of each class in images that mostly show one or two of them."""
    rng = np.random.default_rng(seed)
    return np.round(1000 * rng.dirichlet(np.full(n_classes, 0.3), n)).astype(int)


def split(counts, fraction, seed=0, **kwargs):
    return holdout_split(counts, fraction, rng=np.random.default_rng(seed), **kwargs)


@pytest.mark.parametrize("classes", [[0, 2, 3, 9], [-1, 1, 4, 300]])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_class_counts_against_unique(dtype, classes):
    rng = np.random.default_rng(0)
    y = rng.integers(5, size=(7, 9, 11)).astype(dtype)
    classes = np.array(classes)
    counts = class_counts(y, classes)
    assert counts.shape == (7, 4)
    np.testing.assert_array_equal(class_counts(list(y), classes), counts)
    for mask, row in zip(y, counts, strict=True):
        found = dict(zip(*np.unique(mask, return_counts=True), strict=True))
        assert row.tolist() == [found.get(label, 0) for label in classes]


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_each_image_is_in_one_part(fraction, seed):
    kept, held_out = split(make_counts(), fraction, seed)
    assert np.all(np.diff(kept) > 0)
    assert np.all(np.diff(held_out) > 0)
    assert sorted([*kept, *held_out]) == list(range(60))
    assert len(held_out) == pytest.approx(60 * fraction, abs=3)


@pytest.mark.parametrize("seed", range(5))
def test_each_class_has_its_share_held_out(seed):
    counts = make_counts(seed=seed)
    _, held_out = split(counts, 0.25, seed)
    shares = counts[held_out].sum(axis=0) / counts.sum(axis=0)
    np.testing.assert_allclose(shares, 0.25, atol=0.08)


@pytest.mark.parametrize("seed", range(5))
def test_a_rare_class_is_in_both_parts(seed):
    counts = np.column_stack([np.full(60, 1000), np.zeros(60, dtype=int)])
    counts[:4, 1] = 100
    kept, held_out = split(counts, 0.25, seed)
    assert counts[kept, 1].any()
    assert counts[held_out, 1].any()


@pytest.mark.parametrize("seed", range(5))
def test_the_only_image_of_a_class_is_learned_from(seed):
    counts = np.column_stack([np.full(10, 1000), np.zeros(10, dtype=int)])
    counts[3, 1] = 100
    kept, _ = split(counts, 0.5, seed)
    assert 3 in kept


@pytest.mark.parametrize("make_groups", [np.asarray, list, lambda g: [f"sol {x}" for x in g]])
@pytest.mark.parametrize("seed", range(3))
def test_groups_are_kept_together(make_groups, seed):
    sizes = np.random.default_rng(seed).integers(1, 9, size=15)
    groups = np.repeat(np.arange(15) * 7 % 15, sizes)
    counts = make_counts(len(groups))
    kept, held_out = split(counts, 0.3, seed, groups=make_groups(groups))
    assert not set(groups[kept]) & set(groups[held_out])
    assert len(held_out) / len(groups) == pytest.approx(0.3, abs=0.1)


def test_classes_that_never_occur_do_not_disturb():
    counts = np.column_stack([make_counts(), np.zeros(60, dtype=int)])
    _, held_out = split(counts, 0.25)
    np.testing.assert_array_equal(held_out, split(make_counts(), 0.25)[1])


def test_one_seed_gives_one_split():
    for part, again in zip(
        split(make_counts(), 0.2, 1), split(make_counts(), 0.2, 1), strict=True
    ):
        np.testing.assert_array_equal(part, again)
    assert list(split(make_counts(), 0.2, 1)[1]) != list(split(make_counts(), 0.2, 2)[1])


@pytest.mark.parametrize("fraction", [1e-6, 0.5, 1 - 1e-6])
def test_no_part_is_empty(fraction):
    kept, held_out = split(np.ones((2, 2)), fraction)
    assert len(kept) == len(held_out) == 1


@pytest.mark.parametrize(("n", "groups"), [(1, None), (5, [2] * 5)])
def test_one_group_cannot_be_split(n, groups):
    with pytest.raises(ValueError, match="at least 2 groups"):
        split(np.ones((n, 2)), 0.2, groups=groups)


# Folds and three parts


def make_masks(n=90, seed=0, dtype=np.uint8, n_groups=None):
    """Masks of three frequent classes, one on a tenth and one on six of the images; groups."""
    rng = np.random.default_rng(seed)
    counts = make_counts(n, 3, seed) * 64 // 1000
    y = np.array([np.repeat([0, 1, 2, 2], [*row, 64])[:64].reshape(8, 8) for row in counts])
    y[rng.choice(n, n // 10, replace=False), :2, :5] = 3
    y[rng.choice(n, 6, replace=False), 7, :3] = 4
    groups = np.arange(n) if n_groups is None else rng.integers(n_groups, size=n)
    return y.astype(dtype), groups


def shares(y, parts, classes=(0, 1, 2, 3, 4)):
    counts = class_counts(y, np.array(classes))
    return np.array([counts[part].sum(axis=0) for part in parts]) / counts.sum(axis=0)


def parts_of(folds, y, groups=None):
    return [test for _, test in folds.split(y, y, groups)]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("n_splits", [2, 3, 5, 7])
@pytest.mark.parametrize("n_groups", [None, 40])
def test_folds_share_out_the_images(n_splits, n_groups, shuffle):
    y, groups = make_masks(n_groups=n_groups)
    folds = SegmentationKFold(n_splits, shuffle=shuffle)
    assert folds.get_n_splits(y, y, groups) == n_splits
    splits = list(folds.split(np.zeros(len(y)), y, None if n_groups is None else groups))
    assert len(splits) == n_splits
    for train, test in splits:
        assert sorted([*train, *test]) == list(range(len(y)))
        assert not set(groups[train]) & set(groups[test])
    tests = np.concatenate([test for _, test in splits])
    assert sorted(tests) == list(range(len(y)))
    sizes = [len(test) for _, test in splits]
    if n_groups is None:
        assert max(sizes) - min(sizes) <= 1
    else:
        assert max(sizes) - min(sizes) <= 0.25 * np.mean(sizes)


@pytest.mark.parametrize("seed", range(5))
def test_folds_have_equal_shares_of_every_class(seed):
    y, _ = make_masks(seed=seed)
    parts = parts_of(SegmentationKFold(5, random_state=seed), y)
    np.testing.assert_allclose(shares(y, parts)[:, :3], 0.2, rtol=0.05)
    # Nine and six images have the rare classes, so that no fold can have exactly a fifth.
    assert shares(y, parts)[:, 3:].min() > 0.1
    plain = shares(y, parts_of(KFold(5, shuffle=True, random_state=seed), y))
    assert np.abs(shares(y, parts) - 0.2).mean() < 0.5 * np.abs(plain - 0.2).mean()


@pytest.mark.parametrize("seed", range(5))
def test_folds_of_groups_are_more_equal_than_those_of_scikit_learn(seed):
    y, groups = make_masks(200, seed, n_groups=50)
    ours = shares(y, parts_of(SegmentationKFold(4, random_state=seed), y, groups))
    plain = shares(y, parts_of(GroupKFold(4, shuffle=True, random_state=seed), y, groups))
    assert np.abs(ours - 0.25).mean() < 0.5 * np.abs(plain - 0.25).mean()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("grouped", [True, False])
def test_every_fold_has_every_class_where_that_is_possible(seed, grouped):
    rng = np.random.default_rng(seed)
    n_splits, n_classes = rng.integers(2, 6), rng.integers(1, 6)
    n_groups = int(rng.integers(n_splits, 30))
    # Class c is in at least one group of each of n_splits sets, so that such folds exist.
    has = rng.random((n_groups, n_classes)) < 0.2 * rng.random(n_classes)
    planted = rng.permutation(np.arange(n_groups) % n_splits)
    for part in range(n_splits):
        has[rng.choice(np.flatnonzero(planted == part), n_classes), np.arange(n_classes)] = True
    sizes = rng.integers(1, 5, n_groups) if grouped else np.ones(n_groups, dtype=int)
    groups = np.repeat(np.arange(n_groups), sizes)
    y = np.zeros((len(groups), 4, 16), dtype=int)
    for mask, group in zip(y, groups, strict=True):
        for c in np.flatnonzero(has[group]):
            mask[:, 1 + 2 * c : 2 + 2 * c + rng.integers(2)] = c + 1
    folds = SegmentationKFold(int(n_splits), random_state=seed)
    for test in parts_of(folds, y, groups if grouped else None):
        assert set(np.unique(y[test])) >= set(range(1, n_classes + 1))


@pytest.mark.parametrize("seed", [0, 12, 19, 21])
@pytest.mark.parametrize("target", [[1 / 3] * 3, [0.5, 0.2, 0.3]])
def test_nothing_is_better_than_what_is_found_for_few_groups(target, seed):
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(8), rng.integers(1, 7, 8)))
    groups = np.append(groups, np.full(30 - len(groups) % 30, 8))
    y = (rng.random((len(groups), 6, 6)) < rng.random(9)[groups][:, None, None]).astype(int)
    y[:, 0, 0], y[:, 0, 1] = 0, 1
    amounts = np.column_stack([np.ones(len(y)), class_counts(y, np.arange(2))])
    amounts = np.array([amounts[groups == group].sum(axis=0) for group in np.unique(groups)])
    amounts /= amounts.sum(axis=0)

    def cost(part_of):
        filled = np.array([amounts[part_of == part].sum(axis=0) for part in range(3)])
        return np.sum((filled / np.transpose([target]) - 1) ** 2)

    if target[0] == target[1]:
        parts = parts_of(SegmentationKFold(3, random_state=seed), y, groups)
    else:
        index = np.arange(len(y))
        sizes = {"val_size": target[1], "test_size": target[2]}
        parts = train_val_test_split(index, y, groups=groups, random_state=seed, **sizes)[:3]
    found = np.array([[g in groups[part] for part in parts].index(True) for g in range(9)])
    best = min(cost(np.array(part_of)) for part_of in itertools.product(range(3), repeat=9))
    assert cost(found) <= 1.2 * best + 1e-6


def test_a_class_in_few_groups_is_spread_over_them():
    y = np.zeros((20, 4, 4), dtype=int)
    y[:3, 0] = 1
    parts = parts_of(SegmentationKFold(5, random_state=0), y)
    assert sorted(np.count_nonzero(part < 3) for part in parts) == [0, 0, 1, 1, 1]


def test_ignored_pixels_are_not_counted():
    y, _ = make_masks()
    # The two ignored labels hide what differs: without them the masks are the same.
    filled = np.where(y < 2, 250, y), np.where(y < 2, 251, y)
    splits = [
        parts_of(SegmentationKFold(3, random_state=0, ignore_label=label), masks)
        for label, masks in zip((250, 251), filled, strict=True)
    ]
    for one, other in zip(*splits, strict=True):
        np.testing.assert_array_equal(one, other)
    counted = parts_of(SegmentationKFold(3, random_state=0), filled[0])
    assert any(list(a) != list(b) for a, b in zip(splits[0], counted, strict=True))


def test_seeds_of_folds():
    y, groups = make_masks(n_groups=40)
    for kwargs in ({"random_state": 3}, {"shuffle": False}):
        for g in (None, groups):
            folds = SegmentationKFold(4, **kwargs)
            one, again = parts_of(folds, y, g), parts_of(folds, y, g)
            for part, other in zip(one, again, strict=True):
                np.testing.assert_array_equal(part, other)
    other = parts_of(SegmentationKFold(4, random_state=4), y)
    assert list(parts_of(SegmentationKFold(4, random_state=3), y)[0]) != list(other[0])
    state = np.random.RandomState(0)
    drawn = [parts_of(SegmentationKFold(4, random_state=state), y)[0] for _ in range(2)]
    assert list(drawn[0]) != list(drawn[1])


@pytest.mark.parametrize("make_groups", [list, lambda g: [f"sol {x}" for x in g]])
@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.int8])
def test_folds_do_not_depend_on_types(dtype, make_groups):
    y, groups = make_masks(n_groups=9)
    groups = groups % 9
    folds = SegmentationKFold(3, random_state=0)
    expected = parts_of(folds, y, groups)
    for masks in (y.astype(dtype), list(y), y.tolist(), y.swapaxes(1, 2)):
        got = [test for _, test in folds.split(list(y), masks, make_groups(groups))]
        for part, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(part, other)


def test_masks_of_different_sizes():
    rng = np.random.default_rng(0)
    y = [rng.integers(3, size=rng.integers(2, 9, 2)) for _ in range(20)]
    parts = parts_of(SegmentationKFold(4, random_state=0), y)
    assert [len(part) for part in parts] == [5] * 4
    *_, y_val, y_test = train_val_test_split(y, y, val_size=4, test_size=3)
    assert [len(y_val), len(y_test)] == [4, 3]


class Constant(BaseEstimator):
    """Its score is the mean of the last images."""

    def __init__(self, offset=0.0):
        self.offset = offset

    def fit(self, X, y):
        self.fitted_ = True
        return self

    def score(self, X, y):
        return X.mean() + self.offset


def test_as_cv_of_scikit_learn():
    y, groups = make_masks(n_groups=20)
    X = np.random.default_rng(0).random((len(y), 8, 8))
    folds = SegmentationKFold(3, random_state=0)
    parts = parts_of(folds, y, groups)
    expected = [X[part].mean() for part in parts]
    got = cross_val_score(Constant(), X, y, cv=folds, groups=groups)
    np.testing.assert_allclose(got, expected)
    search = GridSearchCV(Constant(), {"offset": [0.0, 1.0]}, cv=folds).fit(X, y, groups=groups)
    np.testing.assert_allclose(search.best_score_, 1 + np.mean(expected))
    search = HalvingGridSearchCV(
        Constant(), {"offset": [0.0, 1.0]}, cv=folds, min_resources=30, random_state=0
    ).fit(X, y)
    assert search.best_params_ == {"offset": 1.0}


@pytest.mark.parametrize("grouped", [True, False])
def test_groups_are_routed_unasked_and_optional(grouped):
    y, groups = make_masks(n_groups=20)
    X = np.random.default_rng(0).random((len(y), 8, 8))
    folds = SegmentationKFold(3, random_state=0)
    params = {"groups": groups} if grouped else {}
    with sklearn.config_context(enable_metadata_routing=True):
        got = cross_validate(Constant(), X, y, cv=folds, params=params)["test_score"]
    parts = parts_of(folds, y, groups if grouped else None)
    np.testing.assert_allclose(got, [X[part].mean() for part in parts])


def test_folds_are_shown_and_copied():
    folds = SegmentationKFold(4, random_state=7, ignore_label=0)
    expected = "SegmentationKFold(ignore_label=0, n_splits=4, random_state=7, shuffle=True)"
    assert repr(folds) == expected
    assert repr(clone(folds, safe=False)) == expected


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"n_splits": 1}, ValueError, "n_splits must be an integer of at least 2, got 1"),
        ({"n_splits": 2.0}, ValueError, "got 2.0"),
        ({"n_splits": True}, ValueError, "got True"),
        ({"shuffle": 1}, TypeError, "shuffle must be True or False"),
        ({"shuffle": False, "random_state": 0}, ValueError, "random_state has no effect"),
    ],
)
def test_bad_parameters_of_folds(kwargs, error, match):
    with pytest.raises(error, match=match):
        SegmentationKFold(**kwargs)


MASKS = np.zeros((6, 3, 4), dtype=int)


@pytest.mark.parametrize(
    ("y", "kwargs", "error", "match"),
    [
        (None, {}, ValueError, "got None"),
        (MASKS[:, 0, 0], {}, ValueError, r"\(n, H, W\), got shape \(6,\)"),
        (MASKS[..., None], {}, ValueError, r"\(n, H, W\)"),
        ([MASKS[0, 0]] * 6, {}, ValueError, r"\(H, W\), got \(4,\)"),
        (MASKS + 0.5, {}, ValueError, "integer labels"),
        ([MASKS[0] + 0.5] * 6, {}, ValueError, "integer labels"),
        (MASKS.astype(str), {}, TypeError, "integer labels"),
        (MASKS[:5], {}, ValueError, "inconsistent"),
        (MASKS, {"groups": [0, 1]}, ValueError, "inconsistent numbers"),
        (MASKS, {"groups": [0, 0, 0, 1, 1, 1]}, ValueError, "in 2 groups"),
    ],
)
def test_bad_masks_and_groups(y, kwargs, error, match):
    with pytest.raises(error, match=match):
        list(SegmentationKFold(3).split(MASKS, y, **kwargs))
    with pytest.raises(error if y is not None else (TypeError, ValueError)):
        train_val_test_split(MASKS, y, **kwargs)


def test_more_folds_than_images():
    with pytest.raises(ValueError, match="n_splits=7 folds of 6 images in 6 groups"):
        list(SegmentationKFold(7).split(MASKS, MASKS))
    parts = parts_of(SegmentationKFold(6), MASKS)
    assert sorted(np.concatenate(parts)) == list(range(6))


def test_bad_ignore_label():
    with pytest.raises(TypeError, match="ignore_label must be None or an integer, got 'sky'"):
        list(SegmentationKFold(3, ignore_label="sky").split(MASKS, MASKS))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, [72, 9, 9]),
        ({"val_size": 0.2, "test_size": 0.3}, [45, 18, 27]),
        ({"val_size": 7, "test_size": np.int64(4)}, [79, 7, 4]),
        ({"val_size": 0.001, "test_size": np.float32(0.5)}, [44, 1, 45]),
    ],
)
def test_three_parts(sizes, expected):
    y, _ = make_masks()
    index = np.arange(len(y))
    parts = train_val_test_split(index, y, random_state=0, **sizes)
    assert [len(part) for part in parts] == expected * 2
    assert sorted(np.concatenate(parts[:3])) == index.tolist()
    for part, masks in zip(parts[:3], parts[3:], strict=True):
        np.testing.assert_array_equal(masks, y[part])


@pytest.mark.parametrize("seed", range(5))
def test_three_parts_have_their_shares_of_every_class(seed):
    y, _ = make_masks(seed=seed)
    index = np.arange(len(y))
    parts = train_val_test_split(index, y, val_size=0.2, test_size=0.2, random_state=seed)[:3]
    got = shares(y, parts)
    expected = np.repeat([[0.6], [0.2], [0.2]], 3, axis=1)
    np.testing.assert_allclose(got[:, :3], expected, rtol=0.05)
    assert got[:, 3:].min() > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_three_parts_of_groups(seed):
    y, groups = make_masks(300, seed, n_groups=60)
    index = np.arange(len(y))
    parts = train_val_test_split(index, y, groups, groups=groups, random_state=seed)
    for one, other in [(6, 7), (6, 8), (7, 8)]:
        assert not set(parts[one]) & set(parts[other])
    assert len(parts[1]) == pytest.approx(30, abs=6)
    assert len(parts[2]) == pytest.approx(30, abs=6)
    np.testing.assert_allclose(shares(y, parts[1:3])[:, :3], 0.1, rtol=0.3)


@pytest.mark.parametrize(("n_images", "present"), [(1, "100"), (2, "101"), (3, "111")])
@pytest.mark.parametrize("seed", range(3))
def test_a_class_in_few_images_is_trained_on_first_and_then_tested(n_images, present, seed):
    y = np.zeros((20, 4, 4), dtype=int)
    y[:n_images, 0] = 1
    parts = train_val_test_split(y, y, random_state=seed)[3:]
    assert "".join(str(int(1 in part)) for part in parts) == present


@pytest.mark.parametrize("ignore_label", [None, 0])
def test_no_part_is_empty_however_large_the_groups(ignore_label):
    groups = np.repeat(np.arange(4), 5)
    y = np.zeros((20, 4, 4), dtype=int)
    parts = train_val_test_split(y, y, groups=groups, ignore_label=ignore_label, random_state=0)
    assert [len(part) for part in parts[:3]] == [10, 5, 5]


def test_seeds_of_three_parts():
    y, _ = make_masks()
    one, same, other = (
        train_val_test_split(np.arange(len(y)), y, random_state=seed)[2] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert list(one) != list(other)


def test_three_parts_of_lists_frames_and_memory_maps(tmp_path):
    y, _ = make_masks(20)
    path = tmp_path / "X.npy"
    np.save(path, np.arange(20.0).reshape(20, 1, 1))
    X = np.load(path, mmap_mode="r")
    names = [f"tile {i}" for i in range(20)]
    # Its index runs the other way: rows have to be taken by their places.
    frame = pd.DataFrame({"name": names}, index=np.arange(20)[::-1])
    parts = train_val_test_split(X, y, names, tuple(names), frame, random_state=0)
    assert len(parts) == 15
    assert not isinstance(parts[0], np.memmap)
    for images, name, same, rows in zip(
        parts[:3], parts[6:9], parts[9:12], parts[12:], strict=True
    ):
        assert name == same == [f"tile {i:.0f}" for i in images[:, 0, 0]]
        pd.testing.assert_frame_equal(rows, frame[frame["name"].isin(name)])


@pytest.mark.parametrize("size", [0, 1.0, -0.1, 0.0, -1, True, "10%", None, np.nan])
@pytest.mark.parametrize("name", ["val_size", "test_size"])
def test_bad_sizes(name, size):
    with pytest.raises(ValueError, match=f"{name} must be a share"):
        train_val_test_split(MASKS, MASKS, **{name: size})


@pytest.mark.parametrize("sizes", [{"val_size": 0.5, "test_size": 0.5}, {"val_size": 5}])
def test_nothing_left_to_train_on(sizes):
    with pytest.raises(ValueError, match="leave none of 6 images"):
        train_val_test_split(MASKS, MASKS, **sizes)


def test_further_arrays_of_another_length():
    with pytest.raises(ValueError, match="inconsistent"):
        train_val_test_split(MASKS, MASKS, [1, 2])


def test_real_scenes(real_file):
    with np.load(real_file) as data:
        y, sols = data["training_set"][:, 1], data["training_sol"]
    parts = parts_of(SegmentationKFold(5, random_state=0), y, sols)
    plain = parts_of(GroupKFold(5, shuffle=True, random_state=0), y, sols)
    ours, others = (np.abs(shares(y, p) - 0.2).mean() for p in (parts, plain))
    assert ours < 0.5 * others


def test_masked_pixels_are_refused():
    y = np.ma.masked_array(np.random.default_rng(0).integers(0, 3, (8, 4, 4)), False)
    y[0, 0, 0] = np.ma.masked
    for masks in (y, list(y)):
        with pytest.raises(TypeError, match="y has masked pixels"):
            list(SegmentationKFold(2).split(np.zeros(8), masks))
