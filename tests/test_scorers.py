import pickle
import subprocess
import sys

import numpy as np
import pytest
import sklearn
from imblearn.pipeline import make_pipeline as make_sampling_pipeline
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import UndefinedMetricWarning, UnsetMetadataPassedError
from sklearn.metrics import accuracy_score, jaccard_score
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skmars import MarsSegmenter
from skmars.metrics import (
    SegmentationScorer,
    boundary_f1_score,
    boundary_f1_scorer,
    class_iou_scorer,
    iou_per_class,
    make_scorers,
    mean_iou_score,
    mean_iou_scorer,
    pixel_accuracy_score,
    pixel_accuracy_scorer,
    weighted_iou_score,
    weighted_iou_scorer,
)

SINGLE = {
    "mean_iou": mean_iou_scorer,
    "weighted_iou": weighted_iou_scorer,
    "pixel_accuracy": pixel_accuracy_scorer,
    "boundary_f1": boundary_f1_scorer,
}


class Levels(BaseEstimator):
    """Labels pixels by their grey level: cheap, wrong here and there, and counts its calls."""

    n_predictions = 0

    def __init__(self, shift=0.0, ignore_label=None):
        self.shift = shift
        self.ignore_label = ignore_label

    def fit(self, X, y, sample_weight=None):
        labels = np.unique(y)
        self.classes_ = labels[labels != self.ignore_label]
        return self

    def predict(self, X):
        type(self).n_predictions += 1
        place = np.floor((np.asarray(X) + self.shift) * len(self.classes_))
        return self.classes_[np.clip(place, 0, len(self.classes_) - 1).astype(int)]


class Untold(BaseEstimator):
    """Neither has classes nor ignores a label."""

    def fit(self, X, y):
        self.fitted_ = True
        return self

    def predict(self, X):
        return (X > 0.6).astype(int)


@pytest.fixture
def scene():
    """Images, and masks of four labels of which 7 is in one image only."""
    rng = np.random.default_rng(0)
    X = rng.random((8, 6, 9))
    y = np.array([0, 1, 3])[np.clip(X * 3 + rng.normal(0, 0.3, X.shape), 0, 2).astype(int)]
    y[0, :2] = 7
    return X, y


def reference(y, pred, labels, ignore_label, weight=None):
    """All scores by scikit-learn, over labels that are all present."""
    keep = y != ignore_label
    flat = {"sample_weight": None if weight is None else weight[keep]}
    iou = jaccard_score(y[keep], pred[keep], labels=labels, average=None, **flat)
    return {
        "mean_iou": jaccard_score(y[keep], pred[keep], labels=labels, average="macro", **flat),
        "weighted_iou": jaccard_score(
            y[keep], pred[keep], labels=labels, average="weighted", **flat
        ),
        "pixel_accuracy": accuracy_score(y[keep], pred[keep], **flat),
        **{f"iou_{label}": value for label, value in zip(labels, iou, strict=True)},
    }


# Functions


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore_label", [None, 0, 2, 9])
def test_functions_equal_sklearn(seed, weighted, ignore_label):
    rng = np.random.default_rng(seed)
    y, pred = rng.integers(0, 4, (2, 5, 6, 7))
    pred[pred == 1] = 5  # one class is never predicted, and one only predicted
    weight = rng.random(y.shape) if weighted else None
    keep = y != ignore_label
    flat = {"sample_weight": weight[keep] if weighted else None}
    kwargs = {"ignore_label": ignore_label, "sample_weight": weight}
    assert pixel_accuracy_score(y, pred, **kwargs) == pytest.approx(
        accuracy_score(y[keep], pred[keep], **flat)
    )
    labels = [label for label in (0, 1, 2, 3, 5) if label != ignore_label]
    expected = jaccard_score(y[keep], pred[keep], labels=labels, average="weighted", **flat)
    assert weighted_iou_score(y, pred, **kwargs) == pytest.approx(expected)
    assert weighted_iou_score(y, pred, labels=labels, **kwargs) == pytest.approx(expected)
    subset = [3, 1]
    expected = jaccard_score(y[keep], pred[keep], labels=subset, average="weighted", **flat)
    assert weighted_iou_score(y, pred, labels=subset, **kwargs) == pytest.approx(expected)


@pytest.mark.parametrize("score", [pixel_accuracy_score, weighted_iou_score])
def test_functions_of_lists_and_of_nothing(score):
    y = [np.array([[0, 1]]), np.array([[1], [1], [0]])]
    assert score(y, y) == 1.0
    assert score(y, [1 - mask for mask in y]) == 0.0
    with pytest.warns(UndefinedMetricWarning, match="undefined"):
        assert np.isnan(score(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), ignore_label=0))
    with pytest.raises(ValueError, match="y_pred"):
        score(y, y[::-1])


# Scorers


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore_label", [None, 0, 3])
def test_scorers_equal_sklearn(scene, ignore_label, weighted):
    X, y = scene
    estimator = Levels(ignore_label=ignore_label).fit(X, y)
    labels = estimator.classes_.tolist()
    weight = np.random.default_rng(1).random(y.shape) if weighted else None
    kwargs = {"sample_weight": weight} if weighted else {}
    expected = reference(y, estimator.predict(X), labels, ignore_label, weight)
    scores = {name: SINGLE[name](estimator, X, y, **kwargs) for name in SINGLE if name in expected}
    scores |= {f"iou_{c}": class_iou_scorer(c)(estimator, X, y, **kwargs) for c in labels}
    assert scores == pytest.approx(expected)
    at_once = SegmentationScorer([*expected, "boundary_f1"])(estimator, X, y, **kwargs)
    boundary = boundary_f1_score(y, estimator.predict(X), labels=labels, ignore_label=ignore_label)
    assert at_once == pytest.approx({**expected, "boundary_f1": boundary})
    assert boundary_f1_scorer(estimator, X, y) == boundary


def pipelines(estimator):
    scale = FunctionTransformer(lambda X: X)
    return {
        "sklearn": make_pipeline(scale, estimator),
        "imblearn": make_sampling_pipeline(scale, estimator),
        "nested": make_pipeline(scale, make_pipeline(scale, estimator)),
        "search": GridSearchCV(estimator, {"shift": [0.0, 0.1]}, cv=2, scoring=mean_iou_scorer),
        "search in pipeline": make_pipeline(
            scale, GridSearchCV(estimator, {"shift": [0.0]}, cv=2, scoring=mean_iou_scorer)
        ),
        "search of pipeline": GridSearchCV(
            make_pipeline(scale, estimator),
            {"levels__shift": [0.0]},
            cv=2,
            scoring=mean_iou_scorer,
        ),
    }


@pytest.mark.parametrize("kind", pipelines(Levels()))
def test_scorers_look_into_pipelines_and_searches(scene, kind):
    X, y = scene
    y = np.where(y == 7, 0, y)
    model = pipelines(Levels(ignore_label=0))[kind].fit(X, y)
    few = y[:2].copy()
    few[few == 3] = 1  # one class is not in what is scored
    expected = mean_iou_score(few, model.predict(X[:2]), labels=[1, 3], ignore_label=0)
    assert mean_iou_scorer(model, X[:2], few) == expected
    assert expected != mean_iou_score(few, model.predict(X[:2]))


def test_a_class_absent_from_the_masks_keeps_its_place(scene):
    X, y = scene
    estimator = Levels().fit(X, y)
    estimator.classes_ = np.array([0, 1, 3, 7, 8])
    without = y[1:]
    pred = estimator.predict(X[1:])
    for absent in ("exclude", 0.0, 1.0):
        params = {"labels": estimator.classes_, "absent": absent}
        scorer = SegmentationScorer(["mean_iou", "iou_7", "iou_55"], absent=absent)
        scores = scorer(estimator, X[1:], without)
        assert scores["mean_iou"] == pytest.approx(mean_iou_score(without, pred, **params))
        # 7 is predicted but never true, so it is no absent class; 55 is.
        assert scores["iou_7"] == 0.0
        expected = np.nan if absent == "exclude" else absent
        assert scores["iou_55"] == pytest.approx(expected, nan_ok=True)


def test_without_classes_those_of_the_masks_count(scene):
    X, y = scene
    model = Untold().fit(X, y)
    pred = model.predict(X)
    assert mean_iou_scorer(model, X, y) == pytest.approx(mean_iou_score(y, pred))
    assert weighted_iou_scorer(model, X, y) == pytest.approx(weighted_iou_score(y, pred))


def test_a_label_unknown_to_the_estimator(scene):
    X, y = scene
    model = Levels().fit(X[1:], y[1:])
    for scorer in (*SINGLE.values(), class_iou_scorer(1)):
        with pytest.raises(ValueError, match=r"labels \[7\] that are not among the classes"):
            scorer(model, X, y)
    scorer = SegmentationScorer("mean_iou", labels=[0, 1, 3, 7])
    assert scorer(model, X, y) == pytest.approx(
        jaccard_score(y.ravel(), model.predict(X).ravel(), average="macro")
    )
    assert class_iou_scorer(7, labels=[7])(model, X, y) == 0.0


@pytest.mark.parametrize("ignore_label", [None, 3])
def test_an_ignored_label_of_its_own(scene, ignore_label):
    X, y = scene
    model = Levels(ignore_label=0).fit(X, y)
    pred = model.predict(X)
    metrics = ["mean_iou", "boundary_f1"]
    scorer = SegmentationScorer(metrics, ignore_label=ignore_label, absent=0.0)
    labels = [label for label in (1, 3, 7) if label != ignore_label]
    kwargs = {"labels": labels, "ignore_label": ignore_label}
    expected = mean_iou_score(y, pred, **kwargs), boundary_f1_score(y, pred, **kwargs)
    assert list(scorer(model, X, y).values()) == pytest.approx(expected)
    assert expected[0] != mean_iou_scorer(model, X, y)


def test_one_prediction_for_all_metrics(scene):
    X, y = scene
    model = Levels().fit(X, y)
    labels = model.classes_.tolist()
    Levels.n_predictions = 0
    at_once = SegmentationScorer(labels=labels)(model, X, y)
    assert Levels.n_predictions == 1
    scorers = make_scorers(labels)
    assert list(scorers) == list(at_once)
    assert at_once == {name: scorer(model, X, y) for name, scorer in scorers.items()}
    expected = iou_per_class(y, model.predict(X), labels=labels)
    assert [at_once[f"iou_{label}"] for label in labels] == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["at once", "dict"])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_searches_with_several_metrics(scene, kind, n_jobs):
    X, y = scene
    labels = [0, 1, 3, 7]
    scoring = SegmentationScorer(labels=labels) if kind == "at once" else make_scorers(labels)
    search = GridSearchCV(
        Levels(),
        {"shift": [0.0, 0.25]},
        cv=KFold(4),
        scoring=scoring,
        refit="mean_iou",
        n_jobs=n_jobs,
        error_score="raise",
    )
    # Class 7 is in one fold only: neither its column nor the means may depend on that.
    search.fit(X, y)
    for i, (train, test) in enumerate(KFold(4).split(X)):
        pred = Levels().fit(X[train], y[train]).predict(X[test])
        got = search.cv_results_[f"split{i}_test_mean_iou"][0]
        assert got == pytest.approx(mean_iou_score(y[test], pred, labels=labels))
        got = search.cv_results_[f"split{i}_test_iou_1"][0]
        assert got == pytest.approx(iou_per_class(y[test], pred, labels=[1])[0])
    assert search.best_params_ == {"shift": 0.0}
    assert search.score(X, y) == SegmentationScorer("mean_iou")(search, X, y)


def test_cross_validation(scene):
    X, y = scene
    y = np.where(y == 7, 0, y)
    cv = KFold(4)
    scores = cross_validate(
        Levels(ignore_label=0), X, y, cv=cv, scoring=SegmentationScorer(["iou_3", "mean_iou"])
    )
    alone = cross_val_score(Levels(ignore_label=0), X, y, cv=cv, scoring=class_iou_scorer(3))
    np.testing.assert_array_equal(scores["test_iou_3"], alone)
    assert set(scores) == {"fit_time", "score_time", "test_iou_3", "test_mean_iou"}


def test_scorers_are_copied_and_shown(scene):
    X, y = scene
    model = Levels().fit(X, y)
    scorer = SegmentationScorer(["mean_iou", "iou_-1"], labels=[0, 1], absent=0.0, tolerance=1)
    for copy in (clone(scorer), pickle.loads(pickle.dumps(scorer))):
        assert copy(model, X, y) == scorer(model, X, y)
        assert repr(copy) == repr(scorer)
    assert repr(mean_iou_scorer) == "SegmentationScorer(metrics='mean_iou')"
    assert "tolerance=1" in repr(scorer)
    assert pickle.loads(pickle.dumps(make_scorers([0, 1])))["iou_1"].metrics == "iou_1"


def test_tolerance(scene):
    X, y = scene
    model = Levels().fit(X, y)
    scores = {t: SegmentationScorer("boundary_f1", tolerance=t)(model, X, y) for t in (0, 1)}
    pred = model.predict(X)
    assert scores == {t: boundary_f1_score(y, pred, tolerance=t) for t in (0, 1)}
    assert scores[0] < scores[1]


@pytest.mark.parametrize("kind", ["single", "at once", "dict"])
def test_weights_are_routed(scene, kind):
    X, y = scene
    y = np.where(y == 7, 0, y)
    weight = np.random.default_rng(0).random(len(X))
    cv = KFold(4)
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = Levels().set_fit_request(sample_weight=False)
        if kind == "single":
            scoring = SegmentationScorer("mean_iou")
            with pytest.raises(UnsetMetadataPassedError):
                cross_validate(
                    estimator, X, y, cv=cv, scoring=scoring, params={"sample_weight": weight}
                )
            scoring = clone(scoring.set_score_request(sample_weight=True))
        elif kind == "at once":
            scoring = SegmentationScorer(["mean_iou", "iou_1"])
            scoring.set_score_request(sample_weight=True)
        else:
            scoring = {
                name: scorer.set_score_request(sample_weight=name != "boundary_f1")
                for name, scorer in make_scorers([0, 1, 3]).items()
            }
        scores = cross_validate(
            estimator,
            X,
            y,
            cv=cv,
            scoring=scoring,
            params={"sample_weight": weight},
            error_score="raise",
        )
    got = scores["test_score" if kind == "single" else "test_mean_iou"]
    pred = Levels().fit(X, y).predict(X)
    expected = [
        mean_iou_score(y[test], pred[test], sample_weight=weight[test]) for _, test in cv.split(X)
    ]
    np.testing.assert_allclose(got, expected)


@pytest.mark.filterwarnings("ignore:.*does not support sample_weight:UserWarning")
@pytest.mark.parametrize("kind", ["single", "at once", "dict"])
def test_searches_with_weights(scene, kind):
    X, y = scene
    y = np.where(y == 7, 0, y)
    labels = [0, 1, 3]
    scoring = {
        "single": mean_iou_scorer,
        "at once": SegmentationScorer(labels=labels),
        "dict": make_scorers(labels),
    }[kind]
    refit = kind == "single" or "mean_iou"
    search = GridSearchCV(Levels(), {"shift": [0.0, 0.25]}, cv=4, scoring=scoring, refit=refit)
    search.fit(X, y, sample_weight=np.arange(1, 1 + len(X)))
    assert search.best_params_ == {"shift": 0.0}


def test_weights_without_routing(scene):
    X, y = scene
    model = Levels().fit(X, y)
    weight = np.arange(len(X))
    assert mean_iou_scorer(model, X, y, sample_weight=weight) == pytest.approx(
        mean_iou_score(y, model.predict(X), sample_weight=weight)
    )
    with pytest.raises(ValueError, match="takes no sample_weight"):
        boundary_f1_scorer(model, X, y, sample_weight=weight)
    with pytest.raises(RuntimeError, match="enable_metadata_routing"):
        SegmentationScorer().set_score_request(sample_weight=True)


def test_equal_to_the_score_of_the_segmenter(terrain):
    X, y = terrain
    segmenter = MarsSegmenter(
        depth=2,
        base_channels=4,
        max_epochs=1,
        precision="float32",
        ignore_label=0,
        random_state=0,
    ).fit(X, y)
    few = [i for i in range(len(y)) if 4 not in y[i]]
    for images, masks in ((X, y), (X[few], y[few]), (list(X[:3]), list(y[:3]))):
        assert mean_iou_scorer(segmenter, images, masks) == segmenter.score(images, masks)
    weight = np.arange(len(X))
    assert mean_iou_scorer(segmenter, X, y, weight) == segmenter.score(X, y, weight)
    assert mean_iou_scorer(make_pipeline(segmenter), X, y) == segmenter.score(X, y)


# Bad input


@pytest.mark.parametrize(
    ("params", "error", "match"),
    [
        ({"metrics": "iou"}, ValueError, "'mean_iou', .* got 'iou'"),
        ({"metrics": "iou_"}, ValueError, "iou_<label>"),
        ({"metrics": "iou_rock"}, ValueError, "iou_<label>"),
        ({"metrics": "mean_iou_1"}, ValueError, "iou_<label>"),
        ({"metrics": ["mean_iou", "accuracy"]}, ValueError, "got 'accuracy'"),
        ({"metrics": []}, ValueError, "at least one metric"),
        ({"metrics": [mean_iou_score]}, TypeError, "must be names"),
        ({"labels": [0.5]}, ValueError, "integers"),
        ({"metrics": "mean_iou", "labels": [1, 1]}, ValueError, "repeat"),
        ({"labels": [0, 1], "ignore_label": 0}, ValueError, "ignore_label=0"),
        ({"ignore_label": "none"}, ValueError, "integer, None or 'auto'"),
        ({"ignore_label": 0.5}, ValueError, "integer, None or 'auto'"),
        ({"metrics": "mean_iou", "absent": "zero"}, ValueError, "absent must be"),
        ({"metrics": "boundary_f1", "tolerance": -1}, ValueError, "tolerance must be"),
    ],
)
def test_bad_metrics_are_found_before_anything_is_fitted(params, error, match):
    with pytest.raises(error, match=match):
        SegmentationScorer(**params)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"metrics": "mean_iou", "labels": [0, 0]}, "repeat"),
        ({"metrics": "mean_iou", "labels": [0, 1], "ignore_label": 0}, "ignore_label=0"),
        ({"metrics": "mean_iou", "ignore_label": 0.5}, "ignore_label must be"),
        ({"metrics": "mean_iou", "absent": 0.5}, "absent must be"),
        ({"metrics": "boundary_f1", "tolerance": -1}, "tolerance must be"),
        ({"metrics": "iou_0", "ignore_label": 0}, "label 0 is ignored"),
    ],
)
def test_bad_parameters(scene, params, match):
    X, y = scene
    with pytest.raises(ValueError, match=match):
        SegmentationScorer(**params)(Levels().fit(X, y), X, y)


def test_metrics_do_not_import_torch():
    code = "import sys; from skmars.metrics import make_scorers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
