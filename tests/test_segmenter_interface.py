import inspect
import itertools
import pickle
import re
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_html_repr
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback

from skmars import Augmenter, MarsSegmenter
from skmars.metrics import mean_iou_score

CHANGED = {
    "depth": 4,
    "base_channels": 5,
    "patch_size": 1,
    "block": "plain",
    "skip": "add",
    "attention": False,
    "aspp": False,
    "dilation_rates": (1, 3),
    "dropout": 0.25,
    "loss": "focal+dice",
    "loss_params": {"gamma": 1.0},
    "class_weight": {0: 1.0},
    "max_class_weight": 7.0,
    "ignore_label": 0,
    "learning_rate": 0.1,
    "weight_decay": 0.2,
    "batch_size": 3,
    "max_epochs": 4,
    "ema_decay": 0.9,
    "scheduler": "plateau",
    "scheduler_params": {"patience": 2},
    "time_limit": 5.0,
    "validation_fraction": None,
    "early_stopping": True,
    "patience": 6,
    "calibration": "temperature",
    "freeze": "encoder",
    "fine_tune_epochs": 8,
    "fine_tune_learning_rate": 0.3,
    "augmentation": Augmenter(contrast=0.2),
    "tta": False,
    "window": (32, 48),
    "overlap": 0.5,
    "device": "cpu",
    "precision": "bfloat16",
    "compile": False,
    "n_threads": 1,
    "warm_start": True,
    "random_state": 9,
    "verbose": 1,
    "callbacks": [],
}


@pytest.fixture(scope="module")
def fitted(terrain):
    segmenter = MarsSegmenter(
        depth=2,
        base_channels=4,
        max_epochs=3,
        learning_rate=0.01,
        batch_size=8,
        precision="float32",
        random_state=0,
        n_threads=1,
    )
    return segmenter.fit(*terrain)


def state_of(segmenter):
    state = segmenter.net_.module_.state_dict()
    return {name: value.clone() for name, value in state.items()}


def same_state(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def assert_close_states(one, other):
    """The same up to rounding errors, which strides in memory can change."""
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=2e-3)


# Parameters


def test_constructor_takes_keywords_only_and_only_stores_them():
    kinds = {p.kind for p in inspect.signature(MarsSegmenter).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}
    wrong = {name: object() for name in CHANGED}
    segmenter = MarsSegmenter(**wrong)
    assert vars(segmenter) == wrong
    assert all(getattr(segmenter, name) is value for name, value in wrong.items())


def test_every_parameter_is_known_to_these_tests():
    assert set(MarsSegmenter().get_params(deep=False)) == set(CHANGED)


def test_get_and_set_params_round_trip():
    segmenter = MarsSegmenter()
    defaults = segmenter.get_params(deep=False)
    assert all(defaults[name] != value for name, value in CHANGED.items())
    assert segmenter.set_params(**CHANGED) is segmenter
    assert segmenter.get_params(deep=False) == CHANGED
    assert segmenter.set_params(**defaults).get_params(deep=False) == defaults


def test_unknown_parameter_cannot_be_set():
    with pytest.raises(ValueError, match="unheard_of"):
        MarsSegmenter().set_params(unheard_of=1)
    with pytest.raises(TypeError, match="unheard_of"):
        MarsSegmenter(unheard_of=1)


@pytest.mark.parametrize("augmentation", ["auto", None])
def test_parameters_of_an_augmenter_need_one(augmentation):
    segmenter = MarsSegmenter(augmentation=augmentation)
    message = rf"augmentation={augmentation!r} has no .* set augmentation=Augmenter\(...\) first"
    with pytest.raises(ValueError, match=message):
        segmenter.set_params(depth=2, augmentation__brightness=0.1)
    assert segmenter.get_params()["depth"] == MarsSegmenter().depth
    for names in (
        ["augmentation", "augmentation__brightness"],
        ["augmentation__brightness", "augmentation"],
    ):
        params = {"augmentation": Augmenter(contrast=0.5), "augmentation__brightness": 0.1}
        segmenter = MarsSegmenter(augmentation=augmentation)
        assert segmenter.set_params(**{name: params[name] for name in names}) is segmenter
        assert segmenter.augmentation.brightness == 0.1
        assert segmenter.augmentation.contrast == 0.5
    segmenter.set_params(augmentation__brightness=0.2)
    assert segmenter.augmentation.brightness == 0.2
    with pytest.raises(ValueError, match="augmentation=None has no parameters of its own"):
        segmenter.set_params(augmentation__brightness=0.1, augmentation=None)


def test_parameters_of_what_has_none_cannot_be_set():
    segmenter = MarsSegmenter(loss="focal")
    with pytest.raises(ValueError, match=r"loss='focal' has no .*: loss__gamma cannot be set"):
        segmenter.set_params(loss__gamma=1.0)
    with pytest.raises(ValueError, match="Invalid parameter 'unheard_of'"):
        segmenter.set_params(unheard_of__gamma=1.0)


def test_fit_changes_no_parameter(terrain, fast):
    params = {
        **fast,
        "loss": "focal+dice",
        "loss_params": {"gamma": 1.0},
        "class_weight": {0: 2.0},
        "scheduler_params": {"final": 0.1},
        "dilation_rates": [1, 2],
        "callbacks": [Callback()],
        "freeze": "encoder",
        "fine_tune_epochs": 1,
    }
    segmenter = MarsSegmenter(**params)
    before = dict(segmenter.get_params())
    segmenter.fit(*terrain).partial_fit(*terrain)
    assert all(segmenter.get_params()[name] is value for name, value in before.items())
    assert params["loss_params"] == {"gamma": 1.0}
    assert params["class_weight"] == {0: 2.0}
    assert params["scheduler_params"] == {"final": 0.1}
    assert params["dilation_rates"] == [1, 2]
    assert len(params["callbacks"]) == 1


def test_parameters_are_checked_in_fit_and_not_before(terrain):
    segmenter = MarsSegmenter(depth=77)
    segmenter.set_params(skip="teleport")
    repr(segmenter)
    with pytest.raises(ValueError, match=r"depth|skip"):
        segmenter.fit(*terrain)


def test_representations(fitted):
    html = estimator_html_repr(fitted)
    assert "MarsSegmenter" in html
    assert "fitted" in html
    assert fitted._repr_html_()
    assert re.fullmatch(r"MarsSegmenter\(.*\)", repr(fitted), flags=re.DOTALL)
    assert repr(MarsSegmenter()) == "MarsSegmenter()"


def test_is_neither_a_classifier_nor_a_regressor():
    # Scores and splits made for those do not understand masks.
    assert not is_classifier(MarsSegmenter())
    assert not is_regressor(MarsSegmenter())


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score", "save", "export_onnx"])
def test_nothing_works_before_fit(method, terrain, tmp_path):
    X, y = terrain
    path = (tmp_path / "file",)
    arguments = {"score": (X, y), "save": path, "export_onnx": path}.get(method, (X,))
    with pytest.raises(NotFittedError):
        getattr(MarsSegmenter(), method)(*arguments)
    assert not any(tmp_path.iterdir())


def test_fitted_is_what_was_fitted(terrain, fast):
    segmenter = MarsSegmenter(**fast)
    segmenter.fit(*terrain)
    check_is_fitted(segmenter)


# Prediction


def test_probabilities_and_labels_agree(fitted, terrain):
    X, _ = terrain
    proba = fitted.predict_proba(X)
    assert proba.shape == (24, 5, 32, 48)
    assert proba.dtype == np.float32
    assert proba.min() >= 0
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-5)
    labels = fitted.predict(X)
    assert labels.shape == (24, 32, 48)
    np.testing.assert_array_equal(labels, fitted.classes_[proba.argmax(axis=1)])


def test_predictions_are_those_of_every_image_alone(fitted, terrain):
    X, _ = terrain
    alone = np.concatenate([fitted.predict_proba(image[None]) for image in X])
    np.testing.assert_allclose(fitted.predict_proba(X), alone, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 5, 24, 1000])
@pytest.mark.parametrize("tta", [False, True])
def test_prediction_does_not_depend_on_the_batch_size(batch_size, tta, fitted, terrain):
    X, _ = terrain
    try:
        fitted.set_params(tta=tta)
        expected = fitted.predict_proba(X)
        fitted.set_params(batch_size=batch_size)
        np.testing.assert_allclose(fitted.predict_proba(X), expected, atol=1e-5)
        agreement = np.mean(fitted.predict(X) == expected.argmax(axis=1))
        assert agreement > 0.9999
    finally:
        fitted.set_params(batch_size=8, tta=True)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (31, 47), (64, 128), (77, 20)])
def test_images_of_another_size_than_in_training(size, fitted):
    X = np.random.default_rng(0).integers(0, 255, (2, *size), dtype=np.uint8)
    assert fitted.predict(X).shape == (2, *size)
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1, atol=1e-5)


def test_list_of_images_of_different_sizes(fitted, terrain):
    X, y = terrain
    sizes = [(32, 48), (20, 30), (32, 48), (1, 5), (20, 30)]
    images = [image[:h, :w] for image, (h, w) in zip(X, sizes, strict=False)]
    masks = [mask[:h, :w] for mask, (h, w) in zip(y, sizes, strict=False)]
    labels, proba = fitted.predict(images), fitted.predict_proba(images)
    assert isinstance(labels, list)
    assert isinstance(proba, list)
    for image, label, p in zip(images, labels, proba, strict=True):
        np.testing.assert_allclose(p, fitted.predict_proba(image[None])[0], atol=1e-5)
        np.testing.assert_array_equal(label, fitted.classes_[p.argmax(axis=0)])
    expected = mean_iou_score(masks, labels, labels=fitted.classes_)
    assert fitted.score(images, masks) == pytest.approx(expected)


def test_list_of_images_of_one_size_comes_back_as_a_list(fitted, terrain):
    X, y = terrain
    labels = fitted.predict(list(X))
    assert isinstance(labels, list)
    np.testing.assert_array_equal(np.stack(labels), fitted.predict(X))
    assert fitted.score(list(X), list(y)) == pytest.approx(fitted.score(X, y))


def test_list_may_mix_images_with_and_without_a_channel_axis(fitted, terrain):
    X, _ = terrain
    labels = fitted.predict([X[0], X[1][:, :, None], X[2].astype(np.float32)])
    np.testing.assert_array_equal(np.stack(labels), fitted.predict(X[:3]))


def test_tta_is_indifferent_to_mirror_images(fitted, terrain):
    X, _ = terrain
    proba, mirrored = fitted.predict_proba(X), fitted.predict_proba(X[:, :, ::-1])
    np.testing.assert_allclose(mirrored[..., ::-1], proba, atol=1e-5)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-5)
    # Without it, they do matter.
    fitted.set_params(tta=False)
    try:
        plain, mirrored = fitted.predict_proba(X), fitted.predict_proba(X[:, :, ::-1])
    finally:
        fitted.set_params(tta=True)
    assert np.abs(mirrored[..., ::-1] - plain).max() > 1e-3


def test_tta_is_the_mean_over_image_and_mirror_image(fitted, terrain):
    X = terrain[0][:4]
    proba, labels = fitted.predict_proba(X), fitted.predict(X)
    fitted.set_params(tta=False)
    try:
        parts = [fitted.predict_proba(X), fitted.predict_proba(X[:, :, ::-1])[..., ::-1]]
    finally:
        fitted.set_params(tta=True)
    np.testing.assert_allclose(proba, np.mean(parts, axis=0), atol=1e-5)
    assert np.mean(labels == fitted.classes_[proba.argmax(axis=1)]) > 0.9999


@pytest.mark.parametrize(
    "dtype",
    [
        bool,
        np.int8,
        np.uint16,
        np.uint32,
        np.uint64,
        np.int64,
        np.float16,
        np.float64,
        np.longdouble,
    ],
)
def test_images_of_every_real_dtype(dtype, terrain, fast):
    X, y = terrain[0][:6], terrain[1][:6]
    images = (X > 100 if dtype is bool else X // 2).astype(dtype)
    same = images.astype(np.float32)
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 1}).fit(images, y)
    reference = MarsSegmenter(**{**fast, "max_epochs": 1}).fit(same, y)
    for tta in (False, True):
        actual = segmenter.set_params(tta=tta).predict_proba(images)
        expected = reference.set_params(tta=tta).predict_proba(same)
        np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_colour_images(terrain, fast):
    X, y = terrain
    rgb = np.stack([X, 255 - X, X // 2], axis=-1)
    segmenter = MarsSegmenter(**fast).fit(rgb, y)
    assert segmenter.n_channels_in_ == 3
    assert segmenter.mean_.shape == segmenter.scale_.shape == (3,)
    assert segmenter.predict(rgb).shape == y.shape
    assert segmenter.predict([rgb[0], rgb[1, :9]])[1].shape == (9, 48)
    # The channels are told apart.
    assert not np.array_equal(
        segmenter.predict_proba(rgb), segmenter.predict_proba(rgb[..., ::-1])
    )


def test_one_channel_may_have_an_axis_or_none(terrain, fast):
    X, y = terrain
    with_axis = MarsSegmenter(**fast).fit(X[..., None], y)
    without = MarsSegmenter(**fast).fit(X, y)
    assert_close_states(state_of(with_axis), state_of(without))
    np.testing.assert_array_equal(without.predict(X), without.predict(X[..., None]))


# Score


def test_score_is_the_mean_iou(fitted, terrain):
    X, y = terrain
    assert fitted.score(X, y) == mean_iou_score(y, fitted.predict(X), labels=fitted.classes_)


@pytest.mark.parametrize("shape", [(24,), (24, 32, 48)])
def test_score_with_weights(shape, fitted, terrain):
    X, y = terrain
    weight = np.random.default_rng(0).uniform(0, 3, shape)
    expected = mean_iou_score(y, fitted.predict(X), labels=fitted.classes_, sample_weight=weight)
    assert fitted.score(X, y, sample_weight=weight) == expected
    assert expected != fitted.score(X, y)


def test_score_with_weights_of_0_and_1_is_that_of_some_images(fitted, terrain):
    X, y = terrain
    some = np.arange(24) % 3 == 0
    assert fitted.score(X, y, sample_weight=some) == pytest.approx(fitted.score(X[some], y[some]))


def test_score_leaves_ignored_pixels_out(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast, ignore_label=0).fit(X, y)
    labelled = y != 0
    expected = mean_iou_score(
        y[labelled][None, None], segmenter.predict(X)[labelled][None, None], labels=[1, 2, 3, 4]
    )
    assert segmenter.score(X, y) == pytest.approx(expected)


# Arrays as they come


def test_read_only_arrays_cause_no_warning(terrain, fast):
    X, y = (array.copy() for array in terrain)
    X.flags.writeable = y.flags.writeable = False
    # torch warns of what it might write into, by default once in a process.
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            segmenter = MarsSegmenter(**fast).fit(X, y)
            segmenter.predict(X)
            segmenter.score(X, y)
    finally:
        torch.set_warn_always(always)


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_masks_with_an_ignored_label_are_not_modified(dtype, terrain, fast):
    X, y = terrain[0], terrain[1].astype(dtype)
    before = y.copy()
    segmenter = MarsSegmenter(**fast, ignore_label=0).fit(X, y, validation_data=(X, y))
    segmenter.score(X, y)
    segmenter.partial_fit(X, y)
    np.testing.assert_array_equal(y, before)


# To go on


def test_refitting_begins_a_new_history(terrain, fast):
    segmenter = MarsSegmenter(**fast).fit(*terrain).fit(*terrain)
    assert [row["epoch"] for row in segmenter.history_] == [1, 2]
    assert segmenter.n_iter_ == 2


def test_warm_start_goes_on(terrain, fast):
    params = {**fast, "max_epochs": 6, "learning_rate": 0.01, "warm_start": True}
    segmenter = MarsSegmenter(**params).fit(*terrain)
    first = segmenter.history_[0]["train_loss"]
    segmenter.set_params(max_epochs=2).fit(*terrain)
    assert len(segmenter.history_) == segmenter.n_iter_ == 8
    assert [row["epoch"] for row in segmenter.history_] == list(range(1, 9))
    assert segmenter.history_[6]["train_loss"] < 0.9 * first
    assert 6 <= segmenter.best_epoch_ < 8


def test_warm_start_begins_with_the_weights_and_the_scaling_there_are(terrain, fast):
    X, y = terrain
    seen = []

    class Spy(Callback):
        def on_epoch_begin(self, net, **kwargs):
            state = net.module_.state_dict()
            seen.append({name: value.clone() for name, value in state.items()})

    segmenter = MarsSegmenter(**fast, warm_start=True, callbacks=[Spy()]).fit(X, y)
    before = state_of(segmenter)
    mean, scale = segmenter.mean_.copy(), segmenter.scale_.copy()
    segmenter.fit(255 - X[:20], y[:20])
    assert same_state(before, seen[2])
    np.testing.assert_array_equal(segmenter.mean_, mean)
    np.testing.assert_array_equal(segmenter.scale_, scale)


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 3},
        {"base_channels": 5},
        {"block": "plain"},
        {"skip": "add"},
        {"attention": False},
        {"aspp": False},
        {"dilation_rates": (1, 2, 3)},
    ],
    ids=str,
)
def test_warm_start_needs_the_same_net(change, terrain, fast):
    segmenter = MarsSegmenter(**fast, warm_start=True).fit(*terrain)
    before = state_of(segmenter)
    with pytest.raises(ValueError, match="warm_start"):
        segmenter.set_params(**change).fit(*terrain)
    assert same_state(before, state_of(segmenter))
    assert len(segmenter.history_) == 2


def test_warm_start_accepts_the_same_dilation_rates_as_a_list(terrain, fast):
    segmenter = MarsSegmenter(**fast, warm_start=True, dilation_rates=(1, 2)).fit(*terrain)
    assert segmenter.set_params(dilation_rates=[1, 2]).fit(*terrain).n_iter_ == 4


def test_warm_start_needs_the_same_classes_and_channels(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast, warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="warm_start"):
        segmenter.fit(X, y % 2)
    with pytest.raises(ValueError, match="warm_start"):
        segmenter.fit(np.stack([X, X], axis=-1), y)
    segmenter.predict(X)


def test_first_fit_with_warm_start_is_a_fit(terrain, fast):
    fits = [MarsSegmenter(**fast, warm_start=warm).fit(*terrain) for warm in (True, False)]
    assert same_state(*map(state_of, fits))


def test_partial_fit_goes_on_with_some_images(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**{**fast, "learning_rate": 0.01})
    assert segmenter.partial_fit(X[:8], y[:8], classes=range(5)) is segmenter
    assert segmenter.classes_.tolist() == [0, 1, 2, 3, 4]
    mean = segmenter.mean_.copy()
    for _ in range(7):
        segmenter.partial_fit(X[8:], y[8:])
    np.testing.assert_array_equal(segmenter.mean_, mean)
    assert [row["phase"] for row in segmenter.history_] == ["partial_fit"] * 8
    assert {row["learning_rate"] for row in segmenter.history_} == {0.01}
    assert segmenter.history_[-1]["train_loss"] < 0.9 * segmenter.history_[1]["train_loss"]
    assert segmenter.best_epoch_ == 7
    assert segmenter.predict(X).shape == y.shape


def test_partial_fit_after_fit(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast, class_weight="balanced").fit(X, y)
    before = state_of(segmenter)
    weights = segmenter.class_weight_.copy()
    segmenter.partial_fit(X[:5], y[:5])
    assert not same_state(before, state_of(segmenter))
    np.testing.assert_array_equal(segmenter.class_weight_, weights)
    assert segmenter.n_iter_ == len(segmenter.history_) == 3


def test_partial_fit_takes_the_parameters_there_are_now(terrain, fast):
    changes = {
        "batch_size": 3,
        "loss": "dice",
        "weight_decay": 0.9,
        "learning_rate": 1e-3,
        "precision": "bfloat16",
    }
    fitted = pickle.dumps(MarsSegmenter(**fast).fit(*terrain))
    results = [state_of(pickle.loads(fitted).partial_fit(*terrain))]
    for name, value in changes.items():
        segmenter = pickle.loads(fitted).set_params(**{name: value})
        results.append(state_of(segmenter.partial_fit(*terrain)))
    assert segmenter.precision_ == "bfloat16"
    for one, other in itertools.combinations(results, 2):
        assert not same_state(one, other)


def test_partial_fit_refuses_another_net(terrain, fast):
    segmenter = MarsSegmenter(**fast).fit(*terrain).set_params(depth=3)
    with pytest.raises(ValueError, match="depth=2, not 3"):
        segmenter.partial_fit(*terrain)


def test_partial_fit_is_deterministic(terrain, fast):
    X, y = terrain
    fits = [MarsSegmenter(**fast, dropout=0.5) for _ in range(2)]
    for segmenter in fits:
        for part in (slice(0, 12), slice(12, 24)):
            segmenter.partial_fit(X[part], y[part], classes=[0, 1, 2, 3, 4])
    assert same_state(*map(state_of, fits))


def test_partial_fit_can_be_given_classes_that_are_not_there_yet(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast, ignore_label=9)
    segmenter.partial_fit(X, np.minimum(y, 2), classes=[0, 1, 2, 3, 4, 9])
    assert segmenter.classes_.tolist() == [0, 1, 2, 3, 4]
    segmenter.partial_fit(X, y)
    assert segmenter.predict_proba(X).shape[1] == 5


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 300], [-1, 0, 1, 2, 3], [0, 1, 2, 3, 256]])
def test_classes_may_exceed_the_dtype_of_the_masks(labels, terrain, fast):
    X, y = terrain
    small = np.clip(y, 0, 3)  # uint8, which cannot hold every class
    wide = MarsSegmenter(**fast).partial_fit(X, small.astype(np.int64), classes=labels)
    segmenter = MarsSegmenter(**fast).partial_fit(X, small, classes=labels)
    assert same_state(state_of(segmenter), state_of(wide))
    assert segmenter.classes_.tolist() == sorted(labels)


def test_partial_fit_uses_sample_weight(terrain, fast):
    X, y = terrain
    weight = np.repeat([1.0, 0.0], 12)
    wrong = y.copy()
    wrong[12:] = (wrong[12:] + 1) % 5
    fits = [MarsSegmenter(**fast).partial_fit(X, m, sample_weight=weight) for m in (y, wrong)]
    assert same_state(*map(state_of, fits))


# With scikit-learn's tools


def test_cross_validation(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast)
    folds = KFold(3, shuffle=True, random_state=0)
    scores = cross_val_score(segmenter, X, y, cv=folds, error_score="raise")
    train, test = next(folds.split(X))
    assert scores.shape == (3,)
    assert scores[0] == pytest.approx(
        clone(segmenter).fit(X[train], y[train]).score(X[test], y[test])
    )


def test_cross_validation_with_groups_and_prediction(terrain, fast):
    X, y = terrain
    groups = np.arange(24) // 4
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 1})
    y_pred = cross_val_predict(segmenter, X, y, cv=GroupKFold(2), groups=groups)
    assert y_pred.shape == y.shape


def test_grid_search(terrain, fast):
    X, y = terrain[0], np.minimum(terrain[1], 3)  # no class that a fold may lack
    grid = [{"learning_rate": [1e-9, 0.01]}, {"skip": ["add"], "learning_rate": [1e-9]}]
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 15})
    search = GridSearchCV(segmenter, grid, cv=KFold(2), error_score="raise").fit(X, y)
    assert search.best_params_["learning_rate"] == 0.01
    assert search.best_estimator_.learning_rate == 0.01
    assert search.predict(X).shape == y.shape
    assert search.score(X, y) == search.best_estimator_.score(X, y)


@pytest.mark.parametrize("prefix", ["", "segment__"])
def test_grid_search_over_an_augmenter_that_is_not_there(prefix, terrain, fast):
    segmenter = MarsSegmenter(**fast)
    estimator = Pipeline([("segment", segmenter)]) if prefix else segmenter
    search = GridSearchCV(estimator, {f"{prefix}augmentation__brightness": [0.0, 0.5]}, cv=2)
    with pytest.raises(ValueError, match=r"set augmentation=Augmenter\(...\) first"):
        search.fit(*terrain)


def test_pipeline(terrain, fast):
    X, y = terrain
    pipeline = make_pipeline(FunctionTransformer(np.sqrt), MarsSegmenter(**fast))
    pipeline.set_params(marssegmenter__skip="add").fit(X, y)
    expected = MarsSegmenter(**fast, skip="add").fit(np.sqrt(X), y)
    np.testing.assert_array_equal(pipeline.predict(X), expected.predict(np.sqrt(X)))
    assert pipeline.score(X, y) == expected.score(np.sqrt(X), y)
    assert "FunctionTransformer" in estimator_html_repr(pipeline)


def test_pipeline_passes_fit_arguments_on(terrain, fast):
    X, y = terrain
    weight = np.repeat([1.0, 0.0], 12)
    pipeline = Pipeline([("segment", MarsSegmenter(**fast, validation_fraction=None))])
    pipeline.fit(X, y, segment__sample_weight=weight)
    expected = MarsSegmenter(**fast, validation_fraction=None).fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(pipeline.predict(X), expected.predict(X))
