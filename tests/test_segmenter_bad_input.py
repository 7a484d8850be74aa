import math

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback, LRScheduler

from skmars import MarsSegmenter

N, H, W = 6, 8, 12


class NoTraining(Callback):
    def on_train_begin(self, net, **kwargs):
        raise AssertionError("training has started")


def make_data():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, (N, H, W), dtype=np.uint8)
    return X, rng.integers(0, 3, (N, H, W), dtype=np.uint8)


def make_segmenter(**params):
    fixed = {
        "depth": 2,
        "base_channels": 2,
        "max_epochs": 1,
        "precision": "float32",
        "random_state": 0,
        "n_threads": 1,
        "callbacks": [NoTraining()],
    }
    return MarsSegmenter(**{**fixed, **params})


def own_loss(logits, target):
    return torch.nn.functional.cross_entropy(logits, target)


def assert_rejected(
    segmenter, X, y, match, *, method="fit", errors=(ValueError, TypeError), **arguments
):
    with pytest.raises(errors, match=match) as info:
        getattr(segmenter, method)(X, y, **arguments)
    assert not hasattr(segmenter, "net_")
    assert not hasattr(segmenter, "history_")
    # A sentence about what was passed, rather than the innards of a library.
    assert len(str(info.value)) > 15
    with pytest.raises(NotFittedError):
        segmenter.predict(make_data()[0])


def with_value(array, value):
    array = array.astype(float)
    array[2, 3, 4] = value
    return array


ragged = [np.zeros((H, W)), np.zeros((H, W + 1))]

BAD_IMAGES = {
    "None": (lambda X: None, "X"),
    "a number": (lambda X: 3, "X must have shape"),
    "one image": (lambda X: X[0], r"2 dimensions.*\(8, 12\)"),
    "five dimensions": (lambda X: X[None, ..., None], "5 dimensions"),
    "a row of numbers": (lambda X: X.ravel(), "1 dimensions"),
    "no images": (lambda X: X[:0], "empty"),
    "no rows": (lambda X: X[:, :0], "empty"),
    "no columns": (lambda X: X[:, :, :0], "empty"),
    "no channels": (lambda X: X[..., None][..., :0], "empty"),
    "NaN": (lambda X: with_value(X, np.nan), "X contains NaN"),
    "infinity": (lambda X: with_value(X, np.inf), "X contains infinity"),
    "minus infinity": (lambda X: with_value(X, -np.inf), "X contains infinity"),
    "too large for double precision": (
        lambda X: (X + 1).astype(np.longdouble) * np.longdouble("1e400"),
        "X contains infinity",
    ),
    "NaN in half precision": (lambda X: with_value(X, np.nan).astype(np.float16), "NaN"),
    "complex": (lambda X: X.astype(complex), "real numbers.*complex"),
    "strings": (lambda X: X.astype(str), "real numbers"),
    "objects": (lambda X: X.astype(object), "real numbers.*object"),
    "dates": (lambda X: X.astype("datetime64[s]"), "real numbers"),
    "images of different sizes": (lambda X: ragged * 3, r"one size.*\(8, 12\)"),
    "a dict": (lambda X: {"images": X}, "X must have shape"),
}


# Both methods make the same checks: of partial_fit, one of each kind shows that it makes them.
SOME_IMAGES = ["one image", "no images", "NaN", "strings", "images of different sizes"]


@pytest.mark.parametrize(
    ("method", "name"),
    [*(("fit", name) for name in BAD_IMAGES), *(("partial_fit", name) for name in SOME_IMAGES)],
)
def test_bad_images_are_refused(method, name):
    change, match = BAD_IMAGES[name]
    X, y = make_data()
    assert_rejected(make_segmenter(), change(X), y, match, method=method)


BAD_MASKS = {
    "None": (lambda y: None, "y must be masks"),
    "too few": (lambda y: y[:-1], r"\(6, 8, 12\).*\(5, 8, 12\)"),
    "too many": (lambda y: np.concatenate([y, y]), r"\(6, 8, 12\).*\(12, 8, 12\)"),
    "other height": (lambda y: y[:, :-1], r"\(6, 8, 12\).*\(6, 7, 12\)"),
    "other width": (lambda y: y[:, :, :-1], r"\(6, 8, 12\).*\(6, 8, 11\)"),
    "transposed": (lambda y: y.transpose(0, 2, 1), "shape"),
    "one label an image": (lambda y: y[:, 0, 0], "shape"),
    "one-hot": (lambda y: np.eye(3)[y], "shape"),
    "one mask": (lambda y: y[0], "shape"),
    "empty": (lambda y: y[:0], "shape"),
    "fractions": (lambda y: y + 0.5, "integer"),
    "one fraction": (lambda y: with_value(y, 0.25), "integer"),
    "NaN": (lambda y: with_value(y, np.nan), "y contains NaN"),
    "infinity": (lambda y: with_value(y, np.inf), "y contains infinity"),
    "strings": (lambda y: np.array(["sky", "soil", "rock"])[y], "integer"),
    "objects": (lambda y: y.astype(object), "integer.*object"),
    "complex": (lambda y: y.astype(complex), "integer"),
    "one class only": (lambda y: np.full_like(y, 7), r"2 classes.*\[7\]"),
    "masks of different sizes": (lambda y: ragged * 3, "one size"),
}


SOME_MASKS = ["None", "too few", "one fraction", "NaN", "strings", "one class only"]


@pytest.mark.parametrize(
    ("method", "name"),
    [*(("fit", name) for name in BAD_MASKS), *(("partial_fit", name) for name in SOME_MASKS)],
)
def test_bad_masks_are_refused(method, name):
    change, match = BAD_MASKS[name]
    X, y = make_data()
    assert_rejected(make_segmenter(), X, change(y), match, method=method)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_nothing_left_to_learn_from(method):
    X, y = make_data()
    all_ignored = make_segmenter(ignore_label=7)
    assert_rejected(all_ignored, X, np.full_like(y, 7), "ignore_label=7", method=method)
    one_left = make_segmenter(ignore_label=0)
    assert_rejected(one_left, X, np.minimum(y, 1), r"2 classes.*\[1\]", method=method)


def test_first_part_without_a_labelled_pixel():
    X, y = make_data()
    y[:] = 7
    segmenter = make_segmenter(ignore_label=7)
    with np.errstate(all="raise"):
        assert_rejected(segmenter, X, y, "label", method="partial_fit", classes=[0, 1])


@pytest.mark.parametrize("n", [1, 2])
def test_one_image_cannot_be_split(n):
    X, y = make_data()
    groups = np.zeros(n)
    assert_rejected(make_segmenter(), X[:n], y[:n], "cannot hold out", groups=groups)


def test_one_image_needs_no_split_without_validation():
    X, y = make_data()
    make_segmenter(validation_fraction=None, callbacks=None).fit(X[:1], y[:1])


# Hyperparameters

OUT_OF_RANGE = {
    "depth": [0, 1, 6, 2.5, "3", None, -1],
    "base_channels": [0, -4, 2.5, "16", None],
    "patch_size": [0, 3, 4, 2.0, "2", None],
    "block": ["dense", None, 1, "Residual"],
    "skip": ["multiply", None, 0],
    "attention": ["yes", None, 2.0],
    "aspp": ["yes", None],
    "dilation_rates": [(), [], (0,), (1, -2), (1.5,), ("1",), 3, "1, 2", None],
    "dropout": [-0.1, 1.0, 1.5, math.nan, "0.1", None],
    "loss": ["hinge", "", "focal+", "focal+hinge", "focal + + dice", "dice+dice", None, 3],
    "loss_params": [3, "gamma", [("gamma", 2)]],
    "class_weight": ["heavy", 3.0, [1, 2, 3]],
    "max_class_weight": [0, -1.0, math.nan, "3"],
    "ignore_label": [1.5, "0", math.nan],
    "learning_rate": [0, -1e-3, math.nan, math.inf, "fast", None],
    "weight_decay": [-0.1, math.nan, math.inf, None],
    "batch_size": [0, -1, 2.5, None, "all"],
    "max_epochs": [0, -1, 1.5, None],
    "ema_decay": [-0.1, 1.0, 2, "0.9"],
    "scheduler": ["linear", 0, "Cosine"],
    "scheduler_params": [3, "warmup"],
    "time_limit": [0, -1, 0.0, math.nan, math.inf, "60"],
    "validation_fraction": [0, 0.0, 1.0, 1, -0.1, 1.5, math.nan, "0.1"],
    "early_stopping": ["yes", None],
    "patience": [0, -1, 1.5, None],
    "calibration": ["isotonic", True, 2.0],
    "freeze": ["head", "bottleneck", True, "Encoder"],
    "fine_tune_epochs": [0, -1, 1.5, None],
    "fine_tune_learning_rate": [0, -1e-3, math.nan, math.inf, None],
    "augmentation": ["flip", True, 0.5],
    "tta": ["yes", None],
    "window": [8, "8,8", (8,), (8, 8, 8), (8, 3), (8.0, 8), (0, 8), ("8", 8), ()],
    "overlap": [-0.1, 1, 1.5, math.nan, "0.1", None],
    "device": ["warp", "meta", "cuda:999", "cpu:x", "", None, 3],
    "precision": ["float16", "double", None, 32],
    "compile": ["yes", None, 2.0],
    "n_threads": [0, -1, 1.5, None, "all"],
    "warm_start": ["yes", None],
    "random_state": [-1, 1.5, "0", np.random.default_rng(0)],
    "verbose": [-1, "yes", None],
    "callbacks": [3, "stop"],
}


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        *(("fit", name, value) for name, values in OUT_OF_RANGE.items() for value in values),
        *(("partial_fit", name, values[0]) for name, values in OUT_OF_RANGE.items()),
    ],
)
def test_hyperparameter_out_of_range(method, name, value):
    X, y = make_data()
    assert_rejected(make_segmenter(**{name: value}), X, y, name, method=method)


def test_every_hyperparameter_has_been_out_of_range():
    assert set(OUT_OF_RANGE) == set(MarsSegmenter().get_params())


@pytest.mark.parametrize("value", [np.int64(2), np.int32(3), 2])
def test_numbers_of_numpy_are_numbers(value):
    X, y = make_data()
    segmenter = make_segmenter(
        depth=value, learning_rate=np.float32(0.01), attention=np.True_, callbacks=None
    )
    assert segmenter.fit(X, y).depth is value


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"loss": "focal", "loss_params": {"gama": 2.0}}, r"gama"),
        ({"loss": "focal", "loss_params": {"gamma": -1.0}}, "gamma"),
        ({"loss": "focal", "loss_params": {"gamma": math.nan}}, "gamma"),
        ({"loss": "focal", "loss_params": {"gamma": "2"}}, "gamma"),
        ({"loss": "focal", "loss_params": {"smooth": 1.0}}, "smooth"),
        ({"loss": "focal+dice", "loss_params": {"dice_weight": -1}}, "dice_weight"),
        ({"loss": "focal", "loss_params": {"dice_weight": 1}}, "dice_weight"),
        ({"loss": "focal", "loss_params": {3: 1}}, "3|strings"),
        ({"loss_params": {"gamma": 2.0}}, "gamma"),
        ({"scheduler_params": {"factor": 0.5}}, "scheduler_params.*cosine"),
        ({"scheduler_params": {"warmup": 1.0}}, "warmup"),
        ({"scheduler_params": {"warmup": "x"}}, "scheduler_params|warmup"),
        ({"scheduler": "plateau", "scheduler_params": {"warmup": 0.1}}, "scheduler_params"),
        ({"scheduler": "plateau", "scheduler_params": {"factor": 2}}, "factor"),
        ({"scheduler": None, "scheduler_params": {"warmup": 0.1}}, "scheduler_params"),
        ({"loss": own_loss, "class_weight": "balanced"}, "callable loss.*class_weight"),
        ({"loss": own_loss, "class_weight": {0: 2.0}}, "callable loss.*class_weight"),
        ({"loss": own_loss, "loss_params": {"gamma": 2.0}}, "callable loss.*loss_params"),
        ({"loss": torch.nn.CrossEntropyLoss}, r"CrossEntropyLoss\(\), not the class"),
        ({"callbacks": [LRScheduler()]}, "scheduler"),
        ({"callbacks": [LRScheduler]}, "scheduler"),
        ({"callbacks": [3]}, "skorch callbacks, got 3"),
        ({"callbacks": [("rate", LRScheduler())]}, "scheduler"),
        ({"class_weight": {9: 2.0}}, r"class_weight.*\[9\].*\[0, 1, 2\]"),
        ({"class_weight": {0: 2.0, "sky": 1.0}}, "class_weight.*sky"),
        ({"class_weight": {0: -1.0}}, "class_weight"),
        ({"class_weight": {0: math.nan}}, "class_weight"),
        ({"class_weight": {0: math.inf}}, "class_weight"),
        ({"class_weight": {0: "heavy"}}, "class_weight|heavy"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, "class_weight"),
        ({"class_weight": {0: 2.0}, "ignore_label": 0}, r"class_weight.*\[0\]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_hyperparameters_that_do_not_go_together(params, match):
    X, y = make_data()
    assert_rejected(make_segmenter(**params), X, y, match)


@pytest.mark.parametrize("class_weight", ["balanced", "sqrt"])
def test_frequencies_of_a_part_are_not_those_of_all(class_weight):
    X, y = make_data()
    segmenter = make_segmenter(class_weight=class_weight)
    assert_rejected(segmenter, X, y, "class_weight", method="partial_fit")


@pytest.mark.parametrize(
    ("classes", "match"),
    [
        ([0], r"classes must have at least 2 classes, got only \[0\]"),
        ([], "classes must have at least 2 labels, got none"),
        ([0, 1], r"y has labels \[2\] that are not among the classes \[0, 1\]"),
        ([3, 4], r"y has labels \[0, 1, 2\] that are not among the classes \[3, 4\]"),
        ([0, 1, math.nan], "classes contains NaN"),
        ([0, 1, 2, math.inf], "classes contains infinity"),
        ([0, 1, 2, 2.5], "classes must hold integer labels, got fractions"),
        ([0.5, 1.5, 2.5, 3.5], "classes must hold integer labels, got fractions"),
        (["sky", "soil"], "classes must hold integer labels, got dtype"),
    ],
)
def test_bad_classes_are_refused(classes, match):
    X, y = make_data()
    arguments = {"method": "partial_fit", "classes": classes}
    assert_rejected(make_segmenter(), X, y.astype(np.int64), match, **arguments)


# Further arguments of fit


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (np.ones(N - 1), r"sample_weight.*\(6,\).*\(5,\)"),
        (np.ones((N, 1)), "sample_weight.*shape"),
        (np.ones((N, H, W + 1)), "sample_weight.*shape"),
        (np.ones((N, W, H)), "sample_weight.*shape"),
        (1.0, "sample_weight.*shape"),
        (-np.ones(N), "sample_weight.*at least 0"),
        (np.r_[np.ones(N - 1), -1e-9], "sample_weight.*at least 0"),
        (np.r_[np.ones(N - 1), np.nan], "sample_weight.*finite"),
        (np.r_[np.ones(N - 1), np.inf], "sample_weight.*finite"),
        (np.full((N, H, W), np.nan), "sample_weight.*finite"),
        (np.zeros(N), "sample_weight.*not 0 everywhere"),
        (np.full(N, 1e-50), "sample_weight.*not 0 everywhere"),
        (np.full(N, 1e50), "sample_weight.*finite"),
        (["heavy"] * N, "sample_weight|heavy"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_bad_sample_weights_are_refused(weight, match, method):
    X, y = make_data()
    assert_rejected(make_segmenter(), X, y, match, method=method, sample_weight=weight)


def test_callable_loss_takes_no_sample_weight():
    X, y = make_data()
    segmenter = make_segmenter(loss=own_loss)
    assert_rejected(segmenter, X, y, "callable loss.*sample_weight", sample_weight=np.ones(N))


@pytest.mark.parametrize("groups", [np.arange(N - 1), np.arange(N + 1), [], 3])
def test_groups_of_another_length(groups):
    X, y = make_data()
    assert_rejected(make_segmenter(), X, y, r"groups must have shape \(6,\)", groups=groups)


def test_groups_of_two_dimensions():
    X, y = make_data()
    groups = np.arange(2 * N).reshape(N, 2)
    assert_rejected(make_segmenter(), X, y, "groups", groups=groups)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda X, y: (X,), "pair"),
        (lambda X, y: (X, y, None, y), "pair"),
        (lambda X, y: X, "pair"),
        (lambda X, y: 3, "pair"),
        (lambda X, y: {"X": X, "y": y}, "pair"),
        (lambda X, y: (X[0], y[0]), r"validation_data\[0\]"),
        (lambda X, y: (X[:0], y[:0]), r"validation_data\[0\].*empty"),
        (lambda X, y: (X, y[:-1]), r"validation_data\[1\]"),
        (lambda X, y: (X, y[:, :-1]), r"validation_data\[1\]"),
        (lambda X, y: (X, None), r"validation_data\[1\]"),
        (lambda X, y: (X, y + 0.5), r"validation_data\[1\].*integer"),
        (lambda X, y: (X, with_value(y, np.nan)), r"validation_data\[1\].*NaN"),
        (lambda X, y: (with_value(X, np.nan), y), r"validation_data\[0\].*NaN"),
        (lambda X, y: (np.stack([X, X], axis=-1), y), r"validation_data\[0\].*channels"),
        (lambda X, y: (X, y + 1), r"validation_data\[1\].*\[3\].*\[0, 1, 2\]"),
        (lambda X, y: (X, with_value(y, -1)), r"validation_data\[1\].*\[-1"),
        (lambda X, y: (X, y.astype(str)), r"validation_data\[1\].*integer"),
    ],
)
def test_bad_validation_data_are_refused(change, match):
    X, y = make_data()
    assert_rejected(make_segmenter(), X, y, match, validation_data=change(X, y))


@pytest.mark.parametrize("of_pixels", [True, False])
@pytest.mark.parametrize("how", ["held out", "validation_data", "no validation", "partial_fit"])
def test_weights_only_where_there_are_no_labels(how, of_pixels):
    X, y = make_data()
    y[0] = 9
    weight = np.r_[1.0, np.zeros(len(X) - 1)]
    if of_pixels:
        weight = (y == 9).astype(float)
    fraction = 0.4 if how == "held out" else None
    segmenter = make_segmenter(
        ignore_label=9, validation_fraction=fraction, class_weight=None, loss="focal"
    )
    given = {"sample_weight": weight}
    if how == "validation_data":
        given["validation_data"] = (X[1:], y[1:])
    method = "partial_fit" if how == "partial_fit" else "fit"
    assert_rejected(segmenter, X, y, "sample_weight is 0 wherever", method=method, **given)


# A segmenter that has been fitted


@pytest.fixture(scope="module")
def fitted():
    return make_segmenter(callbacks=None).fit(*make_data())


# Prediction takes lists of images of different sizes.
@pytest.mark.parametrize("name", [n for n in BAD_IMAGES if n != "images of different sizes"])
@pytest.mark.parametrize("method", ["predict", "predict_proba", "score"])
def test_images_that_cannot_be_predicted(name, method, fitted):
    change, match = BAD_IMAGES[name]
    X, y = make_data()
    arguments = (change(X), y) if method == "score" else (change(X),)
    with pytest.raises((ValueError, TypeError), match=match):
        getattr(fitted, method)(*arguments)


@pytest.mark.parametrize("name", [n for n in BAD_MASKS if n != "one class only"])
def test_masks_that_cannot_be_scored(name, fitted):
    change, match = BAD_MASKS[name]
    X, y = make_data()
    with pytest.raises((ValueError, TypeError), match=match):
        fitted.score(X, change(y))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score", "partial_fit"])
@pytest.mark.parametrize("n_channels", [2, 3, 4])
def test_another_number_of_channels(method, n_channels, fitted):
    X, y = make_data()
    X = np.repeat(X[..., None], n_channels, axis=-1)
    arguments = (X,) if method.startswith("predict") else (X, y)
    with pytest.raises(ValueError, match=f"{n_channels} channels.*trained on images with 1"):
        getattr(fitted, method)(*arguments)


@pytest.mark.parametrize("method", ["score", "partial_fit"])
def test_labels_outside_of_the_classes(method, fitted):
    X, y = make_data()
    y[0, 0, 0] = 200
    with pytest.raises(ValueError, match=r"\[200\].*\[0, 1, 2\]"):
        getattr(fitted, method)(X, y)


@pytest.mark.parametrize(
    "images",
    [
        [np.zeros((H, W)), np.zeros(W)],
        [np.zeros((H, W)), np.zeros((H, W, 2))],
        [np.zeros((H, W)), np.zeros((0, W))],
        [np.zeros((H, W)), np.full((H, W), np.nan)],
        [],
    ],
    ids=["one dimension", "two channels", "empty", "NaN", "no images"],
)
def test_lists_with_a_wrong_image(images, fitted):
    with pytest.raises(ValueError, match="X"):
        fitted.predict(images)


def test_lists_of_different_lengths(fitted):
    X, y = make_data()
    with pytest.raises(ValueError, match=r"6 images.*5 masks"):
        fitted.score(list(X), list(y)[:5])
    with pytest.raises(ValueError, match="shape"):
        fitted.score(list(X), [mask[:-1] for mask in y])


@pytest.mark.parametrize("weight", [np.ones(N - 1), -np.ones(N), np.full(N, np.nan)])
def test_score_refuses_bad_weights(weight, fitted):
    X, y = make_data()
    with pytest.raises(ValueError, match="sample_weight"):
        fitted.score(X, y, sample_weight=weight)


def test_wrong_input_leaves_a_fitted_segmenter_as_it_was():
    X, y = make_data()
    segmenter = make_segmenter(callbacks=None).fit(X, y)
    expected = segmenter.predict_proba(X)
    for change in [{"depth": 9}, {"class_weight": {9: 1.0}}, {"device": "warp"}]:
        before = {name: segmenter.get_params()[name] for name in change}
        with pytest.raises(ValueError, match=next(iter(change))):
            segmenter.set_params(**change).fit(X, y)
        segmenter.set_params(**before)
        np.testing.assert_array_equal(segmenter.predict_proba(X), expected)
    no_images, one_mask = "X is empty", r"y must have one label for each pixel.*got shape \(1,"
    for images, masks, of_fit, of_partial_fit in [
        (X[:0], y, no_images, no_images),
        (X, y[:1], one_mask, one_mask),
        (X, np.zeros_like(y), r"2 classes, got only \[0\]", r"y has labels \[5\]"),
    ]:
        with pytest.raises(ValueError, match=of_fit):
            segmenter.fit(images, masks)
        with pytest.raises(ValueError, match=of_partial_fit):
            segmenter.partial_fit(images, masks + 5)
    np.testing.assert_array_equal(segmenter.predict_proba(X), expected)
    assert segmenter.n_iter_ == len(segmenter.history_) == 1


@pytest.mark.parametrize("which", ["X", "y"])
def test_masked_pixels_are_refused(which):
    X, y = make_data()
    hidden = np.zeros(y.shape, dtype=bool)
    hidden[0, 0, 0] = True
    data = {"X": X, "y": y}
    data[which] = np.ma.masked_array(data[which], hidden)
    assert_rejected(make_segmenter(), data["X"], data["y"], f"{which} has masked pixels")
    data[which] = np.ma.masked_array({"X": X, "y": y}[which], False)
    make_segmenter(callbacks=None).fit(data["X"], data["y"])


def test_masked_images_in_a_list_are_refused():
    X, y = make_data()
    hidden = np.zeros(y.shape, dtype=bool)
    hidden[0, 0, 0] = True
    images = list(np.ma.masked_array(X, hidden))
    assert_rejected(make_segmenter(), images, y, "X has masked pixels")
    assert_rejected(
        make_segmenter(), X, list(np.ma.masked_array(y, hidden)), "y has masked pixels"
    )
    segmenter = make_segmenter(callbacks=None).fit(X, y)
    for method in (segmenter.predict, segmenter.predict_proba):
        with pytest.raises(TypeError, match="X has masked pixels"):
            method(images)
    with pytest.raises(TypeError, match="y has masked pixels"):
        segmenter.score(list(X), list(np.ma.masked_array(y, hidden)))


@pytest.mark.parametrize("kind", ["images", "pixels", "list of images"])
def test_masked_sample_weights_are_refused(kind, fitted):
    X, y = make_data()
    shape = (N,) if kind == "images" else (N, H, W)
    hidden = np.zeros(shape, dtype=bool)
    hidden[0] = True
    masked, unmasked = (np.ma.masked_array(np.ones(shape), mask) for mask in (hidden, False))
    if kind == "list of images":
        masked, unmasked = list(masked), list(unmasked)
    match = "sample_weight has masked pixels"
    for method in ("fit", "partial_fit"):
        assert_rejected(make_segmenter(), X, y, match, method=method, sample_weight=masked)
    make_segmenter(callbacks=None).fit(X, y, sample_weight=unmasked)
    with pytest.raises(TypeError, match=match):
        fitted.score(X, y, sample_weight=masked)
    assert fitted.score(X, y, sample_weight=unmasked) == pytest.approx(fitted.score(X, y))


@pytest.mark.parametrize("dtype", [np.uint64, np.float64])
def test_labels_that_no_score_could_count_are_refused(dtype, terrain, fast):
    X, y = terrain
    y = y.astype(dtype)
    y[0] = 2**63
    with pytest.raises(ValueError, match=r"below 2\*\*63"):
        MarsSegmenter(**fast).fit(X, y)
