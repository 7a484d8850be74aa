import json
import pickle

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from skmars import Augmenter, MarsSegmenter, OutlierRemover, make_pipeline
from skmars.parameters import check_together
from skmars.tuning import default_space, suggest_params


@pytest.fixture
def study():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))


def draw(study, space, n=150):
    return [suggest_params(study.ask(), space) for _ in range(n)]


def test_distributions_are_asked_by_name(study):
    space = {
        "segment__learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "segment__dropout": FloatDistribution(0.0, 0.4, step=0.2),
        "segment__base_channels": IntDistribution(8, 32, step=8),
        "segment__block": CategoricalDistribution(["plain", "residual"]),
    }
    trial = study.ask()
    params = suggest_params(trial, space)
    assert params == trial.params
    assert trial.distributions == space
    assert {row["segment__dropout"] for row in draw(study, space)} == {0.0, 0.2, 0.4}


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_objects_to_choose_from_go_by_a_text(study):
    losses = [lambda logits, target: logits.mean(), lambda logits, target: target.mean()]
    space = {
        "dilation_rates": CategoricalDistribution([(1, 2), (1, 2, 4)]),
        "augmentation": CategoricalDistribution([None, Augmenter(), Augmenter(contrast=0.5)]),
        "loss": CategoricalDistribution(["dice", *losses]),
        "depth": CategoricalDistribution(np.arange(2, 5)),
    }
    for _ in range(30):
        trial = study.ask()
        params = suggest_params(trial, space)
        for name, how in space.items():
            assert any(params[name] is choice for choice in how.choices)
        # What a study holds is the same after it was read from a file.
        kept = json.loads(json.dumps(trial.params))
        assert kept == trial.params
        again = suggest_params(FixedTrial(kept), space)
        assert all(again[name] is value for name, value in params.items())
    assert trial.distributions["dilation_rates"].choices == ("(1, 2)", "(1, 2, 4)")
    assert trial.distributions["loss"].choices == ("dice", "1: <lambda>", "2: <lambda>")
    assert trial.distributions["depth"].choices == (2, 3, 4)


def test_functions_may_ask_for_one_thing_after_another(study):
    def space(trial):
        params = {"loss": trial.suggest_categorical("loss", ["focal", "dice"])}
        if params["loss"] == "focal":
            params["loss_params"] = {"gamma": trial.suggest_float("gamma", 1, 3)}
        return params

    for params in draw(study, space, 20):
        assert ("loss_params" in params) == (params["loss"] == "focal")


@pytest.mark.parametrize(
    "space", [5, [1], lambda trial: 3, {"depth": 3}, {"depth": (2, 3)}, lambda trial: None]
)
def test_what_is_no_space(study, space):
    with pytest.raises(TypeError, match="space"):
        suggest_params(study.ask(), space)


@pytest.mark.parametrize(
    "estimator",
    [
        MarsSegmenter(),
        make_pipeline(),
        make_pipeline(outliers=None, augment=Augmenter(), segment=MarsSegmenter()),
        Pipeline([("half", FunctionTransformer()), ("net", MarsSegmenter())]),
        make_pipeline(outliers=None, segment=Pipeline([("net", MarsSegmenter())])),
    ],
)
def test_default_space_fits_the_estimator(study, estimator):
    space = default_space(estimator)
    assert str(pickle.loads(pickle.dumps(space))) == str(space)
    before = str(estimator.get_params())
    for params in draw(study, space, 60):
        chosen = clone(estimator).set_params(**params)
        while hasattr(chosen, "steps"):
            for _, step in chosen.steps[:-1]:
                if isinstance(step, OutlierRemover):
                    step._validate_params()
            chosen = chosen.steps[-1][1]
        chosen._validate_params()
        check_together(chosen.get_params(deep=False), weighted=False)
    assert str(estimator.get_params()) == before


def test_default_space_tries_what_the_report_tried(study):
    rows = draw(study, default_space(make_pipeline()))
    values = {name: {str(row.get(name)) for row in rows} for row in rows for name in row}
    assert values["segment__depth"] == {"2", "3", "4"}
    assert values["segment__block"] == {"residual", "plain"}
    assert values["segment__skip"] == {"concat", "add", "fusion"}
    assert values["segment__attention"] == values["segment__aspp"] == {"True", "False"}
    assert {"cross_entropy", "focal", "dice", "focal+dice"} <= values["segment__loss"]
    assert values["segment__class_weight"] == {"None", "balanced", "sqrt"}
    assert values["segment__scheduler"] == {"cosine", "plateau"}
    assert {"None", "encoder"} <= values["segment__freeze"]
    assert len(values["segment__learning_rate"]) > 100
    assert values["outliers"] == {"None", "passthrough"}
    assert {"appearance", "repeated_mask", "auto"} <= values["outliers__method"]
    assert {"None", "True", "False"} == values["segment__augmentation__vertical_flip"]


def test_default_space_asks_only_what_has_a_meaning(study):
    space = default_space()
    for _ in range(150):
        trial = study.ask()
        params = suggest_params(trial, space)
        terms = params["loss"].split("+")
        assert ("loss_params.gamma" in trial.params) == ("focal" in terms)
        assert ("loss_params.dice_weight" in trial.params) == (terms[1:] == ["dice"])
        assert ("max_class_weight" in trial.params) == (params["class_weight"] is not None)
        assert ("fine_tune_learning_rate" in trial.params) == (params["freeze"] is not None)
        augmented = params["augmentation"] is not None
        for name in ("brightness", "random_crop", "cutmix"):
            assert (f"augmentation__{name}" in trial.params) == augmented
        # The choices of a trial are enough to have its parameters again.
        again = suggest_params(FixedTrial(trial.params), space)
        assert str(again) == str(params)


def test_fixed_parameters_stay_as_they_are(study):
    estimator = make_pipeline(segment=MarsSegmenter(loss="focal", depth=4, augmentation=None))
    fixed = ["segment__loss", "segment__depth", "segment__augmentation", "outliers"]
    space = default_space(estimator, fixed=fixed)
    for _ in range(20):
        trial = study.ask()
        params = suggest_params(trial, space)
        assert not set(fixed) & set(params)
        assert 0.5 <= params["segment__loss_params"]["gamma"] <= 4
        assert not any("augmentation" in name or "outliers" in name for name in params)
    with pytest.raises(ValueError, match="no parameters"):
        default_space(estimator, fixed=["depth"])
    with pytest.raises(ValueError, match="of which parameters are searched"):
        default_space(estimator, fixed=["segment"])


@pytest.mark.parametrize(
    "params",
    [
        {"scheduler_params": {"warmup": 0.1}},
        {"loss": "focal", "loss_params": {"gamma": 1.5}},
        {"loss": "focal + dice"},
        {"loss_params": None},
        {"loss": lambda logits, target: logits.mean(), "class_weight": None},
    ],
)
def test_every_trial_fits_what_is_fixed(study, params):
    fixed = [name for name in params if name not in ("loss_params", "class_weight")]
    fixed += ["loss_params"] if "loss_params" in params else []
    segmenter = MarsSegmenter(**params)
    space = default_space(segmenter, fixed=fixed)
    for chosen in draw(study, space, 40):
        assert not set(fixed) & set(chosen)
        check_together(clone(segmenter).set_params(**chosen).get_params(), weighted=False)


def test_parameters_of_a_schedule_are_not_given_to_another(study):
    segmenter = MarsSegmenter(scheduler_params={"warmup": 0.1})
    for chosen in draw(study, default_space(segmenter), 20):
        check_together(clone(segmenter).set_params(**chosen).get_params(), weighted=False)


def test_fixed_method_of_a_remover_is_not_asked_for(study):
    space = default_space(make_pipeline(), fixed=["outliers__method"])
    for chosen in draw(study, space, 20):
        assert not any("outliers" in name for name in chosen)


def test_augmenter_of_the_estimator_keeps_what_is_fixed(study):
    augmenter = Augmenter(brightness=0.123, crop_scale=0.9, random_state=5)
    segmenter = MarsSegmenter(augmentation=augmenter)
    space = default_space(segmenter, fixed=["augmentation__brightness"])
    seen = set()
    for params in draw(study, space, 20):
        chosen = clone(segmenter).set_params(**params).augmentation
        if chosen is not None:
            assert chosen.brightness == 0.123
            assert chosen.random_state == 5
            seen.add(chosen.crop_scale)
    assert len(seen) > 1
    assert augmenter.crop_scale == 0.9


def test_no_default_space_without_a_segmenter():
    with pytest.raises(ValueError, match="no default space"):
        default_space(Pipeline([("half", FunctionTransformer())]))
