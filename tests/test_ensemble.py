import itertools
import pickle

import numpy as np
import pytest
from imblearn.pipeline import Pipeline as SamplingPipeline
from optuna.distributions import CategoricalDistribution
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, UnsetMetadataPassedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from skmars import Augmenter, Ensemble, MarsSegmenter
from skmars import ensemble as ensemble_module
from skmars.metrics import mean_iou_score
from skmars.model_selection import SegmentationKFold
from skmars.prediction.windows import cover
from skmars.tuning import SegmenterSearchCV
from skmars.tuning import search as search_module


@pytest.fixture(scope="module")
def data(terrain):
    return terrain[0], np.minimum(terrain[1], 3)


@pytest.fixture(scope="module")
def member():
    return MarsSegmenter(
        depth=2, base_channels=4, max_epochs=2, batch_size=8, precision="float32", n_threads=1
    )


@pytest.fixture(scope="module")
def fitted(data, member):
    return Ensemble(member, n_members=3, random_state=0).fit(*data)


def weights(segmenter):
    return np.concatenate(
        [w.numpy().ravel() for w in segmenter.net_.module_.state_dict().values()]
    )


def test_probabilities_are_the_mean_of_the_members(data, fitted):
    X = data[0]
    mean = np.mean([one.predict_proba(X) for one in fitted.estimators_], axis=0)
    np.testing.assert_allclose(fitted.predict_proba(X), mean, atol=1e-6)
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(
        fitted.predict(X), fitted.classes_[fitted.predict_proba(X).argmax(axis=1)]
    )


def test_score_is_the_mean_iou_of_the_vote(data, fitted):
    X, y = data
    assert fitted.score(X, y) == mean_iou_score(y, fitted.predict(X), labels=fitted.classes_)


def test_folds_share_the_images_out(data, member, monkeypatch):
    X, y = data
    seen = []

    def fit(self, X, y, *, validation_data=None, groups=None, sample_weight=None):
        seen.append((X, validation_data, groups, sample_weight))
        self.classes_ = np.arange(4)
        return self

    monkeypatch.setattr(MarsSegmenter, "fit", fit)
    weight, groups = np.arange(1.0, len(X) + 1), np.arange(len(X)) // 2
    Ensemble(member, n_members=4, random_state=0).fit(X, y, sample_weight=weight, groups=groups)
    held_out = np.concatenate([validation[0] for _, validation, _, _ in seen])
    assert sorted(map(bytes, held_out)) == sorted(map(bytes, X))
    places = {bytes(image): place for place, image in enumerate(X)}
    for images, validation, own_groups, own_weight in seen:
        rows = [places[bytes(image)] for image in images]
        assert len(rows) + len(validation[0]) == len(X)
        np.testing.assert_array_equal(own_weight, weight[rows])
        np.testing.assert_array_equal(own_groups, groups[rows])
        others = {places[bytes(image)] // 2 for image in validation[0]}
        assert not others & set(own_groups)


def test_seeds_train_on_everything(data, member):
    ensemble = Ensemble(member, n_members=2, members="seeds", random_state=0).fit(*data)
    seeds = [one.random_state for one in ensemble.estimators_]
    assert len(set(seeds)) == 2
    alone = clone(member).set_params(random_state=seeds[1]).fit(*data)
    np.testing.assert_array_equal(weights(alone), weights(ensemble.estimators_[1]))


def test_members_differ_and_one_seed_gives_the_same_ones(data, member, fitted):
    assert not np.array_equal(weights(fitted.estimators_[0]), weights(fitted.estimators_[1]))
    again = Ensemble(member, n_members=3, random_state=0).fit(*data)
    for one, other in zip(fitted.estimators_, again.estimators_, strict=True):
        np.testing.assert_array_equal(weights(one), weights(other))
    assert member.random_state is None


def test_members_may_be_trained_side_by_side(data, member, fitted):
    ensemble = Ensemble(member, n_members=3, n_jobs=2, random_state=0).fit(*data)
    np.testing.assert_allclose(
        ensemble.predict_proba(data[0]), fitted.predict_proba(data[0]), atol=0.01
    )


def test_uncertainty_is_entropy_of_the_mean_less_mean_entropy(data, fitted):
    X = data[0]
    votes = np.stack([one.predict_proba(X) for one in fitted.estimators_]).astype(float)

    def entropy(p, axis):
        return -(p * np.log(p)).sum(axis=axis) / np.log(4)

    total, own = entropy(votes.mean(axis=0), 1), entropy(votes, 2).mean(axis=0)
    np.testing.assert_allclose(fitted.predict_uncertainty(X, kind="entropy"), total, atol=1e-5)
    np.testing.assert_allclose(fitted.predict_uncertainty(X), total - own, atol=1e-5)
    assert fitted.predict_uncertainty(X).min() >= 0
    assert fitted.predict_uncertainty(X).dtype == np.float32


def test_members_that_agree_are_certain_of_each_other(data, fitted):
    same = Ensemble(fitted.estimator)
    same.estimators_ = [fitted.estimators_[0]] * 3
    same.classes_, same.n_channels_in_ = fitted.classes_, 1
    assert same.predict_uncertainty(data[0]).max() < 1e-6
    assert same.predict_uncertainty(data[0], kind="entropy").max() > 0.1


def test_larger_images_are_taken_fewer_at_a_time(data, fitted, monkeypatch):
    X = np.repeat(np.repeat(data[0][:10], 2, axis=1), 2, axis=2)
    expected = fitted.predict_uncertainty(X)
    sizes = []

    member = fitted.estimators_[0]

    def watched(images, original=member.predict_proba):
        sizes.append(len(images))
        return original(images)

    monkeypatch.setattr(member, "predict_proba", watched)
    monkeypatch.setattr("skmars.ensemble.PIXELS_AT_ONCE", 3 * X[0].size + 1)
    np.testing.assert_allclose(fitted.predict_uncertainty(X), expected, atol=1e-5)
    assert sizes == [3, 3, 3, 1]


def test_images_of_different_sizes(data, fitted):
    images = [data[0][0], data[0][1][:20, :30]]
    masks = fitted.predict(images)
    assert [mask.shape for mask in masks] == [(32, 48), (20, 30)]
    np.testing.assert_array_equal(masks[0], fitted.predict(data[0][:1])[0])
    assert [u.shape for u in fitted.predict_uncertainty(images)] == [(32, 48), (20, 30)]


def test_class_that_a_member_has_not_seen(data, fitted):
    X, y = data
    missing = Ensemble(fitted.estimator)
    few = clone(fitted.estimator).fit(X, np.maximum(y, 1))
    missing.estimators_ = [fitted.estimators_[0], few]
    missing.n_channels_in_ = 1
    missing._set_classes()
    assert missing.classes_.tolist() == [0, 1, 2, 3]
    half = fitted.estimators_[0].predict_proba(X)[:, 0] / 2
    np.testing.assert_allclose(missing.predict_proba(X)[:, 0], half, atol=1e-6)


def test_class_in_one_fold_only(data, member):
    X, y = data[0], data[1].copy()
    y[3] = 9
    ensemble = Ensemble(member, n_members=3, random_state=0).fit(X, y)
    assert ensemble.classes_.tolist() == [0, 1, 2, 3, 9]
    assert sum(9 in one.classes_ for one in ensemble.estimators_) == 2
    assert all("valid_loss" in one.history_[0] for one in ensemble.estimators_)


def test_pipelines_as_members(data, member):
    X, y = data
    steps = [("half", FunctionTransformer(np.copy)), ("segment", member)]
    ensemble = Ensemble(Pipeline(steps), n_members=2, random_state=0)
    ensemble.fit(X, y, groups=np.arange(len(X)) // 2)
    assert ensemble.predict(X).shape == y.shape
    with pytest.raises(ValueError, match="without pickle"):
        ensemble.save("anywhere")


def test_searches_as_members(data, member):
    X, y = data
    grid = GridSearchCV(clone(member).set_params(ignore_label=0), {"depth": [2]}, cv=2)
    ensemble = Ensemble(grid, n_members=2, random_state=0).fit(X, y)
    assert ensemble.ignore_label == 0
    expected = mean_iou_score(y, ensemble.predict(X), labels=[1, 2, 3], ignore_label=0)
    assert ensemble.score(X, y) == expected


def test_frozen_members(data, fitted):
    one = fitted.estimators_[0]
    ensemble = Ensemble(FrozenEstimator(one), n_members=2).fit(*data)
    np.testing.assert_allclose(
        ensemble.predict_proba(data[0]), one.predict_proba(data[0]), atol=1e-6
    )


@pytest.mark.parametrize("in_pipeline", [False, True])
def test_metadata_are_routed(data, member, in_pipeline):
    X, y = data
    weight = np.linspace(0.1, 3, len(X))
    with config_context(enable_metadata_routing=True):

        def votes(request):
            segmenter = clone(member).set_fit_request(sample_weight=request, groups=True)
            estimator = Pipeline([("segment", segmenter)]) if in_pipeline else segmenter
            ensemble = Ensemble(estimator, n_members=2, random_state=0)
            groups = np.arange(len(X)) // 2
            return ensemble.fit(X, y, sample_weight=weight, groups=groups).predict_proba(X)

        assert not np.allclose(votes(True), votes(False))
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            votes(None)


def test_samplers_of_a_plain_pipeline_leave_groups_and_weights_behind(data, member):
    X, y = data
    steps = [("copies", Augmenter()), ("segment", member)]
    ensemble = Ensemble(SamplingPipeline(steps), n_members=2, random_state=0)
    assert ensemble.fit(X, y, groups=np.arange(len(X)) // 2).predict(X).shape == y.shape
    with pytest.raises(ValueError, match=r"use skmars\.make_pipeline"):
        ensemble.fit(X, y, sample_weight=np.ones(len(X)))


def test_searches_as_members_take_weights(data, member):
    X, y = data
    space = {"learning_rate": CategoricalDistribution([1e-3])}
    search = SegmenterSearchCV(member, space, n_trials=1, cv=2, random_state=0)

    def votes(weight):
        ensemble = Ensemble(search, n_members=2, members="seeds", random_state=0)
        return ensemble.fit(X, y, sample_weight=weight).predict_proba(X)

    assert not np.allclose(votes(None), votes(np.linspace(0.1, 1, len(X))))


def test_grid_searches_as_members_take_weights(data, member):
    X, y = data
    grid = GridSearchCV(Pipeline([("segment", member)]), {"segment__depth": [2]}, cv=2)

    def votes(weight):
        ensemble = Ensemble(grid, n_members=2, members="seeds", random_state=0)
        groups = np.arange(len(X)) // 2
        return ensemble.fit(X, y, sample_weight=weight, groups=groups).predict_proba(X)

    assert not np.allclose(votes(None), votes(np.linspace(0.1, 1, len(X))))


def test_weights_that_members_do_not_take_are_refused(data):
    class Careless(MarsSegmenter):
        def fit(self, X, y):
            return super().fit(X, y)

    with pytest.raises(ValueError, match="Careless takes no sample_weight"):
        Ensemble(Careless(), n_members=2).fit(*data, sample_weight=np.ones(len(data[0])))


def test_members_without_weight(data, member):
    groups = np.arange(len(data[0])) % 2
    ensemble = Ensemble(clone(member).set_params(validation_fraction=None), n_members=2)
    with pytest.raises(ValueError, match="of one member"):
        ensemble.fit(*data, sample_weight=groups.astype(float), groups=groups)


def test_ignored_label_is_never_predicted_nor_scored(data, member):
    X, y = data
    ensemble = Ensemble(clone(member).set_params(ignore_label=0), n_members=2, random_state=0)
    ensemble.fit(X, y)
    assert ensemble.classes_.tolist() == [1, 2, 3]
    expected = mean_iou_score(y, ensemble.predict(X), labels=[1, 2, 3], ignore_label=0)
    assert ensemble.score(X, y) == expected


def test_saved_in_one_file(data, fitted, tmp_path):
    X = data[0]
    fitted.save(tmp_path / "e.skmars")
    loaded = Ensemble.load(tmp_path / "e.skmars")
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert len(loaded.estimators_) == loaded.n_members == 3
    assert loaded.get_params()["estimator__depth"] == 2
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))


def test_file_of_a_single_segmenter_is_no_ensemble(fitted, tmp_path):
    fitted.estimators_[0].save(tmp_path / "m")
    with pytest.raises(ValueError, match=r"is no ensemble: read it with MarsSegmenter\.load"):
        Ensemble.load(tmp_path / "m")
    fitted.save(tmp_path / "e")
    with pytest.raises(ValueError, match=r"is an ensemble: read it with Ensemble\.load"):
        MarsSegmenter.load(tmp_path / "e")


def test_not_fitted(data):
    ensemble = Ensemble()
    for method in (ensemble.predict, ensemble.predict_proba, ensemble.predict_uncertainty):
        with pytest.raises(NotFittedError):
            method(data[0])
    with pytest.raises(NotFittedError):
        check_is_fitted(clone(ensemble))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_members": 1}, "n_members"),
        ({"members": "luck"}, "members"),
        ({"estimator": Augmenter()}, "estimator"),
        ({"n_members": 30}, "30"),
        ({"random_state": -1}, "random_state"),
    ],
)
def test_bad_parameters(data, member, params, message):
    with pytest.raises(ValueError, match=message):
        Ensemble(**{"estimator": member, **params}).fit(*data)


def test_bad_kind_of_uncertainty(data, fitted):
    with pytest.raises(ValueError, match="kind"):
        fitted.predict_uncertainty(data[0], kind="doubt")


def test_fold_without_a_label_validates_nothing(data, member):
    X, y = data
    y = y.copy()
    groups = np.repeat([0, 1, 2], 8)
    y[groups == 2] = 9
    member = clone(member).set_params(ignore_label=9, early_stopping=True)
    ensemble = Ensemble(member, n_members=3, random_state=0).fit(X, y, groups=groups)
    for one in ensemble.estimators_:
        assert np.isfinite([row["valid_mean_iou"] for row in one.history_]).all()


@pytest.mark.parametrize("estimator", [Ensemble, SegmenterSearchCV])
def test_ignored_label_is_not_balanced(estimator, data, member, monkeypatch):
    seen = []

    class Watched(SegmentationKFold):
        def split(self, X, y, groups=None):
            seen.append(self.ignore_label)
            return super().split(X, y, groups)

    for module in (ensemble_module, search_module):
        monkeypatch.setattr(module, "SegmentationKFold", Watched)
    member = clone(member).set_params(ignore_label=0, max_epochs=1)
    if estimator is Ensemble:
        Ensemble(member, n_members=2).fit(*data)
    else:
        SegmenterSearchCV(member, n_trials=1, cv=2, refit=False).fit(*data)
    assert seen == [0]


def test_saved_ensemble_can_be_trained_as_before(data, member, tmp_path):
    X = data[0]
    ensemble = Ensemble(member, n_members=2, n_jobs=1, random_state=3).fit(*data)
    ensemble.save(tmp_path / "e")
    loaded = Ensemble.load(tmp_path / "e")
    assert (loaded.n_jobs, loaded.random_state) == (1, 3)
    np.testing.assert_array_equal(loaded.fit(*data).predict(X), ensemble.predict(X))
    ensemble.set_params(random_state=np.random.RandomState(0))
    ensemble.estimators_[1].set_params(callbacks=[object()])
    with pytest.warns(UserWarning, match="cannot be saved") as caught:
        ensemble.save(tmp_path / "e")
    assert [str(one.message).split()[0] for one in caught] == ["callbacks", "random_state"]
    assert {one.filename for one in caught} == {__file__}
    assert Ensemble.load(tmp_path / "e").random_state is None


# Mosaics


@pytest.fixture
def windowed(fitted):
    for one in fitted.estimators_:
        one.set_params(window=(40, 48), overlap=0.5)
    yield fitted
    for one in fitted.estimators_:
        one.set_params(window=None, overlap=0.25, tta=True)


@pytest.fixture(scope="module")
def mosaic():
    return np.random.default_rng(1).integers(1, 255, (150, 210), dtype=np.uint8)


def agree(labels, others):
    """Whether they are the same, but for pixels that rounding decides."""
    return np.mean(labels == others) > 0.999


@pytest.mark.parametrize("tta", [False, True])
def test_labels_of_a_mosaic_are_those_of_predict(tta, windowed, mosaic):
    for one in windowed.estimators_:
        one.set_params(tta=tta)
    target = np.full(mosaic.shape, 99, np.uint8)
    assert windowed.predict_large(mosaic, target) is target
    assert agree(target, windowed.predict(mosaic[None])[0])


def test_classes_that_members_do_not_share_in_a_mosaic(data, windowed, mosaic):
    X, y = data
    few = clone(windowed.estimator).set_params(window=(40, 48), overlap=0.5)
    few.fit(X, np.where(y == 0, 9, y))
    ensemble = Ensemble(windowed.estimator)
    ensemble.estimators_, ensemble.n_channels_in_ = [windowed.estimators_[0], few], 1
    ensemble._set_classes()
    assert ensemble.classes_.tolist() == [0, 1, 2, 3, 9]
    target = np.full(mosaic.shape, 99, np.uint8)
    ensemble.predict_large(mosaic, target)
    assert agree(target, ensemble.predict(mosaic[None])[0])


def test_mosaic_of_members_with_different_nets(data, windowed, mosaic):
    deep = clone(windowed.estimator).set_params(depth=4, window=(40, 48), overlap=0.5).fit(*data)
    ensemble = Ensemble(windowed.estimator)
    ensemble.estimators_, ensemble.n_channels_in_ = [windowed.estimators_[0], deep], 1
    ensemble._set_classes()
    target = np.full(mosaic.shape, 99, np.uint8)
    ensemble.predict_large(mosaic, target)
    # Windows of all members begin where those of the deepest do.
    expected = np.zeros((4, *mosaic.shape))
    for row, column in itertools.product(cover(150, 40, 0.5, 16), cover(210, 48, 0.5, 16)):
        part = slice(row.start, row.stop), slice(column.start, column.stop)
        weights = np.outer(row.weights, column.weights)
        expected[:, *part] += weights * ensemble.predict_proba(mosaic[part][None])[0]
    assert agree(target, expected.argmax(axis=0))


def test_mosaic_without_data_in_part(windowed, mosaic, tmp_path):
    image, filled = mosaic.astype(np.float32), mosaic.astype(np.float32)
    image[:, :20] = np.nan
    filled[:, :20] = np.mean([one.mean_ for one in windowed.estimators_])
    target = np.full(mosaic.shape, 99, np.uint8)
    windowed.predict_large(
        image, target, nodata=np.nan, nodata_label=255, checkpoint=tmp_path / "checkpoint"
    )
    assert (target[:, :20] == 255).all()
    assert agree(target[:, 20:], windowed.predict(filled[None])[0][:, 20:])
    assert list(tmp_path.iterdir()) == []


class Stops:
    """A target that is interrupted after the first strip."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.n_written = array, array.shape, array.dtype, 0

    def __getitem__(self, region):
        return self.array[region]

    def __setitem__(self, region, labels):
        self.n_written += 1
        # The first is the test whether it can be written to.
        if self.n_written == 3:
            raise KeyboardInterrupt
        self.array[region] = labels


def test_resumed_mosaic(windowed, mosaic, tmp_path):
    target, undisturbed = np.full((2, *mosaic.shape), 99, np.uint8)
    windowed.predict_large(mosaic, undisturbed)
    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        windowed.predict_large(mosaic, Stops(target), checkpoint=path)
    other = Ensemble(windowed.estimator)
    other.estimators_, other.n_channels_in_ = windowed.estimators_[::-1], 1
    other._set_classes()
    with pytest.raises(ValueError, match="another run, with another ensemble;"):
        other.predict_large(mosaic, target, checkpoint=path)
    windowed.predict_large(mosaic, target, checkpoint=path)
    np.testing.assert_array_equal(target, undisturbed)


def test_members_with_different_windows_label_no_mosaic(windowed, mosaic):
    target = np.full(mosaic.shape, 99, np.uint8)
    windowed.estimators_[0].set_params(window=(48, 48))
    with pytest.raises(ValueError, match=r"one window and overlap.*\(40, 48\)"):
        windowed.predict_large(mosaic, target)
    assert (target == 99).all()


def test_members_that_label_no_mosaics(data, fitted, mosaic):
    ensemble = Ensemble(FrozenEstimator(fitted.estimators_[0]), n_members=2).fit(*data)
    with pytest.raises(ValueError, match="which FrozenEstimator has not: use predict"):
        ensemble.predict_large(mosaic, np.zeros(mosaic.shape, np.uint8))
    with pytest.raises(NotFittedError):
        Ensemble().predict_large(mosaic, np.zeros(mosaic.shape, np.uint8))
