import numpy as np
import pytest
from imblearn.pipeline import Pipeline as SamplingPipeline
from joblib import Memory
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from skmars import Augmenter, MarsSegmenter, OutlierRemover, make_pipeline
from skmars.datasets import make_terrain
from skmars.pipeline import SegmentationPipeline


class Watcher(BaseEstimator):
    """A segmenter that learns nothing, and remembers what it was given."""

    seen: list = []

    def __init__(self, shift=0):
        self.shift = shift

    def fit(self, X, y, *, sample_weight=None, groups=None):
        self.given_ = {"X": X, "y": y, "sample_weight": sample_weight, "groups": groups}
        Watcher.seen.append(self.given_)
        return self

    def predict(self, X):
        Watcher.seen.append({"predicted": X})
        return np.full(X.shape[:3], self.shift)

    def score(self, X, y, sample_weight=None):
        self.scored_ = {"sample_weight": sample_weight}
        return float((self.predict(X) == y).mean())


@pytest.fixture(autouse=True)
def _forget():
    Watcher.seen.clear()


@pytest.fixture
def planted():
    """Thirty small scenes, six of them with a pasted sprite and one mask."""
    X, y, kinds = make_terrain(
        30, shape=(32, 48), outliers={"sprite": 6}, return_outliers=True, random_state=0
    )
    # Big rocks are in so few images that some folds would have none to learn from.
    return X, np.minimum(y, 3), kinds


@pytest.fixture
def tiny(fast):
    return MarsSegmenter(**{**fast, "max_epochs": 1})


def three_steps(segment, **kwargs):
    return SamplingPipeline(
        [
            ("outliers", OutlierRemover(method="repeated_mask")),
            ("augment", Augmenter(n_copies=1, random_state=0)),
            ("segment", segment),
        ],
        **kwargs,
    )


def assert_finite_scores(search):
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def half(X):
    return X // 2


def within_pipeline(segment):
    return Pipeline([("half", FunctionTransformer(half)), ("segment", segment)])


class FirstHalf(BaseEstimator):
    """A sampler that does not tell which images it keeps."""

    def fit_resample(self, X, y):
        return X[: len(X) // 2], y[: len(X) // 2]


def test_samplers_change_the_training_data_only(planted):
    X, y, kinds = planted
    pipeline = three_steps(Watcher()).fit(X, y)
    clean = X[kinds == ""]
    given = Watcher.seen[0]
    assert len(given["X"]) == len(given["y"]) == 2 * len(clean)
    np.testing.assert_array_equal(given["X"][: len(clean)], clean)
    assert pipeline.predict(X).shape == y.shape
    assert Watcher.seen[-1]["predicted"] is X


def test_pipeline_gives_what_its_steps_give_one_by_one(planted, tiny):
    X, y, _ = planted
    pipeline = three_steps(tiny).fit(X, y)
    X_clean, y_clean = OutlierRemover(method="repeated_mask").fit_resample(X, y)
    X_more, y_more = Augmenter(n_copies=1, random_state=0).fit_resample(X_clean, y_clean)
    by_hand = clone(tiny).fit(X_more, y_more)
    np.testing.assert_array_equal(pipeline.predict_proba(X), by_hand.predict_proba(X))
    assert pipeline.score(X, y) == by_hand.score(X, y)
    np.testing.assert_array_equal(pipeline.classes_, by_hand.classes_)


def test_outliers_are_removed_from_the_training_folds_only(planted):
    X, y, kinds = planted
    folds = list(KFold(3, shuffle=True, random_state=0).split(X))
    cross_val_score(three_steps(Watcher()), X, y, cv=folds)
    fits = [seen for seen in Watcher.seen if "X" in seen]
    scored = [seen["predicted"] for seen in Watcher.seen if "predicted" in seen]
    for (train, test), fit, images in zip(folds, fits, scored, strict=True):
        assert len(fit["X"]) == 2 * np.count_nonzero(kinds[train] == "")
        np.testing.assert_array_equal(images, X[test])


@pytest.mark.slow
def test_cross_validation_by_two_processes(planted, tiny):
    X, y, _ = planted
    scores = [
        cross_validate(three_steps(tiny), X, y, cv=2, n_jobs=n_jobs)["test_score"]
        for n_jobs in (None, 2)
    ]
    np.testing.assert_allclose(*scores, atol=0.01)
    assert (scores[0] > 0).all()


def test_grid_search_reaches_nested_parameters(planted, tiny):
    X, y, _ = planted
    tiny.set_params(augmentation=Augmenter())
    search = GridSearchCV(
        three_steps(tiny),
        {
            "segment__augmentation__brightness": [0.0, 0.5],
            "outliers": [OutlierRemover(method="repeated_mask"), "passthrough"],
        },
        cv=2,
        error_score="raise",
    ).fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    assert_finite_scores(search)
    assert search.predict(X).shape == y.shape
    assert search.best_score_ == max(search.cv_results_["mean_test_score"])
    best = search.best_params_["segment__augmentation__brightness"]
    assert search.best_estimator_["segment"].augmentation.brightness == best


def test_randomized_search(planted, tiny):
    X, y, _ = planted
    search = RandomizedSearchCV(
        three_steps(tiny),
        {"augment__n_copies": [0, 1], "segment__learning_rate": [1e-3, 1e-2]},
        n_iter=2,
        cv=2,
        random_state=0,
        error_score="raise",
    ).fit(X, y)
    assert len(search.cv_results_["params"]) == 2
    assert_finite_scores(search)


def test_successive_halving_over_epochs(planted, tiny):
    X, y, _ = planted
    search = HalvingGridSearchCV(
        Pipeline([("segment", tiny)]),
        {"segment__learning_rate": [1e-4, 1e-2]},
        resource="segment__max_epochs",
        max_resources=2,
        min_resources=1,
        factor=2,
        cv=KFold(2, shuffle=True, random_state=0),
        error_score="raise",
    ).fit(X, y)
    assert search.best_estimator_["segment"].n_iter_ == 2
    assert_finite_scores(search)


def test_successive_halving_over_images(planted, tiny):
    X, y, _ = planted
    search = HalvingGridSearchCV(
        Pipeline([("segment", tiny)]),
        {"segment__learning_rate": [1e-4, 1e-2]},
        min_resources=12,
        factor=2,
        cv=KFold(2, shuffle=True, random_state=0),
        error_score="raise",
    ).fit(X, y)
    assert search.n_resources_ == [12, 24]
    assert_finite_scores(search)


def test_memory_keeps_what_the_first_steps_did(planted, tmp_path):
    X, y, _ = planted
    pipeline = three_steps(Watcher(), memory=Memory(tmp_path, verbose=0)).fit(X, y)
    fitted = pipeline["augment"]
    again = clone(pipeline).fit(X, y)
    np.testing.assert_array_equal(*(seen["X"] for seen in Watcher.seen))
    np.testing.assert_array_equal(again["augment"].sample_indices_, fitted.sample_indices_)
    assert list(tmp_path.rglob("output.pkl"))


def test_transformer_of_the_users_own_in_front(terrain, tiny):
    X, y = terrain[0], np.minimum(terrain[1], 3)
    pipeline = Pipeline([("half", FunctionTransformer(half)), ("segment", tiny)]).fit(X, y)
    by_hand = clone(tiny).fit(half(X), y)
    np.testing.assert_array_equal(pipeline.predict(X), by_hand.predict(half(X)))
    assert pipeline.score(X, y) == by_hand.score(half(X), y)
    scores = cross_val_score(make_pipeline(outliers=None, segment=pipeline), X, y, cv=2)
    assert np.isfinite(scores).all()


def test_weights_and_groups_by_metadata_routing_without_samplers(terrain):
    X, y = terrain
    weight, groups = np.arange(1.0, len(X) + 1), np.arange(len(X)) // 4
    with config_context(enable_metadata_routing=True):
        segment = Watcher().set_fit_request(sample_weight=True, groups=True)
        segment.set_score_request(sample_weight=True)
        pipeline = Pipeline([("half", FunctionTransformer(half)), ("segment", segment)])
        results = cross_validate(
            pipeline,
            X,
            y,
            cv=GroupKFold(3),
            params={"sample_weight": weight, "groups": groups},
            return_estimator=True,
            return_indices=True,
        )
    for fitted, train, test in zip(
        results["estimator"], results["indices"]["train"], results["indices"]["test"], strict=True
    ):
        given = fitted["segment"].given_
        np.testing.assert_array_equal(given["X"], half(X)[train])
        np.testing.assert_array_equal(given["sample_weight"], weight[train])
        np.testing.assert_array_equal(given["groups"], groups[train])
        np.testing.assert_array_equal(fitted["segment"].scored_["sample_weight"], weight[test])


def test_segmenter_takes_routed_weights_and_groups(terrain, tiny):
    X, y = terrain
    weight, groups = np.linspace(0, 1, len(X)), np.arange(len(X)) // 2
    with config_context(enable_metadata_routing=True):
        tiny.set_fit_request(sample_weight=True, groups=True)
        routed = Pipeline([("segment", tiny)]).fit(X, y, sample_weight=weight, groups=groups)
    direct = clone(tiny).fit(X, y, sample_weight=weight, groups=groups)
    np.testing.assert_array_equal(routed.predict_proba(X[:2]), direct.predict_proba(X[:2]))


@pytest.mark.parametrize("routing", [False, True])
def test_weights_and_groups_follow_their_images_through_samplers(planted, routing):
    X, y, kinds = planted
    weight, groups = np.arange(1.0, len(X) + 1), np.arange(len(X)) // 3
    segment = Watcher()
    with config_context(enable_metadata_routing=routing):
        if routing:
            segment.set_fit_request(sample_weight=True, groups=True)
        pipeline = make_pipeline(
            outliers=OutlierRemover(method="repeated_mask"),
            augment=Augmenter(n_copies=2),
            segment=segment,
        )
        prefix = "" if routing else "segment__"
        pipeline.fit(X, y, **{f"{prefix}sample_weight": weight, f"{prefix}groups": groups})
    rows = np.tile(np.flatnonzero(kinds == ""), 3)
    np.testing.assert_array_equal(Watcher.seen[0]["sample_weight"], weight[rows])
    np.testing.assert_array_equal(Watcher.seen[0]["groups"], groups[rows])


@pytest.mark.parametrize("searched", [False, True])
def test_weights_follow_their_images_into_a_further_pipeline(planted, searched):
    X, y, kinds = planted
    weight = np.arange(1.0, len(X) + 1)
    segment = within_pipeline(Watcher())
    name = "segment__segment__sample_weight"
    if searched:
        segment = GridSearchCV(segment, {"segment__shift": [0]}, cv=2, error_score="raise")
    pipeline = make_pipeline(outliers=OutlierRemover(method="repeated_mask"), segment=segment)
    pipeline.fit(X, y, **{name: weight})
    # A search trains once more, on all images, at its end.
    given = Watcher.seen[-1]
    np.testing.assert_array_equal(given["X"], half(X[kinds == ""]))
    np.testing.assert_array_equal(given["sample_weight"], weight[kinds == ""])
    with pytest.raises(ValueError, match=f"20 {name} for 30 images"):
        pipeline.fit(X, y, **{name: weight[:20]})


def test_weights_of_a_further_pipeline_need_to_know_their_images(planted):
    X, y, _ = planted
    pipeline = make_pipeline(outliers=FirstHalf(), segment=within_pipeline(Watcher()))
    with pytest.raises(ValueError, match="'outliers', which has no sample_indices_"):
        pipeline.fit(X, y, segment__segment__sample_weight=np.ones(len(X)))


def test_copies_and_their_originals_are_a_group(planted):
    X, y, _ = planted
    make_pipeline(outliers=None, augment=Augmenter(n_copies=2), segment=Watcher()).fit(X, y)
    np.testing.assert_array_equal(Watcher.seen[0]["groups"], np.tile(np.arange(len(X)), 3))
    make_pipeline(outliers=None, augment=Augmenter(n_copies=0), segment=Watcher()).fit(X, y)
    assert Watcher.seen[1]["groups"] is None


def test_copies_and_their_originals_are_a_group_in_a_further_pipeline(planted):
    X, y, _ = planted
    steps = {"outliers": None, "augment": Augmenter(n_copies=2)}
    pipeline = make_pipeline(**steps, segment=within_pipeline(Watcher())).fit(X, y)
    np.testing.assert_array_equal(Watcher.seen[-1]["groups"], np.tile(np.arange(len(X)), 3))
    groups = np.arange(len(X)) // 3
    pipeline.fit(X, y, segment__segment__groups=groups)
    np.testing.assert_array_equal(Watcher.seen[-1]["groups"], np.tile(groups, 3))


def test_copies_and_their_originals_are_a_group_with_metadata_routing(planted):
    X, y, _ = planted
    steps = {"outliers": None, "augment": Augmenter(n_copies=2)}
    with config_context(enable_metadata_routing=True):
        unset = within_pipeline(Watcher())
        asked = within_pipeline(Watcher().set_fit_request(groups=True))
        refused = within_pipeline(Watcher().set_fit_request(groups=False))
        for segment in (Watcher(), asked, refused):
            make_pipeline(**steps, segment=segment).fit(X, y)
        with pytest.raises(UnsetMetadataPassedError, match=r"\[groups\] are passed"):
            make_pipeline(**steps, segment=unset).fit(X, y)
    *with_groups, without = Watcher.seen
    for given in with_groups:
        np.testing.assert_array_equal(given["groups"], np.tile(np.arange(len(X)), 3))
    assert without["groups"] is None


def test_masked_weights_are_refused_behind_a_sampler(planted, tiny):
    X, y, kinds = planted
    weight = np.ma.masked_array(np.ones(len(X)), np.arange(len(X)) == np.argmax(kinds == ""))
    pipeline = make_pipeline(outliers=OutlierRemover(method="repeated_mask"), segment=tiny)
    with pytest.raises(TypeError, match="sample_weight has masked pixels"):
        pipeline.fit(X, y, segment__sample_weight=weight)


def test_weights_that_a_sampler_has_outrun_are_refused(planted, tiny):
    X, y, _ = planted
    with pytest.raises(ValueError, match="sample_weight must have shape"):
        three_steps(tiny).fit(X, y, segment__sample_weight=np.ones(len(X)))


def test_steps_that_change_nothing_pass_the_arrays_on(terrain):
    X, y = terrain
    steps = {"outliers": OutlierRemover(method="repeated_mask"), "augment": Augmenter(n_copies=0)}
    make_pipeline(**steps, segment=Watcher()).fit(X, y)
    assert Watcher.seen[0]["X"] is X
    assert Watcher.seen[0]["y"] is y


def test_usual_pipeline():
    pipeline = make_pipeline()
    assert isinstance(pipeline, SegmentationPipeline)
    assert [type(step) for step in pipeline.named_steps.values()] == [
        OutlierRemover,
        MarsSegmenter,
    ]
    assert list(make_pipeline(augment=Augmenter()).named_steps) == [
        "outliers",
        "augment",
        "segment",
    ]
    assert list(make_pipeline(outliers=None).named_steps) == ["segment"]
    copy = clone(pipeline.set_params(segment__depth=2))
    assert isinstance(copy, SegmentationPipeline)
    assert copy.get_params()["segment__depth"] == 2


def test_diagram_shows_every_step(planted):
    X, y, _ = planted
    pipeline = three_steps(MarsSegmenter(augmentation=Augmenter(brightness=0.123)))
    html = pipeline._repr_html_()
    for text in ("OutlierRemover", "Augmenter", "MarsSegmenter", "0.123"):
        assert text in html
    assert "fitted" in three_steps(Watcher()).fit(X, y)._repr_html_()


def test_scikit_learns_own_pipeline_refuses_samplers(planted):
    X, y, _ = planted
    pipeline = Pipeline([("augment", Augmenter()), ("segment", Watcher())])
    with pytest.raises(TypeError, match="transform"):
        pipeline.fit(X, y)


@pytest.mark.parametrize("name", ["groups", "sample_weight"])
def test_values_of_other_images_are_refused(planted, name):
    X, y, _ = planted
    pipeline = make_pipeline(segment=Watcher())
    with pytest.raises(ValueError, match=f"30 segment__{name} for 20 images"):
        pipeline.fit(X[:20], y[:20], **{f"segment__{name}": np.ones(30)})


def test_a_sampler_that_does_not_tell_what_it_keeps(planted):
    X, y, _ = planted
    pipeline = make_pipeline(outliers=FirstHalf(), segment=Watcher()).fit(X, y)
    assert len(pipeline[-1].given_["X"]) == 15
    with pytest.raises(ValueError, match="'outliers', which has no sample_indices_"):
        pipeline.fit(X, y, segment__groups=np.arange(30))


def test_groups_go_past_a_transformer_behind_a_sampler(planted):
    X, y, kinds = planted
    with config_context(enable_metadata_routing=True):
        pipeline = SegmentationPipeline(
            [
                ("outliers", OutlierRemover(method="repeated_mask")),
                ("half", FunctionTransformer(half)),
                ("segment", Watcher().set_fit_request(groups=True)),
            ]
        )
        pipeline.fit(X, y, groups=np.arange(30))
    given = pipeline[-1].given_
    np.testing.assert_array_equal(given["groups"], np.flatnonzero(kinds == ""))
    np.testing.assert_array_equal(given["X"], half(X[kinds == ""]))
