import contextlib
import functools
import pickle
import signal
import warnings

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import Pipeline
from skorch.callbacks import Callback

from skmars import MarsSegmenter, make_pipeline
from skmars.metrics import (
    SegmentationScorer,
    class_iou_scorer,
    mean_iou_score,
    mean_iou_scorer,
)
from skmars.model_selection import SegmentationKFold
from skmars.tuning import SegmenterSearchCV, default_space


class Guess(BaseEstimator):
    """Says 1 where an image exceeds a level; the best level is 100. Remembers its fits."""

    fits: list = []

    def __init__(self, level=0.0, trouble=None, size=1):
        self.level = level
        self.trouble = trouble
        self.size = size

    def fit(self, X, y, sample_weight=None, groups=None):
        given = {"groups": groups, "sample_weight": sample_weight}
        Guess.fits.append({"level": self.level, "n": len(X), **given})
        if self.trouble == "raise":
            raise FloatingPointError("has diverged")
        if self.trouble == "interrupt":
            raise KeyboardInterrupt
        self.classes_ = np.unique(y)
        self.n_parameters_ = self.size
        return self

    def predict(self, X):
        return np.greater(X, self.level).astype(int)

    def score(self, X, y, sample_weight=None):
        return float("nan") if self.trouble == "nan" else mean_iou_score(y, self.predict(X))


class NoTraining(Callback):
    def on_train_begin(self, net, **kwargs):
        raise AssertionError("trained")


SPACE = {"level": FloatDistribution(0.0, 200.0)}

fails_on_purpose = pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
chooses_objects = pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")


@pytest.fixture(autouse=True)
def _forget():
    Guess.fits.clear()
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def steps():
    """Images of noise, and masks of what exceeds 100."""
    X = np.random.default_rng(0).integers(0, 200, (12, 8, 9), dtype=np.uint8)
    return X, (X > 100).astype(int)


def search(space=SPACE, estimator=None, **params):
    params = {"n_trials": 8, "cv": 2, "random_state": 0, "pruner": None, **params}
    return SegmenterSearchCV(Guess() if estimator is None else estimator, space, **params)


def levels(fitted):
    return [trial.params["level"] for trial in fitted.study_.trials]


def test_finds_what_is_best_and_trains_it_on_everything(steps):
    X, y = steps
    fitted = search(n_trials=30).fit(X, y)
    assert fitted.best_params_["level"] == pytest.approx(100, abs=8)
    assert fitted.best_score_ == max(fitted.cv_results_["mean_test_score"])
    assert fitted.best_estimator_.level == fitted.best_params_["level"]
    assert Guess.fits[-1]["n"] == len(X)
    np.testing.assert_array_equal(fitted.predict(X), fitted.best_estimator_.predict(X))
    assert fitted.score(X, y) == fitted.best_estimator_.score(X, y)
    assert fitted.classes_.tolist() == [0, 1]
    assert fitted.estimator.level == 0.0


def test_scores_are_those_of_a_grid_search(steps):
    X, y = steps
    grid = [20.0, 90.0, 150.0]
    fitted = search({"level": CategoricalDistribution(grid)}, n_trials=20).fit(X, y)
    folds = SegmentationKFold(2, random_state=int(np.random.default_rng(0).integers(2**31)))
    reference = GridSearchCV(Guess(), {"level": grid}, cv=folds).fit(X, y).cv_results_
    expected = dict(zip(grid, reference["mean_test_score"], strict=True))
    table = pd.DataFrame(fitted.cv_results_)
    assert set(reference) - {"param_level"} <= set(table.columns)
    assert set(table["param_level"]) == set(grid)
    for _, row in table.iterrows():
        assert row["mean_test_score"] == pytest.approx(expected[row["param_level"]])
    assert table["rank_test_score"].min() == 1


def test_one_seed_one_search(steps):
    runs = [levels(search(random_state=seed).fit(*steps)) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_resumed_search_is_the_one_without_a_break(steps, tmp_path):
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "levels"}
    first = search(**stored, n_trials=13).fit(*steps)
    assert len(first.study_.trials) == 13
    Guess.fits.clear()
    resumed = search(**stored, n_trials=20).fit(*steps)
    assert len(Guess.fits) == 2 * 7 + 1
    assert levels(resumed) == levels(search(n_trials=20).fit(*steps))
    Guess.fits.clear()
    again = search(**stored, n_trials=20).fit(*steps)
    assert len(Guess.fits) == 1
    assert again.best_params_ == resumed.best_params_


def test_study_keeps_the_seed_that_it_was_begun_with(steps, tmp_path):
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "levels"}
    folds = KFold(2)
    search(**stored, n_trials=4, cv=folds).fit(*steps)
    resumed = search(**stored, n_trials=8, cv=folds, random_state=5).fit(*steps)
    assert levels(resumed) == levels(search(cv=folds).fit(*steps))


@pytest.mark.parametrize(
    "other", ["images", "masks", "folds", "objectives", "objective", "settings"]
)
def test_study_of_something_else_is_refused(steps, tmp_path, other):
    X, y = steps
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "levels"}
    search(**stored).fit(X, y)
    changed = {
        "images": lambda: search(**stored).fit(255 - X, y),
        "masks": lambda: search(**stored).fit(X, 1 - y),
        "folds": lambda: search(**stored, cv=3).fit(X, y),
        "objectives": lambda: search(**stored, scoring=("mean_iou", "n_parameters")).fit(X, y),
        "objective": lambda: search(**stored, scoring="pixel_accuracy").fit(X, y),
        "settings": lambda: search(**stored, estimator=Guess(size=2)).fit(X, y),
    }
    with pytest.raises(ValueError, match="give another study_name"):
        changed[other]()


def test_study_goes_on_with_other_threads_and_another_seed(terrain, fast, tmp_path):
    X, y = terrain[0], np.minimum(terrain[1], 3)
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "threads"}
    space = {"learning_rate": FloatDistribution(1e-3, 1e-2)}
    for n_trials, more in ((1, {"n_threads": 1}), (2, {"n_threads": 2, "random_state": 5})):
        segmenter = MarsSegmenter(**{**fast, "max_epochs": 1, **more})
        fitted = search(space, segmenter, n_trials=n_trials, refit=False, **stored).fit(X, y)
        assert len(fitted.study_.trials) == n_trials
    segmenter.set_params(max_epochs=2)
    with pytest.raises(ValueError, match="made with max_epochs 1, not 2"):
        search(space, segmenter, **stored).fit(X, y)


def test_study_does_not_go_on_with_less_to_search(terrain, fast, tmp_path):
    X, y = terrain[0], np.minimum(terrain[1], 3)
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "spaces"}
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 1, "fine_tune_epochs": 1})
    fixed = [["loss", "n_threads"], ["loss", "n_threads", "verbose"], ["depth"]]
    spaces = [default_space(segmenter, fixed=names) for names in fixed]
    for space in spaces[:2]:
        search(space, segmenter, n_trials=1, refit=False, **stored).fit(X, y)
    with pytest.raises(ValueError, match=r"made with fixed \['loss'\], not \['depth'\]"):
        search(spaces[2], segmenter, n_trials=1, **stored).fit(X, y)


def test_broken_trials_are_recorded_and_the_search_goes_on(steps):
    space = {**SPACE, "trouble": CategoricalDistribution([None, "raise", "nan"])}
    with pytest.warns(FitFailedWarning) as told:
        fitted = search(space, n_trials=15).fit(*steps)
    table = pd.DataFrame(fitted.cv_results_)
    assert set(table["state"]) == {"COMPLETE", "FAIL"}
    for _, row in table.iterrows():
        assert (row["state"] == "COMPLETE") == pd.isna(row["param_trouble"])
        assert np.isnan(row["mean_test_score"]) == (row["state"] == "FAIL")
    errors = set(table["error"])
    assert "FloatingPointError: has diverged" in errors
    assert any("not finite" in error for error in errors)
    assert fitted.best_params_["trouble"] is None
    last = table["error"][table["state"] == "FAIL"].iloc[-1]
    assert str(told.pop(FitFailedWarning).message) == (
        f"{sum(table['state'] == 'FAIL')} of 15 trials failed; the last one failed with {last}"
    )


def test_score_that_is_not_finite_is_an_error_and_not_pruned(steps):
    space = {**SPACE, "trouble": CategoricalDistribution([None, "nan"])}
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1)
    with pytest.warns(FitFailedWarning, match="the score is not finite"):
        fitted = search(space, n_trials=15, cv=3, pruner=pruner).fit(*steps)
    table = pd.DataFrame(fitted.cv_results_)
    broken = table[table["param_trouble"] == "nan"]
    assert set(broken["state"]) == {"FAIL"}
    assert broken["error"].str.contains("not finite").all()


def test_nothing_but_broken_trials_is_an_error(steps):
    with pytest.raises(ValueError, match=r"none of 3 trials .* has diverged"):
        search(estimator=Guess(trouble="raise"), n_trials=3).fit(*steps)


@pytest.mark.filterwarnings("error::sklearn.exceptions.FitFailedWarning")
@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_ends_the_search_and_keeps_what_was_found(steps, tmp_path):
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "levels"}

    def space(trial):
        level = trial.suggest_float("level", 0, 200)
        return {"level": level, "trouble": "interrupt" if trial.number == 3 else None}

    class Pressed(Guess):
        def fit(self, X, y):
            if self.trouble == "interrupt":
                signal.raise_signal(signal.SIGINT)
            return super().fit(X, y)

    fitted = search(space, Pressed(), **stored, cv=KFold(2)).fit(*steps)
    assert list(fitted.cv_results_["trial_number"]) == [0, 1, 2]
    assert fitted.best_estimator_.predict(steps[0]).shape == steps[1].shape
    # What was interrupted is done first when the search goes on.
    resumed = search(space, **stored, cv=KFold(2)).fit(*steps)
    assert len(resumed.cv_results_["trial_number"]) == 8
    assert resumed.study_.trials[4].params == fitted.study_.trials[3].params


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_before_a_trial_is_complete_ends_more_than_the_search(steps):
    class Pressed(Guess):
        def fit(self, X, y):
            signal.raise_signal(signal.SIGINT)
            return super().fit(X, y)

    with pytest.raises(KeyboardInterrupt):
        cross_val_score(search(estimator=Pressed()), *steps, cv=KFold(2))


def test_own_interrupts_are_not_swallowed(steps):
    with pytest.raises(KeyboardInterrupt):
        search(estimator=Guess(trouble="interrupt")).fit(*steps)


def test_timeout_begins_no_further_trial(steps, monkeypatch):
    now = [0.0]

    class Slow(Guess):
        """Takes five seconds, and a trial of two folds ten."""

        def fit(self, X, y):
            now[0] += 5.0
            if now[0] > 100:
                pytest.fail("the search has no end")
            return super().fit(X, y)

    monkeypatch.setattr("skmars.tuning.search.time.monotonic", lambda: now[0])
    fitted = search(estimator=Slow(), n_trials=None, timeout=25).fit(*steps)
    # They begin at 0, 10 and 20 seconds.
    assert len(fitted.cv_results_["trial_number"]) == len(fitted.study_.trials) == 3


def test_two_aims(steps):
    space = {**SPACE, "size": CategoricalDistribution([1, 10, 100])}
    fitted = search(space, scoring=("mean_iou", "n_parameters"), n_trials=25).fit(*steps)
    results = fitted.cv_results_
    values = np.stack([results["mean_test_mean_iou"], -results["mean_test_n_parameters"]], axis=1)
    by_hand = [
        row
        for row in range(25)
        if not any((v >= values[row]).all() and (v > values[row]).any() for v in values)
    ]
    assert sorted(fitted.pareto_front_) == by_hand
    assert fitted.best_index_ == fitted.pareto_front_[0]
    assert fitted.best_score_ == results["mean_test_mean_iou"].max()
    assert {row.number for row in fitted.study_.best_trials} == set(by_hand)
    assert fitted.score(*steps) == pytest.approx(
        mean_iou_score(steps[1], fitted.predict(steps[0]))
    )


def test_time_as_an_aim(steps):
    fitted = search(scoring=["mean_iou", "seconds_per_image"], n_trials=3).fit(*steps)
    assert (fitted.cv_results_["mean_test_seconds_per_image"] > 0).all()


@pytest.mark.parametrize("scoring", [None, "mean_iou", "boundary_f1", "pixel_accuracy", "iou_1"])
def test_scoring_by_name(steps, scoring):
    folds = SegmentationKFold(2, random_state=3)
    fitted = search(scoring=scoring, n_trials=3, cv=folds).fit(*steps)
    scorer = None if scoring is None else SegmentationScorer(scoring)
    scores = cross_val_score(Guess(**fitted.best_params_), *steps, cv=folds, scoring=scorer)
    assert fitted.best_score_ == pytest.approx(scores.mean())


def test_groups_stay_in_one_fold_and_reach_the_segmenter(steps):
    X, y = steps
    groups = np.arange(12) // 3
    search(n_trials=1).fit(X, y, groups=groups)
    assert [np.unique(fit["groups"]).tolist() for fit in Guess.fits[:2]] in (
        [[a, b], [c, d]]
        for a, b, c, d in np.array(
            [[0, 1, 2, 3], [2, 3, 0, 1], [0, 2, 1, 3], [1, 3, 0, 2], [0, 3, 1, 2], [1, 2, 0, 3]]
        ).tolist()
    )
    Guess.fits.clear()
    space = {"segment__level": SPACE["level"]}
    search(space, Pipeline([("segment", Guess())]), n_trials=1).fit(X, y, groups=groups)
    assert all(fit["groups"] is not None for fit in Guess.fits)


@fails_on_purpose
def test_progress_tells_the_best_and_the_failed(steps, capsys):
    space = {**SPACE, "trouble": CategoricalDistribution([None, "raise"])}
    fitted = search(space, n_trials=6, verbose=1).fit(*steps)
    text = capsys.readouterr().err
    failed = list(fitted.cv_results_["state"]).count("FAIL")
    assert f"best {fitted.best_score_:.4f}, 0 pruned, {failed} failed" in text
    assert "6/6" in text
    search(n_trials=2).fit(*steps)
    assert capsys.readouterr().err == ""


def test_pickles_and_clones(steps, tmp_path):
    storage = f"journal://{tmp_path}/study.log"
    fitted = search(storage=storage, study_name="levels").fit(*steps)
    values = [trial.values for trial in fitted.study_.trials]
    pickled = pickle.dumps(fitted)
    (tmp_path / "study.log").unlink()
    copy = pickle.loads(pickled)
    assert copy.best_params_ == fitted.best_params_
    assert [trial.values for trial in copy.study_.trials] == values
    np.testing.assert_array_equal(copy.predict(steps[0]), fitted.predict(steps[0]))
    fresh = clone(fitted)
    assert not hasattr(fresh, "cv_results_")
    assert fresh.get_params()["estimator__level"] == 0.0


def test_without_refit_there_is_nothing_to_predict_with(steps):
    fitted = search(refit=False, n_trials=2).fit(*steps)
    assert fitted.best_params_
    with pytest.raises(AttributeError, match="refit"):
        fitted.predict(steps[0])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_trials": 0}, "n_trials"),
        ({"n_trials": None}, "no end"),
        ({"timeout": -1}, "timeout"),
        ({"scoring": "beauty"}, "beauty"),
        ({"scoring": "accuracy"}, "'mean_iou', 'weighted_iou'"),
        ({"scoring": ("mean_iou", "iou_1", "n_parameters")}, "one objective or two"),
        ({"scoring": ("n_parameters", "mean_iou")}, "first objective"),
        ({"scoring": ("mean_iou", "mean_iou")}, "two objectives of one name"),
        ({"sampler": "luck"}, "sampler"),
        ({"pruner": "shears"}, "pruner"),
        ({"pruner": "none"}, "pruner"),
        ({"n_workers": 0}, "n_workers"),
        ({"storage": "study.log"}, "journal:///"),
        ({"storage": "journal://study.log"}, "three slashes"),
        ({"storage": "journal:///no/such/folder/study.log"}, "no folder"),
        ({"cv": 13}, "13"),
        ({"space": {"depth": 3}}, None),
    ],
)
def test_bad_parameters(steps, params, message):
    with pytest.raises((ValueError, TypeError), match=message):
        search(**params).fit(*steps)


@pytest.mark.parametrize("n", [6, 11, 13])
def test_weights_of_another_length_are_told_at_once(steps, n):
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(12,\)"):
        search(n_trials=3).fit(*steps, sample_weight=np.ones(n))
    assert not Guess.fits


def test_bad_parameters_of_the_estimator_are_told_at_once(terrain, fast):
    segmenter = MarsSegmenter(**fast | {"batch_size": "many"})
    space = {"learning_rate": FloatDistribution(1e-4, 1e-2)}
    with pytest.raises(ValueError, match="'batch_size' parameter of MarsSegmenter"):
        SegmenterSearchCV(segmenter, space, n_trials=2).fit(*terrain)


def test_unknown_parameter_in_the_space_is_told_at_once(steps):
    with pytest.raises(ValueError, match="deepness"):
        search({"deepness": FloatDistribution(0, 1)}, n_trials=3).fit(*steps)
    assert not Guess.fits


def test_pruned_trials_of_a_segmenter(terrain, fast):
    X, y = terrain[0], np.minimum(terrain[1], 3)
    space = {"learning_rate": CategoricalDistribution([1e-2, 1e-9])}
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 3, "patch_size": 1})
    fitted = search(space, segmenter, n_trials=10, pruner="median").fit(X, y)
    states = list(fitted.cv_results_["state"])
    assert "PRUNED" in states
    pruned = states.index("PRUNED")
    assert np.isnan(fitted.cv_results_["mean_test_score"][pruned])
    assert len(fitted.study_.trials[pruned].intermediate_values) < 6
    assert fitted.best_estimator_.callbacks is None


@pytest.mark.parametrize(
    ("fine_tune_epochs", "length"), [(1, 3), pytest.param("auto", 12, marks=pytest.mark.slow)]
)
def test_second_phase_does_not_move_the_steps_of_later_folds(
    fine_tune_epochs, length, terrain, fast
):
    X, y = terrain[0], np.minimum(terrain[1], 3)
    settings = {**fast, "fine_tune_epochs": fine_tune_epochs}
    segmenter = MarsSegmenter(**settings)
    space = {"freeze": CategoricalDistribution([None, "encoder"])}
    fitted = search(space, segmenter, n_trials=6, pruner=optuna.pruners.NopPruner()).fit(X, y)
    steps = {row.params["freeze"]: list(row.intermediate_values) for row in fitted.study_.trials}
    # A fold without a second phase also ends at the last step.
    single = sorted({0, 1, length - 1, length, length + 1, 2 * length - 1})
    assert steps == {None: single, "encoder": list(range(2 * length))}


def test_images_held_out_do_not_cost_epochs_their_steps(monkeypatch, terrain, fast):
    # Few images have more epochs; here they are a moment's.
    monkeypatch.setattr("skmars.training.plan.FEWEST_EPOCHS", 3)
    monkeypatch.setattr("skmars.training.plan.MANY_IMAGES", 24)
    X, y = terrain[0], np.minimum(terrain[1], 3)
    settings = {"max_epochs": "auto", "validation_fraction": 0.4, "freeze": "encoder"}
    segmenter = MarsSegmenter(**{**fast, **settings})
    space = {"learning_rate": CategoricalDistribution([1e-2])}
    fitted = search(space, segmenter, n_trials=1, pruner=optuna.pruners.NopPruner()).fit(X, y)
    n_epochs = segmenter.fit(X[:12], y[:12]).n_iter_
    assert len(fitted.study_.trials[0].intermediate_values) >= 2 * n_epochs


def test_without_images_to_validate_on_trials_are_pruned_between_folds(terrain, fast):
    X, y = terrain[0], np.minimum(terrain[1], 3)
    segmenter = MarsSegmenter(**fast, validation_fraction=None)
    space = {"learning_rate": CategoricalDistribution([1e-9, 1e-2])}
    fitted = search(space, segmenter, n_trials=9, cv=3, pruner="median").fit(X, y)
    assert set(fitted.cv_results_["state"]) == {"COMPLETE", "PRUNED"}


def test_without_epochs_to_watch_trials_are_pruned_between_folds(steps):
    fitted = search(n_trials=20, cv=4, pruner="median").fit(*steps)
    assert "PRUNED" in fitted.cv_results_["state"]
    assert len(Guess.fits) < 20 * 4 + 1


def test_default_space_over_a_pipeline(terrain, fast):
    X, y = terrain[0], np.minimum(terrain[1], 3)
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error", optuna.exceptions.ExperimentalWarning)
        fitted = search(None, make_pipeline(segment=segmenter), n_trials=3).fit(X, y)
    assert "segment__depth" in fitted.best_params_
    assert fitted.predict(X).shape == y.shape


def test_study_without_an_integer_seed_goes_on(steps, tmp_path):
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "levels"}
    search(**stored, n_trials=2, random_state=None).fit(*steps)
    resumed = search(**stored, n_trials=5, random_state=None).fit(*steps)
    assert len(resumed.study_.trials) == 5


def test_without_a_name_each_fit_begins_a_study(steps, tmp_path):
    X, y = steps
    inner = search(storage=f"journal://{tmp_path}/study.log", n_trials=2)
    scores = cross_val_score(inner, X, y, cv=KFold(3), error_score="raise")
    assert np.isfinite(scores).all()


def test_trials_of_a_wider_space_keep_all_their_parameters(steps, tmp_path):
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "levels"}
    sizes = {"size": CategoricalDistribution([2, 3])}
    before = search({**SPACE, **sizes}, **stored, n_trials=6).fit(*steps)
    after = search(SPACE, **stored, n_trials=7).fit(*steps)
    assert after.cv_results_["params"][:6] == before.cv_results_["params"]


@pytest.mark.parametrize(
    "space",
    [
        SPACE,
        lambda trial: {"level": trial.suggest_float("level", 0, 200)},
        lambda trial: {"level": trial.suggest_float("other", 0, 200)},
    ],
    ids=["dict", "less", "other"],
)
def test_study_of_another_function_is_refused(steps, tmp_path, space):
    def both(trial):
        size = trial.suggest_categorical("size", [1, 2])
        return {"level": trial.suggest_float("level", 0, 200), "size": size}

    # As the functions above are called.
    both.__qualname__ = "<lambda>"
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "levels"}
    search(both, **stored, n_trials=2).fit(*steps)
    with pytest.raises(ValueError, match="give another study_name"):
        search(space, **stored, n_trials=3).fit(*steps)


@fails_on_purpose
def test_results_show_what_a_function_made_of_its_trial(steps):
    sizes = {"small": 1, "large": 9}

    def space(trial):
        if trial.number == 3:
            raise optuna.TrialPruned
        size = trial.suggest_categorical("size", [*sizes, "none"])
        return {"level": 10.0 * trial.number, "size": sizes[size]}

    fitted = search(space, n_trials=12).fit(*steps)
    results = fitted.cv_results_
    assert {"COMPLETE", "FAIL", "PRUNED"} == set(results["state"])
    for number, state in enumerate(results["state"]):
        if state == "COMPLETE":
            assert results["params"][number]["level"] == 10.0 * number
            assert results["params"][number]["size"] in sizes.values()
    assert fitted.best_estimator_.level == 10.0 * fitted.best_index_


def test_objectives_are_told_apart_by_their_scorers(steps, tmp_path):
    X, y = steps
    pair = (mean_iou_scorer, class_iou_scorer(1))
    fitted = search(scoring=pair, n_trials=3).fit(X, y)
    assert {"mean_test_mean_iou", "mean_test_iou_1"} <= set(fitted.cv_results_)
    own = search(scoring=(make_scorer(mean_iou_score), None), n_trials=3).fit(X, y)
    assert "mean_test_score" in own.cv_results_
    with pytest.raises(ValueError, match="one name"):
        search(scoring=(mean_iou_scorer, "mean_iou")).fit(X, y)
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "levels"}
    search(**stored, scoring=class_iou_scorer(1)).fit(X, y)
    with pytest.raises(ValueError, match="objectives"):
        search(**stored, scoring=class_iou_scorer(0)).fit(X, y)


def test_a_later_fit_leaves_nothing_of_an_earlier_one(steps):
    X, y = steps
    fitted = search(scoring=("mean_iou", "n_parameters"), n_trials=3).fit(X, y)
    fitted.set_params(scoring=None, refit=False).fit(X, y)
    assert not hasattr(fitted, "pareto_front_")
    assert not hasattr(fitted, "best_estimator_")
    results = fitted.cv_results_
    with pytest.raises(ValueError, match="none of 2 trials"):
        fitted.set_params(estimator=Guess(trouble="raise"), n_trials=2).fit(X, y)
    assert fitted.cv_results_ is results


def test_a_pruner_is_not_changed(steps, terrain, fast):
    pruner = optuna.pruners.HyperbandPruner(min_resource=1)
    before = pickle.dumps(pruner)
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 1})
    space = {"learning_rate": FloatDistribution(1e-3, 1e-2)}
    X, y = terrain[0], np.minimum(terrain[1], 3)
    search(space, segmenter, pruner=pruner, n_trials=2).fit(X, y)
    assert pickle.dumps(pruner) == before


def test_choices_of_a_study_stay_the_same(steps, tmp_path):
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "levels"}
    search({"size": CategoricalDistribution([1, 2])}, **stored, n_trials=2).fit(*steps)
    with pytest.raises(ValueError, match="another space"):
        search({"size": CategoricalDistribution([1, 2, 3])}, **stored, n_trials=3).fit(*steps)


def test_study_of_other_weights_is_refused(steps, tmp_path):
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "levels"}
    weights = np.ones(12)
    for n_trials in (1, 2):
        search(**stored, n_trials=n_trials).fit(*steps, sample_weight=weights)
    with pytest.raises(ValueError, match="give another study_name"):
        search(**stored, n_trials=3).fit(*steps, sample_weight=2 * weights)
    with pytest.raises(ValueError, match="give another study_name"):
        search(**stored, n_trials=3).fit(*steps)


def test_study_of_ones_own_is_not_taken_over(steps, tmp_path):
    storage = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=storage, study_name="mine", direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("level", 0, 1), n_trials=1)
    with pytest.raises(ValueError, match="something else"):
        search(storage=storage, study_name="mine").fit(*steps)


@fails_on_purpose
def test_trials_that_failed_do_not_have_to_fit_a_mended_space(steps, tmp_path):
    def broken(trial):
        trouble = trial.suggest_categorical("trouble", [None, "raise"])
        return {"level": trial.suggest_float("level", 0, 200), "trouble": trouble}

    def mended(trial):
        trouble = trial.suggest_categorical("trouble", [None, "raise"])
        level = trial.suggest_float("level", 0, 200)
        if trouble is not None:
            trial.suggest_float("cure", 0, 1)
        return {"level": level}

    mended.__qualname__ = broken.__qualname__
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "levels"}
    before = search(broken, **stored, n_trials=8).fit(*steps).cv_results_
    assert {"FAIL", "COMPLETE"} == set(before["state"])
    after = search(mended, **stored, n_trials=9).fit(*steps).cv_results_
    failed = before["state"] == "FAIL"
    assert [row["trouble"] for row in np.array(after["params"][:8])[failed]] == ["raise"] * sum(
        failed
    )


def test_space_that_looks_at_the_study_is_refused(steps):
    def space(trial):
        return {"level": float(len(trial.study.trials))}

    with pytest.raises(ValueError, match="asked for a trial's parameters again"):
        search(space).fit(*steps)
    assert not Guess.fits


@pytest.mark.parametrize(
    "sampler",
    [
        optuna.samplers.GridSampler({"level": [50.0, 100.0, 150.0]}, seed=0),
        optuna.samplers.BruteForceSampler(seed=0),
    ],
    ids=["grid", "brute force"],
)
def test_samplers_that_try_everything_end_the_search(steps, sampler):
    space = {"level": CategoricalDistribution([50.0, 100.0, 150.0])}
    if isinstance(sampler, optuna.samplers.GridSampler):
        space = SPACE
    fitted = search(space, sampler=sampler, n_trials=9).fit(*steps)
    assert sorted(levels(fitted)) == [50.0, 100.0, 150.0]
    assert fitted.best_params_ == {"level": 100.0}


@pytest.mark.parametrize(
    "scoring",
    ["iou_9", "iou_-1", ("mean_iou", "iou_9"), SegmentationScorer(["mean_iou", "iou_1"])],
)
def test_scoring_that_cannot_be_is_told_at_once(steps, scoring):
    with pytest.raises(ValueError, match=r"label that y does not have|several metrics"):
        search(scoring=scoring).fit(*steps)
    assert not Guess.fits


def test_ignored_label_cannot_be_scored(terrain, fast):
    segmenter = MarsSegmenter(**fast, ignore_label=0, callbacks=[NoTraining()])
    with pytest.raises(ValueError, match="the estimator ignores"):
        search(None, segmenter, scoring="iou_0").fit(*terrain)


@pytest.mark.parametrize("scoring", [None, "mean_iou", "iou_2", "boundary_f1"])
def test_class_of_a_single_scene_is_told_at_once(scoring, terrain, fast):
    X, y = terrain
    y = y.copy()
    y[5, :2] = 7
    segmenter = MarsSegmenter(**fast, callbacks=[NoTraining()])
    with pytest.raises(ValueError, match=r"labels \[7\] are only in the images that fold"):
        search(None, make_pipeline(segment=segmenter), scoring=scoring).fit(X, y)
    accuracy = SegmentationScorer("mean_iou", labels=[0, 1, 2, 3, 4, 7])
    segmenter.set_params(callbacks=None, max_epochs=1)
    fitted = search(
        {"dropout": FloatDistribution(0, 0.5)}, segmenter, scoring=accuracy, n_trials=1
    )
    assert fitted.fit(X, y).best_score_ > 0


@fails_on_purpose
@pytest.mark.parametrize(("n_good", "n_fits"), [(0, 10), (1, 2 + 14)])
def test_a_search_in_which_every_trial_fails_is_given_up(n_good, n_fits, steps):
    def space(trial):
        trouble = None if trial.number < n_good else "raise"
        return {"level": trial.suggest_float("level", 0, 200), "trouble": trouble}

    with contextlib.suppress(ValueError):
        search(space, n_trials=15, cv=2, refit=False).fit(*steps)
    assert len(Guess.fits) == n_fits


def test_weights_reach_the_segmenter(steps):
    weights = np.arange(1.0, 13.0)
    pipeline = Pipeline([("guess", Guess())])
    fitted = search({"guess__level": SPACE["level"]}, pipeline, n_trials=1)
    fitted.fit(*steps, sample_weight=weights)
    np.testing.assert_array_equal(Guess.fits[-1]["sample_weight"], weights)
    assert len(Guess.fits[0]["sample_weight"]) == 6


def test_weights_that_nothing_takes_are_told_at_once(steps):
    class Careless(Guess):
        def fit(self, X, y):
            return super().fit(X, y)

    with pytest.raises(ValueError, match="takes no sample_weight"):
        search(estimator=Careless()).fit(*steps, sample_weight=np.ones(12))


def test_groups_by_metadata_routing(steps):
    groups = np.arange(12) // 2
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(segment=Guess().set_fit_request(groups=True), outliers=None)
        fitted = search({"segment__level": SPACE["level"]}, pipeline, n_trials=1)
        fitted.fit(*steps, groups=groups)
    np.testing.assert_array_equal(Guess.fits[-1]["groups"], groups)
    assert len(Guess.fits[0]["groups"]) == 6


@pytest.mark.slow
def test_metadata_routing_reaches_the_workers(steps):
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(segment=Guess().set_fit_request(groups=True), outliers=None)
        fitted = search({"segment__level": SPACE["level"]}, pipeline, n_trials=2, n_workers=2)
        fitted.fit(*steps, groups=np.arange(12) // 2)
    assert list(fitted.cv_results_["state"]) == ["COMPLETE", "COMPLETE"]


def test_channels_are_those_of_the_segmenter_in_a_pipeline(terrain, fast):
    X, y = terrain[0], np.minimum(terrain[1], 3)
    pipeline = make_pipeline(segment=MarsSegmenter(**fast), outliers=None)
    space = {"segment__learning_rate": FloatDistribution(1e-3, 1e-2)}
    fitted = search(space, pipeline, n_trials=1, cv=2).fit(X, y)
    assert fitted.n_channels_in_ == 1


def test_refused_database_leaves_no_file(steps, tmp_path):
    path = tmp_path / "study.db"
    with pytest.raises(ValueError, match="SQLite"):
        search(storage=f"sqlite:///{path}", study_name="levels", n_workers=2).fit(*steps)
    assert not path.exists()


def test_searched_epochs_do_not_move_the_steps_of_later_folds(terrain, fast):
    X, y = terrain[0], np.minimum(terrain[1], 3)
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 3}, fine_tune_epochs=1)
    space = {"max_epochs": CategoricalDistribution([2, 4, 8])}
    sampler = optuna.samplers.BruteForceSampler(seed=0)
    fitted = search(space, segmenter, sampler=sampler, pruner=optuna.pruners.NopPruner())
    trials = fitted.fit(X, y).study_.trials
    steps = {row.params["max_epochs"]: list(row.intermediate_values) for row in trials}
    assert steps == {2: [0, 1, 3, 4, 5, 7], 4: list(range(8)), 8: list(range(8))}


def test_label_that_a_fold_does_not_score_is_told_at_once(steps):
    X, y = steps
    y = y.copy()
    y[0, 0, 0] = 4
    with pytest.raises(ValueError, match=r"'iou_4' needs label 4 .* those of fold 1 have none"):
        search(scoring="iou_4", cv=KFold(3)).fit(X, y)
    assert not Guess.fits
    # Here a label that is neither there nor predicted has a score.
    defined = SegmentationScorer("iou_4", labels=[0, 1, 4], absent=1.0)
    fitted = search(scoring=defined, cv=KFold(3), n_trials=1).fit(X, y)
    assert fitted.best_score_ == pytest.approx(2 / 3)


def test_folds_of_a_generator_that_was_used_are_told(steps):
    folds = KFold(2).split(steps[0])
    search(cv=folds, n_trials=1).fit(*steps)
    with pytest.raises(ValueError, match="cv gives no folds"):
        search(cv=folds, n_trials=1).fit(*steps)


class Own:
    """A scorer without a name, whose `repr` is Python's own."""

    def __call__(self, estimator, X, y):
        return estimator.score(X, y)


def make_partial(factor=1.0):
    def scaled(estimator, X, y, factor):
        return factor * estimator.score(X, y)

    return functools.partial(scaled, factor=factor)


@pytest.mark.parametrize("make", [Own, make_partial])
def test_study_goes_on_with_objects_at_other_addresses(steps, tmp_path, make):
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "levels"}
    objects = [make(), make()]
    for n_trials, one in enumerate(objects, start=1):
        # As a scorer, and within a parameter.
        again = search(estimator=Guess(trouble=[one]), scoring=one, n_trials=n_trials, **stored)
        assert len(again.fit(*steps).study_.trials) == n_trials
    with pytest.raises(ValueError, match="has the objectives"):
        search(estimator=Guess(trouble=[one]), scoring=make_partial(2.0), **stored).fit(*steps)


class OfTuple(Guess):
    """A guess by the first of several levels."""

    def predict(self, X):
        return np.greater(X, self.level[0]).astype(int)


@chooses_objects
@pytest.mark.parametrize("url", [None, "journal://{}/study.log", "sqlite:///{}/study.db"])
def test_objects_are_chosen_in_any_storage(steps, tmp_path, url):
    stored = {"storage": url and url.format(tmp_path), "study_name": "levels"}
    levels = [(20.0,), (90.0,), (150.0,)]
    # More trials than the sampler chooses by chance.
    for n_trials in (12, 14):
        space = {"level": CategoricalDistribution(levels)}
        fitted = search(space, OfTuple(), n_trials=n_trials, **stored).fit(*steps)
        assert list(fitted.cv_results_["state"]) == ["COMPLETE"] * n_trials
    assert any(fitted.best_params_["level"] is level for level in levels)
    assert fitted.best_estimator_.level == fitted.best_params_["level"]
    assert set(fitted.cv_results_["param_level"]) <= set(levels)
    assert fitted.study_.best_params["level"] in ("(20.0,)", "(90.0,)", "(150.0,)")


@chooses_objects
def test_narrower_space_without_the_objects_of_a_study_is_refused(steps, tmp_path):
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "levels"}
    troubles = {"trouble": CategoricalDistribution([None, (1, 2)])}
    search({**SPACE, **troubles}, **stored, n_trials=2).fit(*steps)
    with pytest.raises(ValueError, match="made with another space"):
        search(SPACE, **stored, n_trials=3).fit(*steps)


class Weighted(Own):
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, estimator, X, y):
        return self.weight * estimator.score(X, y)


def test_scorers_of_one_class_are_told_apart(steps, tmp_path):
    fitted = search(scoring=[Weighted(0.5), Weighted(0.25)], n_trials=2).fit(*steps)
    first, second = np.array([trial.values for trial in fitted.study_.trials]).T
    np.testing.assert_allclose(first, 2 * second)
    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "levels"}
    search(scoring=Weighted(0.5), **stored, n_trials=1).fit(*steps)
    with pytest.raises(ValueError, match="has the objectives"):
        search(scoring=Weighted(0.25), **stored, n_trials=2).fit(*steps)


@chooses_objects
def test_functions_may_choose_from_what_a_study_keeps(steps, tmp_path):
    def space(trial):
        trouble = trial.suggest_categorical("trouble", [None, {"gamma": [2.0, None]}])
        return {"level": trial.suggest_float("level", 0, 200), "trouble": trouble}

    url = f"journal://{tmp_path}/study.log"
    fitted = search(space, storage=url, n_trials=12).fit(*steps)
    assert list(fitted.cv_results_["state"]) == ["COMPLETE"] * 12


@chooses_objects
def test_objects_to_choose_from_stay_as_they_are(steps):
    inner = Guess(level=1.0)
    space = {"trouble": CategoricalDistribution([inner]), "trouble__level": SPACE["level"]}
    fitted = search(space, n_trials=2).fit(*steps)
    assert inner.level == 1.0
    assert fitted.best_params_["trouble"] is inner
    assert fitted.best_estimator_.trouble.level == fitted.best_params_["trouble__level"]


@chooses_objects
def test_functions_have_to_name_their_choices(steps):
    def space(trial):
        return {"level": trial.suggest_categorical("level", [(20.0,), (90.0,)])}

    with pytest.raises(ValueError, match=r"asks for 'level' .* give each choice a name"):
        search(space, OfTuple()).fit(*steps)
    assert not Guess.fits


@chooses_objects
@fails_on_purpose
def test_choice_without_a_name_costs_its_trial_and_not_the_search(steps, tmp_path):
    def space(trial):
        level = trial.suggest_float("level", 0, 200)
        if trial.number == 1:
            trial.suggest_categorical("rates", [(1, 2), (1, 2, 4)])
        return {"level": level}

    stored = {"storage": f"journal://{tmp_path}/study.log", "study_name": "levels"}
    results = search(space, n_trials=3, **stored).fit(*steps).cv_results_
    assert list(results["state"]) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "give each choice a name" in results["error"][1]
