import math

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import confusion_matrix, jaccard_score, make_scorer
from sklearn.model_selection import KFold, cross_val_score

from skmars.metrics import (
    boundary_f1_score,
    boundary_f1_scorer,
    confusion_counts,
    expected_calibration_error,
    iou_from_counts,
    iou_per_class,
    mask_pairs,
    mean_iou_score,
    mean_iou_scorer,
)

LABEL_SETS = {
    "plain": [0, 1, 2, 3, 4],
    "negative": [-7, -1, 0, 12],
    "far": [-(10**12), 3, 255, 10**15],
    "bytes": [0, 1, 255],
}


def random_masks(seed, values, n=5, dtype=np.int64):
    """Masks of which the last value is never true and the first never predicted."""
    rng = np.random.default_rng(seed)
    true = rng.choice(values[:-1], size=(n, 6, 7)).astype(dtype)
    pred = np.where(rng.random(true.shape) < 0.4, true, rng.choice(values, size=true.shape))
    return true, np.where(pred == values[0], values[1], pred).astype(dtype)


def ravel(*masks):
    return [np.concatenate([np.ravel(mask) for mask in group]) for group in masks]


@pytest.fixture(params=[2**17, 50], ids=["one chunk", "small chunks"])
def chunk(request, monkeypatch):
    monkeypatch.setattr(mask_pairs, "CHUNK", request.param)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("values", LABEL_SETS.values(), ids=LABEL_SETS)
def test_counts_equal_sklearn(values, seed):
    true, pred = random_masks(seed, values)
    counts = confusion_counts(true, pred)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, confusion_matrix(*ravel(true, pred)))
    subset = [values[2], values[0]]
    np.testing.assert_array_equal(
        confusion_counts(true, pred, labels=subset),
        confusion_matrix(*ravel(true, pred), labels=subset),
    )


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("seed", range(3))
def test_weighted_counts_equal_sklearn(seed):
    true, pred = random_masks(seed, [0, 1, 2, 3])
    weight = np.random.default_rng(seed).random(true.shape)
    counts = confusion_counts(true, pred, sample_weight=weight)
    assert counts.dtype == np.float64
    expected = confusion_matrix(*ravel(true, pred), sample_weight=weight.ravel())
    np.testing.assert_allclose(counts, expected)
    by_image = weight[:, 0, 0]
    np.testing.assert_allclose(
        confusion_counts(true, pred, sample_weight=by_image),
        confusion_matrix(*ravel(true, pred), sample_weight=np.repeat(by_image, 6 * 7)),
    )


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("absent", [0.0, 1.0])
@pytest.mark.parametrize("values", LABEL_SETS.values(), ids=LABEL_SETS)
def test_iou_equals_jaccard_score(values, absent, weighted):
    true, pred = random_masks(0, values)
    weight = np.random.default_rng(1).random(true.shape) if weighted else None
    flat = None if weight is None else weight.ravel()
    for labels in (None, [values[1]], [values[0], values[2]], [values[1], 99, values[-1]]):
        iou = iou_per_class(true, pred, labels=labels, absent=absent, sample_weight=weight)
        mean = mean_iou_score(true, pred, labels=labels, absent=absent, sample_weight=weight)
        kwargs = {"labels": labels, "sample_weight": flat, "zero_division": absent}
        expected = jaccard_score(*ravel(true, pred), average=None, **kwargs)
        np.testing.assert_allclose(iou, expected)
        assert mean == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("absent", [0.0, 1.0])
def test_class_of_weight_zero_is_absent_but_a_class(absent):
    true, pred = np.array([[[0, 0]], [[5, 5]]]), np.array([[[0, 1]], [[5, 5]]])
    weight = np.array([1.0, 0.0])
    iou = iou_per_class(true, pred, sample_weight=weight, absent=absent)
    expected = jaccard_score(
        *ravel(true, pred), average=None, sample_weight=[1, 1, 0, 0], zero_division=absent
    )
    np.testing.assert_allclose(iou, expected)
    excluded = iou_per_class(true, pred, sample_weight=weight)
    np.testing.assert_array_equal(np.isnan(excluded), [False, False, True])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ignore_label", [0, 2, 4, 77])
def test_ignore_label(ignore_label, seed):
    values = [0, 1, 2, 3, 4]
    true, pred = random_masks(seed, values)
    pred[0, :2] = 0
    keep = true != ignore_label
    classes = [c for c in values if c != ignore_label]
    expected = jaccard_score(true[keep], pred[keep], labels=classes, average=None)
    kwargs = {"ignore_label": ignore_label}
    np.testing.assert_allclose(iou_per_class(true, pred, **kwargs), expected)
    np.testing.assert_allclose(iou_per_class(true, pred, labels=classes, **kwargs), expected)
    assert mean_iou_score(true, pred, **kwargs) == pytest.approx(expected.mean())
    np.testing.assert_array_equal(
        confusion_counts(true, pred, **kwargs),
        confusion_matrix(true[keep], pred[keep], labels=classes),
    )
    # What is predicted at ignored pixels, be it a label of its own, has no effect.
    changed = np.where(keep, pred, 50)
    np.testing.assert_array_equal(iou_per_class(true, changed, **kwargs), expected)


def test_predicting_the_ignored_label_is_a_miss():
    true, pred = [[[1, 1, 2, 0]]], [[[1, 0, 2, 2]]]
    np.testing.assert_allclose(iou_per_class(true, pred, ignore_label=0), [0.5, 1.0])


def test_absent():
    true = pred = [[[0, 1]]]
    iou = iou_per_class(true, pred, labels=[0, 1, 2])
    np.testing.assert_array_equal(iou, [1.0, 1.0, np.nan])
    assert mean_iou_score(true, pred, labels=[0, 1, 2]) == 1.0
    assert mean_iou_score(true, pred, labels=[0, 1, 2], absent=0) == pytest.approx(2 / 3)
    # Predicted only is not absent.
    assert mean_iou_score(true, [[[0, 2]]], labels=[0, 1, 2], absent=1.0) == pytest.approx(1 / 3)


@pytest.mark.parametrize("score", [mean_iou_score, boundary_f1_score])
def test_nothing_present_is_nan_with_a_warning(score):
    masks = np.zeros((2, 3, 3), dtype=int)
    for kwargs in ({"ignore_label": 0}, {"labels": [7, 8]}):
        with pytest.warns(UndefinedMetricWarning, match="no class is present"):
            assert math.isnan(score(masks, masks, **kwargs))
    assert score(masks, masks, labels=[7, 8], absent=1.0) == 1.0


def test_data_set_wide_not_a_mean_of_images():
    true, pred = random_masks(0, [0, 1, 2])
    images = [mean_iou_score(true[i : i + 1], pred[i : i + 1]) for i in range(len(true))]
    expected = jaccard_score(*ravel(true, pred), average="macro")
    assert mean_iou_score(true, pred) == pytest.approx(expected)
    assert np.mean(images) != pytest.approx(expected)


@pytest.mark.usefixtures("chunk")
def test_lists_of_different_sizes():
    rng = np.random.default_rng(0)
    shapes = [(4, 5), (4, 5), (30, 9), (1, 1), (4, 5)]
    true = [rng.integers(0, 3, size=shape) for shape in shapes]
    pred = [rng.integers(0, 4, size=shape) for shape in shapes]
    np.testing.assert_array_equal(
        confusion_counts(true, pred), confusion_matrix(*ravel(true, pred))
    )
    weights = [rng.random(shape) for shape in shapes]
    expected = jaccard_score(
        *ravel(true, pred), sample_weight=ravel(weights)[0], average="macro", zero_division=0
    )
    assert mean_iou_score(true, pred, sample_weight=weights) == pytest.approx(expected)
    by_image = rng.random(len(true))
    flat = np.repeat(by_image, [mask.size for mask in true])
    np.testing.assert_allclose(
        confusion_counts(true, pred, sample_weight=by_image),
        confusion_matrix(*ravel(true, pred), sample_weight=flat),
    )
    np.testing.assert_array_equal(
        confusion_counts(np.array(true, dtype=object), pred), confusion_counts(true, pred)
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.uint64, np.float32, bool])
def test_any_dtype_that_holds_integers(dtype):
    true, pred = (masks.clip(0, 1) for masks in random_masks(0, [0, 1, 2]))
    expected = confusion_counts(true, pred)
    np.testing.assert_array_equal(confusion_counts(true.astype(dtype), pred), expected)
    np.testing.assert_array_equal(confusion_counts(true, pred.astype(dtype)), expected)
    assert boundary_f1_score(true.astype(dtype), pred) == boundary_f1_score(true, pred)


def test_array_and_list_and_strides_agree():
    true, pred = random_masks(0, [0, 1, 2, 3])
    expected = confusion_counts(true, pred)
    np.testing.assert_array_equal(confusion_counts(true, list(pred)), expected)
    np.testing.assert_array_equal(confusion_counts(true.tolist(), pred.tolist()), expected)
    turned = confusion_counts(true.swapaxes(1, 2), pred.swapaxes(1, 2))
    np.testing.assert_array_equal(turned, expected)


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_repetition(seed):
    true, pred = random_masks(seed, [0, 1, 2, 3])
    times = np.array([2, 0, 1, 3, 1])
    repeated = confusion_counts(np.repeat(true, times, 0), np.repeat(pred, times, 0))
    weighted = confusion_counts(true, pred, sample_weight=times, labels=[1, 2, 3, 0])
    np.testing.assert_array_equal(weighted[:3, :3], repeated[1:, 1:])


def test_iou_from_counts():
    true, pred = random_masks(0, [0, 1, 2, 3])
    labels = [0, 1, 2, 3, 4]
    counts = confusion_counts(true, pred, labels=labels)
    for absent in ("exclude", 0.0, 1.0):
        np.testing.assert_array_equal(
            iou_from_counts(counts, absent=absent),
            iou_per_class(true, pred, labels=labels, absent=absent),
        )
    np.testing.assert_array_equal(iou_from_counts([[2, 2], [0, 4]]), [0.5, 4 / 6])
    with pytest.raises(ValueError, match=r"\(K, K\)"):
        iou_from_counts(np.ones((2, 3)))


def test_memory_stays_flat():
    tracemalloc = pytest.importorskip("tracemalloc")
    masks = np.zeros((800, 64, 128), dtype=np.uint8)
    masks[:, :32] = 1
    tracemalloc.start()
    assert mean_iou_score(masks, masks) == 1.0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * masks.nbytes  # int64 copies of both would be 16 times


# Boundary F1


def brute_force_boundary_f1(true, pred, classes, tolerance, ignore_label=None):
    scores = []
    for c in classes:
        hits, totals = np.zeros(2), np.zeros(2)
        for y, p in zip(true, pred, strict=True):
            a, b = (brute_force_edge(mask, y, c, ignore_label) for mask in (y, p))
            for i, (one, other) in enumerate([(a, b), (b, a)]):
                totals[i] += len(one)
                hits[i] += sum(
                    any(math.dist(here, there) <= tolerance for there in other) for here in one
                )
        if totals.sum() == 0:
            continue
        recall, precision = (h / t if t else 0.0 for h, t in zip(hits, totals, strict=True))
        f1 = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
        scores.append(f1)
    return np.mean(scores)


def brute_force_edge(mask, y, c, ignore_label):
    edge = []
    for i, j in np.argwhere(mask == c):
        if y[i, j] == ignore_label:
            continue
        for k, m in [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]:
            inside = 0 <= k < mask.shape[0] and 0 <= m < mask.shape[1]
            if inside and y[k, m] != ignore_label and mask[k, m] != c:
                edge.append((i, j))
                break
    return edge


def blobs(seed, n=3, values=(0, 1, 2)):
    rng = np.random.default_rng(seed)
    coarse = rng.choice(values, size=(n, 3, 4))
    true = np.kron(coarse, np.ones((1, 4, 4), dtype=int))
    pred = np.roll(true, (1, 2), axis=(1, 2))
    noise = rng.random(true.shape) < 0.05
    return true, np.where(noise, rng.choice(values, size=true.shape), pred)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("tolerance", [0, 1, math.sqrt(2), 2, 3.7, 5, 1e12])
@pytest.mark.parametrize("ignore_label", [None, 0])
def test_boundary_f1_equals_brute_force(tolerance, ignore_label):
    for seed in range(2):
        true, pred = blobs(seed)
        classes = [c for c in (0, 1, 2) if c != ignore_label]
        got = boundary_f1_score(true, pred, tolerance=tolerance, ignore_label=ignore_label)
        expected = brute_force_boundary_f1(true, pred, classes, tolerance, ignore_label)
        assert got == pytest.approx(expected)


def test_boundary_f1_of_lists_and_labels():
    true, pred = blobs(0)
    true, pred = [true[0], true[1][:7, :9]], [pred[0], pred[1][:7, :9]]
    expected = brute_force_boundary_f1(true, pred, [2, 0], 1)
    assert boundary_f1_score(true, pred, labels=[2, 0], tolerance=1) == pytest.approx(expected)


def test_boundary_f1_does_not_see_ignored_predictions():
    true, pred = blobs(1)
    before = boundary_f1_score(true, pred, ignore_label=1)
    pred[true == 1] = 9
    assert boundary_f1_score(true, pred, ignore_label=1) == before


def test_boundary_f1_absent():
    true = np.zeros((1, 6, 6), dtype=int)
    true[:, :, 3:] = 1
    assert boundary_f1_score(true, true) == 1.0
    assert boundary_f1_score(true, true, labels=[0, 1, 2]) == 1.0
    assert boundary_f1_score(true, true, labels=[0, 1, 2, 3], absent=0.0) == 0.5
    # A boundary on one side only is no absent class.
    assert boundary_f1_score(true, true * 0, absent=1.0) == 0.0
    assert boundary_f1_score(true * 0, true, absent=1.0) == 0.0


# Scorers


class Threshold(BaseEstimator):
    """Class 1 above a threshold: an estimator of 3-D X and y."""

    def __init__(self, threshold=0.5):
        self.threshold = threshold

    def fit(self, X, y):
        return self

    def predict(self, X):
        return np.greater(X, self.threshold).astype(np.uint8)


@pytest.mark.parametrize(
    ("scorer", "score", "kwargs"),
    [
        (mean_iou_scorer, mean_iou_score, {}),
        (boundary_f1_scorer, boundary_f1_score, {}),
        (make_scorer(mean_iou_score, ignore_label=0), mean_iou_score, {"ignore_label": 0}),
    ],
)
def test_scorers_in_cross_validation(scorer, score, kwargs):
    X = np.random.default_rng(0).random((6, 5, 8))
    y = (X > 0.4).astype(np.uint8)
    splits = KFold(3)
    got = cross_val_score(Threshold(), X, y, scoring=scorer, cv=splits, error_score="raise")
    pred = Threshold().predict(X)
    expected = [score(y[test], pred[test], **kwargs) for _, test in splits.split(X)]
    np.testing.assert_allclose(got, expected)
    assert 0 < got.min() < 1


# Bad input

GOOD = np.zeros((2, 3, 4), dtype=int)


@pytest.mark.parametrize("score", [mean_iou_score, boundary_f1_score, confusion_counts])
@pytest.mark.parametrize(
    ("true", "pred", "match"),
    [
        (GOOD, GOOD[:1], "differ in length: 2 and 1"),
        (GOOD, GOOD[:, :2], r"y_true\[0\] is of shape \(3, 4\) but y_pred\[0\] of \(2, 4\)"),
        ([GOOD[0], GOOD[0]], [GOOD[0], GOOD[0].T], r"y_pred\[1\]"),
        (GOOD[0], GOOD[0], r"\(n, H, W\)"),
        (GOOD[..., None], GOOD[..., None], r"\(n, H, W\)"),
        (GOOD + 0.5, GOOD, "must hold integers"),
        (GOOD, GOOD + 0.5, "must hold integers"),
        (GOOD, np.full(GOOD.shape, np.nan), "must hold integers"),
        (GOOD, np.full(GOOD.shape, np.inf), "must hold integers"),
        (GOOD, np.full(GOOD.shape, 2**64 - 1, dtype=np.uint64), "must hold integers"),
        (GOOD.astype(str), GOOD, "y_true must be an integer array"),
        ([], [], "empty"),
        (GOOD[:, :0], GOOD[:, :0], "empty"),
    ],
)
def test_bad_masks(score, true, pred, match):
    with pytest.raises(ValueError, match=match):
        score(true, pred)


@pytest.mark.parametrize("score", [mean_iou_score, boundary_f1_score, confusion_counts])
@pytest.mark.parametrize("name", ["y_true", "y_pred"])
def test_masked_pixels_have_no_label(score, name):
    masked = np.ma.masked_array(GOOD, mask=np.zeros(GOOD.shape, bool))
    masked[1, 2, 3] = np.ma.masked
    with pytest.raises(TypeError, match=f"{name} has masked pixels"):
        score(**{"y_true": GOOD, "y_pred": GOOD, name: masked})


@pytest.mark.parametrize("absent", ["include", 0.5, None, 2, math.nan, "0"])
def test_bad_absent(absent):
    for score in (mean_iou_score, iou_per_class, boundary_f1_score):
        with pytest.raises(ValueError, match=r"absent must be 'exclude', 0\.0 or 1\.0"):
            score(GOOD, GOOD, absent=absent)
    with pytest.raises(ValueError, match="absent must be"):
        iou_from_counts([[1]], absent=absent)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"labels": []}, "at least one"),
        ({"labels": ["a"]}, "at least one integer"),
        ({"labels": [0.5]}, "integers"),
        ({"labels": [[0, 1]]}, "labels must be a list"),
        ({"labels": [1, 1]}, "repeat"),
        ({"labels": [0, 1], "ignore_label": 1}, "ignore_label=1"),
        ({"ignore_label": 0.5}, "ignore_label must be"),
        ({"sample_weight": [1.0]}, "length 1, y_true of 2"),
        ({"sample_weight": np.ones((2, 4, 3))}, r"sample_weight\[0\]"),
        ({"sample_weight": [1.0, -1.0]}, "finite and not negative"),
        ({"sample_weight": [1.0, np.nan]}, "finite and not negative"),
        ({"sample_weight": [1.0, np.inf]}, "finite and not negative"),
    ],
)
def test_bad_arguments(kwargs, match):
    with pytest.raises(ValueError, match=match):
        mean_iou_score(GOOD, GOOD, **kwargs)


@pytest.mark.parametrize("tolerance", [-1, math.inf, math.nan])
def test_bad_tolerance(tolerance):
    with pytest.raises(ValueError, match="tolerance must be"):
        boundary_f1_score(GOOD, GOOD, tolerance=tolerance)


def test_masked_pixels_are_not_calibrated():
    y = np.ma.masked_equal(np.array([[[0, 1, 255]]]), 255)
    with pytest.raises(TypeError, match="masked pixels"):
        expected_calibration_error(y, np.full((1, 2, 1, 3), 0.5), labels=[0, 1])
