import sys
import warnings

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.samplers import RandomSampler
from sklearn.exceptions import NotFittedError

from skmars import MarsSegmenter
from skmars.inspection import StudyDisplay
from skmars.tuning import SegmenterSearchCV


@pytest.fixture(autouse=True)
def _clean():
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    yield
    optuna.logging.set_verbosity(optuna.logging.INFO)
    plt.close("all")


def choose(trial):
    """Parameters of every kind, some of them only beside others; what counts is the rate."""
    rate = trial.suggest_float("segment__learning_rate", 1e-4, 1e-2, log=True)
    trial.suggest_int("segment__base_channels", 8, 32, log=True)
    trial.suggest_categorical("segment__attention", [True, False])
    losses = ["cross_entropy", "focal", "dice", "focal+boundary", None]
    if trial.suggest_categorical("segment__loss", losses) == "focal":
        trial.suggest_float("segment__loss_params.gamma", 0.5, 4.0)
    if trial.suggest_categorical("segment__augmentation", [True, False]):
        trial.suggest_float("segment__augmentation__paste_rare_class", 0.0, 0.5)
    return np.log10(rate)


def make_study(n_trials, *, objectives=1, spoil=True):
    """A study of which, if spoilt, every fifth trial is pruned and every seventh has failed."""
    directions = ["maximize", "minimize", "minimize"][:objectives]
    study = optuna.create_study(directions=directions, sampler=RandomSampler(seed=0))

    def objective(trial):
        value = choose(trial)
        if spoil and trial.number % 7 == 3:
            raise ValueError("broken")
        if spoil and trial.number % 5 == 4 and objectives == 1:
            raise optuna.TrialPruned
        return value if objectives == 1 else [value, *(10 ** (2 + value),) * (objectives - 1)]

    study.optimize(objective, n_trials=n_trials, catch=(ValueError,))
    return study


def texts(display, panel):
    return [text.get_text() for text in display.axes_[panel][0].texts]


def labels(axes):
    return [ax.get_xlabel().replace("\n", "") for ax in axes]


def test_panels_of_a_study_with_pruned_and_failed_trials():
    study = make_study(30)
    display = StudyDisplay.from_study(study, objective_names=["mean_iou"])
    assert display.study is study
    assert list(display.figures_) == ["history", "importances", "slices", "timeline"]
    assert all(
        display.axes_[name][0].figure is figure for name, figure in display.figures_.items()
    )
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert 15 < len(complete) < 30
    (history,) = display.axes_["history"]
    assert history.get_ylabel() == "mean_iou"
    np.testing.assert_allclose(
        history.collections[0].get_offsets(), [[t.number, t.value] for t in complete]
    )
    (timeline,) = display.axes_["timeline"]
    assert len(timeline.patches) == 30
    shown = {text.get_text() for text in timeline.get_legend().get_texts()}
    assert shown == {"COMPLETE", "PRUNED", "FAIL"}


def test_importances_find_what_counts():
    (ax,) = StudyDisplay.from_study(make_study(30), panels=["importances"]).axes_["importances"]
    names = [label.get_text() for label in ax.get_yticklabels()]
    widths = [bar.get_width() for bar in ax.patches]
    # Those that all trials have; the most important one is on top.
    assert len(names) == 5
    assert names[-1] == "segment__learning_rate"
    assert widths[-1] > 0.5


def test_importances_by_another_evaluator():
    display = StudyDisplay(make_study(80))
    display.plot(["importances"], evaluator=PedAnovaImportanceEvaluator())
    names = [label.get_text() for label in display.axes_["importances"][0].get_yticklabels()]
    assert "segment__loss_params.gamma" in names


def test_slices_of_every_parameter():
    study = make_study(30)
    display = StudyDisplay.from_study(study, panels=["slices"])
    assert labels(display.axes_["slices"]) == sorted(
        {name for t in study.trials for name in t.params}
    )
    display.plot(["slices"], max_params=2)
    assert len(display.axes_["slices"]) == 2
    assert "segment__learning_rate" in labels(display.axes_["slices"])


def horizontal_labels(axis):
    """The label of an axis, and those of its ticks that are seen and not turned."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    shown = [axis.label, *(label for label in ticks if label.get_visible())]
    return [text for text in shown if text.get_text() and text.get_rotation() == 0]


def test_no_label_overlaps_another():
    display = StudyDisplay.from_study(make_study(30), panels=["slices", "importances"])
    for panel, figure in display.figures_.items():
        figure.canvas.draw()
        axes = display.axes_[panel]
        shown = [
            text
            for ax in axes
            for axis in (ax.xaxis, ax.yaxis)
            for text in horizontal_labels(axis)
        ]
        boxes = [text.get_window_extent().padded(-1) for text in shown]
        assert len(boxes) > 10
        for i, box in enumerate(boxes):
            assert figure.bbox.contains(box.x0, box.y0), shown[i]
            assert figure.bbox.contains(box.x1, box.y1), shown[i]
            assert not box.count_overlaps(boxes[:i]), shown[i]


@pytest.mark.parametrize("objectives", [2, 3])
def test_several_objectives(objectives):
    study = make_study(30, objectives=objectives)
    names = ["mean_iou", "n_parameters", "seconds"][:objectives]
    display = StudyDisplay.from_study(study, objective_names=names, objective=1)
    assert list(display.figures_) == ["history", "importances", "slices", "timeline", "front"]
    assert display.axes_["history"][0].get_ylabel() == "n_parameters"
    (front,) = display.axes_["front"]
    assert (front.get_xlabel(), front.get_ylabel()) == tuple(names[:2])


def test_front_is_drawn():
    study = optuna.create_study(directions=["maximize", "minimize"])
    points = [(0.5, 10.0), (0.7, 50.0), (0.6, 60.0), (0.8, 90.0), (0.4, 5.0)]
    for values in points:
        study.add_trial(optuna.create_trial(values=values))
    (ax,) = StudyDisplay.from_study(study, panels=["front"]).axes_["front"]
    line = ax.lines[-1]
    assert line.get_drawstyle() == "steps-pre"
    best = [(0.4, 5.0), (0.5, 10.0), (0.7, 50.0), (0.8, 90.0)]
    np.testing.assert_array_equal(line.get_xydata(), best)
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "linear")


def test_importance_of_each_objective_is_that_for_its_direction():
    study = make_study(60, objectives=2, spoil=False)
    for objective in (0, 1):
        display = StudyDisplay(study).plot(["importances"], objective=objective)
        (ax,) = display.axes_["importances"]
        assert ax.get_yticklabels()[-1].get_text() == "segment__learning_rate"
        assert ax.get_title() == f"Importance for value {objective}"


@pytest.mark.parametrize("n_trials", [0, 1, 2, 3])
def test_few_trials(n_trials):
    display = StudyDisplay.from_study(make_study(n_trials, spoil=False))
    assert list(display.figures_) == ["history", "importances", "slices", "timeline"]
    for figure in display.figures_.values():
        figure.canvas.draw()
    if n_trials == 0:
        assert texts(display, "history") == ["no trial is complete yet"]
        assert texts(display, "timeline") == ["no trial has begun yet"]
    if n_trials < 2:
        assert texts(display, "importances") == [
            f"importances need 2 complete trials; there are {n_trials}"
        ]


def test_nothing_but_broken_trials():
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.optimize(lambda trial: 1 / 0, n_trials=2, catch=(ZeroDivisionError,))
    display = StudyDisplay.from_study(study)
    for panel in ("history", "front"):
        assert texts(display, panel) == ["no trial is complete yet"]
    assert len(display.axes_["timeline"][0].patches) == 2


def test_importances_say_why_there_are_none():
    study = optuna.create_study()
    study.optimize(lambda trial: 0 * trial.suggest_float("a", 0, 1), n_trials=3)
    (note,) = texts(StudyDisplay.from_study(study), "importances")
    assert note.endswith("all have the same value")
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("ab"[trial.number % 2], 0, 1), n_trials=4)
    (note,) = texts(StudyDisplay.from_study(study), "importances")
    assert note == "there is no parameter that all complete trials have"


def test_trials_that_are_not_finite_or_not_done():
    study = make_study(8, spoil=False)
    study.add_trial(optuna.create_trial(value=float("inf")))
    study.ask()
    display = StudyDisplay.from_study(study)
    points = np.ma.filled(display.axes_["history"][0].collections[0].get_offsets(), np.nan)
    assert np.isfinite(points).all(axis=1).sum() == 8


def test_a_search(terrain, fast):
    X, y = terrain[0], np.minimum(terrain[1], 3)
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 1})
    space = {"learning_rate": FloatDistribution(1e-4, 1e-1, log=True)}
    search = SegmenterSearchCV(segmenter, space, n_trials=3, cv=2, random_state=0)
    with pytest.raises(NotFittedError):
        StudyDisplay.from_search(search)
    display = StudyDisplay.from_search(search.fit(X, y))
    assert display.study is search.study_
    assert display.objective_names == ["score"]
    search.set_params(scoring=["mean_iou", "n_parameters"], refit=False, n_trials=2).fit(X, y)
    display = StudyDisplay.from_search(search, panels=["front"])
    assert display.objective_names == ["mean_iou", "n_parameters"]


def test_leaves_style_and_logging_alone_and_warns_of_nothing(capfd):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    study = optuna.create_study()
    study.add_trial(optuna.create_trial(value=float("inf")))
    capfd.readouterr()
    before = dict(plt.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        StudyDisplay.from_study(study)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert dict(plt.rcParams) == before


def test_names_of_the_study():
    study = make_study(3)
    assert StudyDisplay.from_study(study).axes_["history"][0].get_ylabel() == "value"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.set_metric_names(["IoU"])
    assert StudyDisplay.from_study(study).axes_["history"][0].get_ylabel() == "IoU"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"panels": ["front"]}, "panels must be of .* got 'front'"),
        ({"panels": ["histogram"]}, "got 'histogram'"),
        ({"objective": 1}, "objective must be one of 0 to 0, got 1"),
        ({"objective_names": ["a", "b"]}, "objective_names must be 1 names"),
        ({"objective_names": "a"}, "objective_names must be 1 names"),
    ],
)
def test_bad_input(params, message):
    with pytest.raises(ValueError, match=message):
        StudyDisplay.from_study(make_study(2), **params)


def test_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="the extra 'plot'"):
        StudyDisplay.from_study(make_study(0))
