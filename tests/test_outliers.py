import pickle
import re
import sys
import tracemalloc

import numpy as np
import pytest
from imblearn.pipeline import Pipeline
from sklearn.base import BaseEstimator, clone
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.model_selection import KFold
from sklearn.neighbors import LocalOutlierFactor
from sklearn.utils import get_tags

from skmars import MarsSegmenter
from skmars.datasets import make_terrain
from skmars.outliers import OutlierRemover

SHAPE = (32, 64)
KINDS = ("sprite", "black", "saturated", "noise", "stripes", "blur")


def spoiled(n, outliers, seed, **kwargs):
    """Generated scenes with all five labels in images that are no outliers."""
    X, y, kinds = make_terrain(
        n, shape=SHAPE, outliers=outliers, return_outliers=True, random_state=seed, **kwargs
    )
    for row in np.flatnonzero(kinds == "")[:3]:
        y[row, :3, row : row + 5] = 4
    return X, y, kinds


@pytest.fixture(scope="module")
def sprites():
    return spoiled(120, {"sprite": 6}, 0)


@pytest.fixture(scope="module")
def mixed():
    return spoiled(160, {"sprite": 4, "noise": 4, "duplicate": 2}, 1)


@pytest.fixture(scope="module")
def scenes():
    """A few scenes, all different, in which nothing is an outlier."""
    return spoiled(24, None, 2)[:2]


def random_masks(n, seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, 3, (n, *shape)).astype(np.uint8)


class Brightness(BaseEstimator):
    """A segmenter of two classes, dark and bright, as sure as the pixels are dark or bright."""

    def __init__(self, random_state=None):
        self.random_state = random_state

    def fit(self, X, y):
        self.classes_ = np.array([3, 7])
        self.ignore_label = 0
        self.n_seen_ = len(X)
        return self

    def predict_proba(self, X):
        bright = (X / 255).astype(np.float32)
        return np.stack([1 - bright, bright], axis=1)


@pytest.fixture(scope="module")
def tiles(real_file):
    data = np.load(real_file)
    planted = np.zeros(len(data["training_set"]), dtype=bool)
    planted[data["training_outliers"]] = True
    return data["training_set"][:, 0], data["training_set"][:, 1], planted


@pytest.fixture(scope="module")
def one_of_each():
    return spoiled(240, dict.fromkeys(KINDS, 5), 11)


@pytest.fixture(scope="module")
def expected(mixed):
    X, y, _ = mixed
    return OutlierRemover(random_state=0).fit(X, y)


class TestRealTiles:
    def test_planted_outliers_are_found(self, tiles):
        X, y, planted = tiles
        taken = OutlierRemover().fit_predict(X, y) == -1
        assert taken[planted].mean() >= 0.98
        assert planted[taken].mean() >= 0.98

    def test_without_their_shared_mask_they_are_found_by_appearance(self, tiles):
        X, y, planted = tiles
        y = y.copy()
        rng = np.random.default_rng(0)
        y[planted] = y[rng.choice(np.flatnonzero(~planted), planted.sum(), replace=False)]
        taken = OutlierRemover().fit_predict(X, y) == -1
        assert taken[planted].mean() >= 0.9
        assert planted[taken].mean() >= 0.8

    def test_clean_tiles_stay(self, tiles):
        X, y, planted = tiles
        taken = OutlierRemover().fit_predict(X[~planted], y[~planted]) == -1
        assert taken.mean() <= 0.01


class TestGenerated:
    def test_sprites_and_nothing_else(self, sprites):
        X, y, kinds = sprites
        remover = OutlierRemover()
        inliers = remover.fit_predict(X, y)
        np.testing.assert_array_equal(inliers, np.where(kinds == "sprite", -1, 1))
        assert remover.n_channels_in_ == 1

    @pytest.mark.parametrize("kind", KINDS)
    def test_by_appearance_alone(self, one_of_each, kind):
        X, y, kinds = one_of_each
        chosen = (kinds == "") | (kinds == kind)
        taken = OutlierRemover(method="appearance").fit_predict(X[chosen], y[chosen]) == -1
        assert taken[kinds[chosen] == kind].mean() >= 0.8
        assert taken[kinds[chosen] == ""].mean() <= 0.02

    def test_all_kinds_together(self, mixed):
        X, y, kinds = mixed
        taken = OutlierRemover(random_state=0).fit_predict(X, y) == -1
        assert taken[kinds != ""].mean() >= 0.9
        assert taken[kinds == ""].mean() <= 0.02

    def test_clean_scenes_stay(self, one_of_each):
        X, y, kinds = one_of_each
        clean = kinds == ""
        assert (OutlierRemover().fit_predict(X[clean], y[clean]) == -1).mean() <= 0.01


class TestRepeatedMasks:
    def take(self, X, y):
        return np.flatnonzero(OutlierRemover(method="repeated_mask").fit(X, y).outlier_mask_)

    def test_three_images_with_an_intricate_mask(self, scenes):
        X, _ = scenes
        y = random_masks(len(X))
        y[[4, 9, 20]] = y[4]
        assert self.take(X, y).tolist() == [4, 9, 20]

    def test_of_a_pair_one_may_be_right(self, scenes):
        X, _ = scenes
        y = random_masks(len(X))
        y[9] = y[4]
        assert self.take(X, y).size == 0

    def test_constant_masks_are_normal(self, scenes):
        X, _ = scenes
        y = random_masks(len(X))
        y[:20] = 1
        assert self.take(X, y).size == 0

    def test_straight_horizons_agree_by_chance(self, scenes):
        X, _ = scenes
        y = random_masks(len(X))
        y[:3, :9], y[:3, 9:] = 0, 1
        assert self.take(X, y).size == 0

    def test_but_not_in_nearly_all_images(self, scenes):
        X, _ = scenes
        y = random_masks(len(X))
        y[:20, :9], y[:20, 9:] = 0, 1
        assert self.take(X, y).tolist() == list(range(20))

    def test_copies_of_one_image_share_their_mask_rightly(self, scenes):
        X, _ = scenes
        X, y = X.copy(), random_masks(len(X))
        X[:5], y[:5] = X[0], y[0]
        assert self.take(X, y).size == 0

    def test_any_labels_and_dtypes(self, scenes):
        X, _ = scenes
        y = random_masks(len(X)).astype(np.int64) * 1000 - 5
        y[:4] = y[0]
        for masks in (y, y.astype(np.float32)):
            assert self.take(X, masks).tolist() == [0, 1, 2, 3]

    def test_reason_says_how_many(self, scenes):
        X, _ = scenes
        y = random_masks(len(X))
        y[:4] = y[0]
        remover = OutlierRemover(method="repeated_mask").fit(X, y)
        assert set(remover.reasons_[:4]) == {"shares its mask with 3 other images"}
        assert set(remover.reasons_[4:]) == {""}


class TestContradictingMasks:
    def test_the_mask_that_does_not_fit_is_taken(self):
        rng = np.random.default_rng(0)
        y = np.zeros((30, *SHAPE), dtype=int)
        for mask in y:
            mask[rng.integers(8, 24) :] = 1
        X = (100 + 60 * y + rng.normal(0, 5, y.shape)).astype(np.uint8)
        X[7], y[7] = X[3], 1 - y[3]
        remover = OutlierRemover(method="contradicting_mask", random_state=0).fit(X, y)
        assert np.flatnonzero(remover.outlier_mask_).tolist() == [7]
        assert remover.reasons_[7] == (
            "is identical to 1 other image, but the masks differ on up to 100% of the pixels"
        )

    def test_copies_that_were_found_before_contradict_nothing(self, scenes):
        X, y = scenes
        X, y = X.copy(), y.copy()
        # Neither mask fits, but one is taken already, since it is shared.
        X[7], y[3] = X[3], random_masks(1, seed=1)[0]
        y[[7, 9, 11, 13]] = random_masks(1)[0]
        remover = OutlierRemover(random_state=0).fit(X, y)
        assert remover.outlier_mask_[[7, 9, 11, 13]].all()
        assert not remover.outlier_mask_[3]

    def test_both_are_taken_if_neither_fits_better(self, scenes):
        X, _ = scenes
        X, y = X.copy(), random_masks(len(X))
        X[7] = X[3]
        remover = OutlierRemover(method="contradicting_mask", random_state=0).fit(X, y)
        assert np.flatnonzero(remover.outlier_mask_).tolist() == [3, 7]

    def test_masks_that_differ_a_little_and_constant_images_stay(self, scenes):
        X, y = scenes
        X, y = X.copy(), y.copy()
        X[7], y[7] = X[3], y[3]
        y[7, 0] = 1
        X[10], X[11] = 0, 0
        remover = OutlierRemover(method="contradicting_mask").fit(X, y)
        assert not remover.outlier_mask_.any()


class TestAppearance:
    def test_reason_names_features_and_deviations(self, mixed):
        X, y, kinds = mixed
        remover = OutlierRemover(method="appearance").fit(X, y)
        reasons = remover.reasons_[kinds == "noise"]
        assert all(reason.startswith("looks unlike the others: ") for reason in reasons)
        assert all("robust standard deviations" in reason for reason in reasons)

    @pytest.mark.parametrize("contamination", [0.05, 0.2, 0.29])
    def test_share_that_is_asked_for(self, sprites, contamination):
        X, y, _ = sprites
        remover = OutlierRemover(method="appearance", contamination=contamination)
        assert remover.fit(X, y).outlier_mask_.sum() == round(contamination * len(X))

    def test_share_does_not_count_what_was_found_before(self, sprites):
        X, y, kinds = sprites
        n_sprites, n = (kinds == "sprite").sum(), len(X)
        taken = OutlierRemover(contamination=0.1).fit(X, y).outlier_mask_
        assert taken[kinds == "sprite"].all()
        assert taken.sum() == n_sprites + round(0.1 * (n - n_sprites))

    @pytest.mark.parametrize(
        "detector",
        [
            IsolationForest(contamination=0.05),
            LocalOutlierFactor(n_neighbors=60, contamination=0.05),
            EllipticEnvelope(contamination=0.05),
        ],
        ids=lambda detector: type(detector).__name__,
    )
    @pytest.mark.filterwarnings("ignore:The covariance matrix")
    def test_detectors_of_scikit_learn(self, detector, mixed):
        X, y, kinds = mixed
        before = dict(vars(detector))
        remover = OutlierRemover(method="appearance", detector=detector, random_state=0)
        taken = remover.fit(X, y).outlier_mask_
        assert taken.sum() == 0.05 * len(X)
        assert taken[kinds == "noise"].mean() >= 0.5
        assert (remover.scores_[taken] > 0).all()
        assert (remover.scores_[~taken] <= 0).all()
        assert vars(detector) == before
        remover.set_params(contamination=0.1).fit(X, y)
        assert remover.outlier_mask_.sum() == 0.1 * len(X)

    def test_seed_reaches_the_detector(self, mixed):
        X, y, _ = mixed
        a, b, c = (
            OutlierRemover(method="appearance", detector=IsolationForest(), random_state=seed)
            .fit(X, y)
            .scores_
            for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)

    def test_margins_without_data_are_normal(self):
        X, y = make_terrain(80, shape=SHAPE, random_state=3)
        X = X // 2 + 100
        X[:4, :7] = 0
        X[:4, :, :5] = 0
        assert not OutlierRemover(method="appearance").fit(X, y).outlier_mask_.any()

    def test_coarse_grey_levels_are_no_gaps(self):
        rng = np.random.default_rng(0)
        levels = rng.normal(100, 8, (1500, 1, 1)).round()
        X = levels + rng.normal(0, 3, (1500, 12, 16)).round()
        y = np.zeros(X.shape, dtype=int)
        assert OutlierRemover(method="appearance").fit(X, y).outlier_mask_.mean() <= 0.01

    def test_grey_images_among_coloured_ones(self):
        X, y = make_terrain(120, shape=SHAPE, n_channels=3, random_state=3)
        X[:5] = X[:5].mean(axis=3, keepdims=True)
        remover = OutlierRemover(method="appearance").fit(X, y)
        assert remover.outlier_mask_[:5].all()
        assert "colour" in remover.reasons_[0]
        assert remover.n_channels_in_ == 3

    def test_is_measured_without_repeated_masks(self, sprites):
        X, y, kinds = sprites
        remover = OutlierRemover().fit(X, y)
        reasons = remover.reasons_[kinds == "sprite"]
        assert any("shares" in reason and "looks unlike" in reason for reason in reasons)


class TestLabelQuality:
    @pytest.fixture
    def halves(self):
        """Images of dark and bright pixels, and masks of 3 and 7, of which four are wrong."""
        rng = np.random.default_rng(0)
        bright = rng.random((40, 8, 10)) < 0.5
        X = np.where(bright, 210, 50) + rng.permutation(40)[:, None, None]
        y = np.where(bright, 7, 3)
        y[:4] = 10 - y[:4]
        return X, y

    def test_contradicted_masks_are_taken(self, halves):
        pytest.importorskip("cleanlab")
        X, y = halves
        segmenter = Brightness()
        remover = OutlierRemover(method="label_quality", segmenter=segmenter, contamination=0.1)
        remover.fit(X, y)
        assert np.flatnonzero(remover.outlier_mask_).tolist() == [0, 1, 2, 3]
        assert re.fullmatch(
            r"label quality 0\.[12]\d*, where the median is 0\.[789]\d*", remover.reasons_[0]
        )
        assert not hasattr(segmenter, "n_seen_")

    def test_auto_finds_the_gap(self, halves):
        pytest.importorskip("cleanlab")
        remover = OutlierRemover(method="label_quality", segmenter=Brightness(), cv=KFold(4))
        remover.fit(*halves)
        assert np.flatnonzero(remover.outlier_mask_).tolist() == [0, 1, 2, 3]

    def test_ignored_pixels_are_never_wrong(self, halves):
        pytest.importorskip("cleanlab")
        X, y = halves
        y[4:8] = 0
        remover = OutlierRemover(
            method="label_quality", segmenter=Brightness(), contamination=0.1
        ).fit(X, y)
        assert np.flatnonzero(remover.outlier_mask_).tolist() == [0, 1, 2, 3]
        assert remover.scores_[4:8].max() == remover.scores_.min()

    def test_label_that_only_the_remover_ignores(self, halves):
        pytest.importorskip("cleanlab")
        X, y = halves
        y[4:8] = 255
        settings = {"method": "label_quality", "segmenter": Brightness(), "contamination": 0.1}
        remover = OutlierRemover(**settings, ignore_label=255).fit(X, y)
        assert np.flatnonzero(remover.outlier_mask_).tolist() == [0, 1, 2, 3]
        assert remover.scores_[4:8].max() == remover.scores_.min()

    def test_with_the_segmenter(self, scenes, fast):
        pytest.importorskip("cleanlab")
        X, y = scenes
        remover = OutlierRemover(
            method="label_quality", segmenter=MarsSegmenter(**fast), cv=2, contamination=0.1
        )
        assert remover.fit(X, y).outlier_mask_.sum() == 2

    def test_default_segmenter_ignores_what_the_remover_does(self, halves, monkeypatch):
        pytest.importorskip("cleanlab")
        seen = {}

        def fit(self, X, y):
            seen.update(self.get_params(deep=False))
            raise ValueError("enough")

        monkeypatch.setattr(MarsSegmenter, "fit", fit)
        with pytest.raises(ValueError, match="enough"):
            OutlierRemover(method="label_quality", ignore_label=255).fit(*halves)
        assert isinstance(seen.pop("random_state"), int)
        expected = MarsSegmenter(ignore_label=255).get_params(deep=False)
        assert seen == {name: expected[name] for name in expected if name != "random_state"}

    def test_says_what_to_install(self, halves, monkeypatch):
        monkeypatch.setitem(sys.modules, "cleanlab.segmentation.rank", None)
        remover = OutlierRemover(method="label_quality", segmenter=Brightness())
        with pytest.raises(ImportError, match="extra 'quality'"):
            remover.fit(*halves)

    def test_rare_class_is_not_taken_for_its_rareness(self, halves):
        pytest.importorskip("cleanlab")
        X, y = halves
        y[20, :2] = 9
        remover = OutlierRemover(
            method="label_quality", segmenter=Brightness(), contamination=0.1, random_state=0
        ).fit(X, y)
        assert np.flatnonzero(remover.outlier_mask_).tolist() == [0, 1, 2, 3]


class TestInvariances:
    @pytest.mark.parametrize(
        "change",
        [
            lambda X: X.astype(np.uint16) * 257,
            lambda X: (X / 255).astype(np.float32),
            lambda X: X.astype(np.float64) * 1e-6 - 3,
            lambda X: X.astype(np.int32) * 7 - 1000,
            lambda X: X.astype(np.float32)[..., None],
            lambda X: np.repeat(X[..., None], 3, axis=3),
            lambda X: X.astype(">i2"),
            lambda X: np.asfortranarray(X),
            lambda X: list(X),
        ],
        ids=["uint16", "0..1", "float64", "int32", "channel", "rgb", "big endian", "F", "list"],
    )
    def test_scale_and_dtype_of_the_images(self, mixed, expected, change):
        X, y, _ = mixed
        remover = OutlierRemover(random_state=0).fit(change(X), y)
        np.testing.assert_array_equal(remover.outlier_mask_, expected.outlier_mask_)
        np.testing.assert_allclose(remover.scores_, expected.scores_, atol=5e-3)

    def test_order_of_the_images(self, mixed, expected):
        X, y, _ = mixed
        order = np.random.default_rng(0).permutation(len(X))
        remover = OutlierRemover(random_state=0).fit(X[order], y[order])
        np.testing.assert_array_equal(remover.outlier_mask_, expected.outlier_mask_[order])

    def test_labels(self, mixed, expected):
        X, y, _ = mixed
        masks = np.array([-3, 900, 5, 70, 11])[y]
        remover = OutlierRemover(random_state=0).fit(X, masks)
        np.testing.assert_array_equal(remover.outlier_mask_, expected.outlier_mask_)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (2, 2), (5, 3), (1, 1, 4)])
    def test_tiny_images(self, shape):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(40, *shape))
        y = rng.integers(0, 2, (40, *shape[:2]))
        remover = OutlierRemover(random_state=0).fit(X, y)
        assert np.isfinite(remover.scores_).all()

    @pytest.mark.parametrize("value", [0, 7])
    def test_images_that_show_nothing(self, value):
        X, y = np.full((30, 6, 6), value, dtype=np.uint8), random_masks(30, shape=(6, 6))
        assert not OutlierRemover().fit(X, y).outlier_mask_.any()

    def test_few_images(self, scenes):
        X, y = scenes
        for n in (1, 2, 5):
            assert (OutlierRemover().fit_predict(X[:n], y[:n]) == 1).all()


class TestInterface:
    def test_attributes_agree(self, mixed):
        X, y, _ = mixed
        remover = OutlierRemover(random_state=0)
        X_clean, y_clean = remover.fit_resample(X, y)
        kept = np.flatnonzero(~remover.outlier_mask_)
        assert 0 < len(kept) < len(X)
        np.testing.assert_array_equal(remover.sample_indices_, kept)
        np.testing.assert_array_equal(X_clean, X[kept])
        np.testing.assert_array_equal(y_clean, y[kept])
        assert (X_clean.dtype, y_clean.dtype) == (X.dtype, y.dtype)
        np.testing.assert_array_equal(remover.scores_ > 0, remover.outlier_mask_)
        np.testing.assert_array_equal(remover.reasons_ != "", remover.outlier_mask_)
        np.testing.assert_array_equal(
            remover.fit_predict(X, y), np.where(remover.outlier_mask_, -1, 1)
        )

    def test_nothing_is_copied_when_nothing_is_taken(self, scenes):
        X, y = scenes
        X_clean, y_clean = OutlierRemover().fit_resample(X, y)
        assert X_clean is X
        assert y_clean is y

    def test_images_become_floats_only_in_part(self):
        X = np.tile(make_terrain(10, random_state=0)[0], (60, 1, 1))
        X = X + np.arange(len(X), dtype=np.uint8)[:, None, None] % 7
        y = np.zeros(X.shape, dtype=np.uint8)
        tracemalloc.start()
        OutlierRemover(method="appearance").fit(X, y)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < X.size * 4

    def test_inputs_parameters_and_global_state_stay(self, mixed):
        X, y, _ = mixed
        X, y = X.copy(), y.copy()
        X.flags.writeable = y.flags.writeable = False
        state = np.random.get_state()[1].copy()  # noqa: NPY002
        remover = OutlierRemover(detector=IsolationForest(), random_state=3)
        parameters = remover.get_params()
        remover.fit(X, y)
        assert remover.get_params() == parameters
        np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002

    def test_clone_pickle_and_nested_parameters(self, sprites):
        X, y, _ = sprites
        remover = OutlierRemover(detector=IsolationForest(), method="repeated_mask").fit(X, y)
        copy = clone(remover).set_params(detector__n_estimators=7)
        assert not hasattr(copy, "scores_")
        assert copy.detector.n_estimators == 7
        again = pickle.loads(pickle.dumps(remover))
        np.testing.assert_array_equal(again.scores_, remover.scores_)

    def test_tags(self):
        tags = get_tags(OutlierRemover())
        assert tags.input_tags.three_d_array
        assert not tags.input_tags.two_d_array
        assert tags.target_tags.required

    def test_in_a_pipeline_only_training_images_go_through_it(self, sprites, fast):
        X, y, kinds = sprites
        pipeline = Pipeline([("clean", OutlierRemover()), ("segment", MarsSegmenter(**fast))]).fit(
            X, y
        )
        assert pipeline["clean"].outlier_mask_.sum() == (kinds == "sprite").sum()
        clean = kinds == ""
        alone = MarsSegmenter(**fast).fit(X[clean], y[clean])
        np.testing.assert_array_equal(pipeline["segment"].mean_, alone.mean_)
        assert pipeline.predict(X).shape == y.shape


class TestBadInput:
    @pytest.mark.parametrize(
        ("parameters", "name"),
        [
            ({"method": "magic"}, "method"),
            ({"contamination": 0.0}, "contamination"),
            ({"contamination": 0.6}, "contamination"),
            ({"contamination": "some"}, "contamination"),
            ({"detector": "forest"}, "detector"),
            ({"segmenter": IsolationForest()}, "segmenter"),
            ({"cv": "five"}, "cv"),
            ({"random_state": "x"}, "random_state"),
        ],
    )
    def test_parameters(self, scenes, parameters, name):
        with pytest.raises(ValueError, match=f"The '{name}' parameter of OutlierRemover"):
            OutlierRemover(**parameters).fit(*scenes)

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            (lambda X, y: (X[0], y[0]), ValueError, "got 2 dimensions"),
            (lambda X, y: (X[:0], y[:0]), ValueError, "empty"),
            (lambda X, y: (X.astype(str), y), TypeError, "real numbers"),
            (lambda X, y: (X * np.nan, y), ValueError, "NaN"),
            (lambda X, y: (X, y[:-1]), ValueError, "one label for each pixel"),
            (lambda X, y: (X, y + 0.5), ValueError, "fractions"),
            (lambda X, y: (X, None), ValueError, "got None"),
        ],
    )
    def test_images_and_masks(self, scenes, change, error, message):
        for call in ("fit", "fit_resample", "fit_predict"):
            with pytest.raises(error, match=message):
                getattr(OutlierRemover(), call)(*change(*scenes))

    def test_taking_everything(self, scenes):
        X, y = scenes
        y = np.broadcast_to(random_masks(1), y.shape)
        with pytest.raises(ValueError, match=r"all 24 images would be outliers"):
            OutlierRemover().fit(X, y)

    def test_taking_a_whole_class(self, scenes):
        X, y = scenes
        y = random_masks(len(X))
        y[:4] = y[0]
        y[:4, 0, 0] = 9
        with pytest.raises(ValueError, match=r"all pixels of the labels \[9\]"):
            OutlierRemover().fit(X, y)


class TestIgnoredLabel:
    def test_a_border_without_labels_makes_no_shared_mask(self, scenes):
        X, y = scenes
        y = y.copy()
        y[:12] = 1
        y[:, :3, :5] = y[:, -3:, -5:] = y[:, 9:11, 7:9] = 255
        assert OutlierRemover(method="repeated_mask").fit(X, y).outlier_mask_[:12].all()
        remover = OutlierRemover(method="repeated_mask", ignore_label=255).fit(X, y)
        assert not remover.outlier_mask_.any()

    def test_shared_masks_are_found_beside_it(self, sprites):
        X, y, kinds = sprites
        y = y.copy()
        y[:, :2] = 255
        remover = OutlierRemover(method="repeated_mask", ignore_label=255).fit(X, y)
        np.testing.assert_array_equal(remover.outlier_mask_, kinds == "sprite")

    def test_a_mask_that_is_partly_missing_contradicts_nothing(self, scenes):
        X, y = scenes[0].copy(), scenes[1].copy()
        X[1], y[1] = X[0], y[0]
        y[1, :, :40] = y[2, :2] = 255
        method = {"method": "contradicting_mask", "random_state": 0}
        assert OutlierRemover(**method).fit(X, y).outlier_mask_[:2].any()
        assert not OutlierRemover(**method, ignore_label=255).fit(X, y).outlier_mask_.any()
        # Where both have a label they may still differ.
        y[1, :, 40:] = (y[1, :, 40:] + 1) % 4
        assert OutlierRemover(**method, ignore_label=255).fit(X, y).outlier_mask_[:2].any()

    def test_it_may_go_with_the_outliers(self, sprites):
        X, y, kinds = sprites
        y = y.copy()
        y[kinds == "sprite", :2] = 255
        with pytest.raises(ValueError, match=r"labels \[255\]"):
            OutlierRemover(method="repeated_mask").fit(X, y)
        remover = OutlierRemover(method="repeated_mask", ignore_label=255).fit(X, y)
        np.testing.assert_array_equal(remover.outlier_mask_, kinds == "sprite")
