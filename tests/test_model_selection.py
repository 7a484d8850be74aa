import numpy as np
import pytest

from skmars.model_selection import class_counts, holdout_split


def make_counts(n=60, n_classes=4, seed=0):
    """Pixels of each class in images that mostly show one or two of them."""
    rng = np.random.default_rng(seed)
    return np.round(1000 * rng.dirichlet(np.full(n_classes, 0.3), n)).astype(int)


def split(counts, fraction, seed=0, **kwargs):
    return holdout_split(counts, fraction, rng=np.random.default_rng(seed), **kwargs)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_class_counts_against_unique(dtype):
    rng = np.random.default_rng(0)
    y = rng.integers(5, size=(7, 9, 11)).astype(dtype)
    classes = np.array([0, 2, 3, 9])
    counts = class_counts(y, classes)
    assert counts.shape == (7, 4)
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
