import copy
import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.utils.class_weight import compute_class_weight
from skorch.callbacks import Callback

from skmars import MarsSegmenter
from skmars.metrics import mean_iou_score

LOSSES = [
    "cross_entropy",
    "focal",
    "dice",
    "boundary",
    "focal+dice",
    "cross_entropy+dice+boundary",
]
# Every value of every switch, and most pairs of them.
SOME_NETS = [
    (2, "residual", "add", False, False),
    (3, "residual", "fusion", False, True),
    (3, "plain", "add", True, True),
    (4, "residual", "concat", True, False),
    (5, "plain", "fusion", False, False),
]
ALL_NETS = list(
    itertools.product(
        (2, 3, 4, 5),
        ("residual", "plain"),
        ("concat", "add", "fusion"),
        (True, False),
        (True, False),
    )
)


@pytest.fixture(scope="module")
def terrain(terrain):
    return terrain[0][:16], terrain[1][:16]


def make_blobs(seed=0):
    """One batch of grey images whose three classes can be told apart."""
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(4, 3, 32, 48)), (0, 0, 6, 6))
    y = fields.argmax(axis=1).astype(np.uint8)
    X = (60 + 60 * y + rng.normal(scale=6, size=y.shape)).clip(0, 255).astype(np.uint8)
    return X, y


def overfit(**params):
    X, y = make_blobs()
    segmenter = MarsSegmenter(
        **{
            "depth": 2,
            "base_channels": 8,
            "max_epochs": 60,
            "batch_size": len(X),
            "learning_rate": 0.01,
            "dropout": 0.0,
            "augmentation": None,
            "validation_fraction": None,
            "early_stopping": False,
            "precision": "float32",
            "tta": False,
            "n_threads": 1,
            "random_state": 0,
            **params,
        }
    )
    return mean_iou_score(y, segmenter.fit(X, y).predict(X), absent=0.0)


def can_overfit(**params):
    """Quickly, or, as deep nets with sums for skips need it, at a lower rate for longer."""
    paces = [{}, *({"learning_rate": 0.005, "max_epochs": longer} for longer in (120, 400))]
    return any(overfit(**params, **pace) > 0.95 for pace in paces)


def weights_of(segmenter):
    return {name: value.numpy() for name, value in segmenter.net_.module_.state_dict().items()}


def assert_same_weights(one, other):
    one, other = weights_of(one), weights_of(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def have_same_weights(one, other):
    one, other = weights_of(one), weights_of(other)
    return all(np.array_equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_overfits_one_batch(loss):
    assert can_overfit(loss=loss)


@pytest.mark.parametrize(("depth", "block", "skip", "attention", "aspp"), SOME_NETS)
def test_nets_overfit_one_batch(depth, block, skip, attention, aspp):
    assert can_overfit(depth=depth, block=block, skip=skip, attention=attention, aspp=aspp)


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "block", "skip", "attention", "aspp"), ALL_NETS)
def test_every_net_overfits_one_batch(depth, block, skip, attention, aspp):
    assert can_overfit(depth=depth, block=block, skip=skip, attention=attention, aspp=aspp)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_loss_overfits_with_other_seeds(loss, seed):
    assert can_overfit(loss=loss, random_state=seed)


def test_fit_returns_itself_and_says_what_it_saw(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast)
    assert segmenter.fit(X, y) is segmenter
    assert segmenter.classes_.tolist() == [0, 1, 2, 3, 4]
    assert segmenter.n_channels_in_ == 1
    assert segmenter.n_iter_ == len(segmenter.history_) == 2
    assert segmenter.precision_ == "float32"
    assert segmenter.device_ == "cpu" or torch.accelerator.is_available()
    assert segmenter.n_parameters_ == sum(p.numel() for p in segmenter.net_.module_.parameters())


def test_one_random_state_gives_identical_weights(terrain, fast):
    fits = [MarsSegmenter(**fast, dropout=0.5).fit(*terrain) for _ in range(2)]
    assert_same_weights(*fits)
    rows = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in fit.history_] for fit in fits
    ]
    assert rows[0] == rows[1]


def test_identical_weights_with_every_phase_and_a_random_state_object(terrain, fast):
    params = {**fast, "freeze": "encoder", "fine_tune_epochs": 1}
    fits = [
        MarsSegmenter(**{**params, "random_state": np.random.RandomState(3)}).fit(*terrain)
        for _ in range(2)
    ]
    assert_same_weights(*fits)


def test_result_does_not_depend_on_the_global_random_states(terrain, fast):
    first = MarsSegmenter(**fast).fit(*terrain)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert_same_weights(first, MarsSegmenter(**fast).fit(*terrain))


@pytest.mark.parametrize("random_state", [1, None])
def test_another_random_state_gives_other_weights(random_state, terrain, fast):
    first = MarsSegmenter(**fast).fit(*terrain)
    other = MarsSegmenter(**{**fast, "random_state": random_state}).fit(*terrain)
    assert not have_same_weights(first, other)


def test_a_random_state_object_moves_on_from_fit_to_fit(terrain, fast):
    random_state = np.random.RandomState(3)
    segmenter = MarsSegmenter(**{**fast, "random_state": random_state})
    before = weights_of(segmenter.fit(*terrain))["head.weight"].copy()
    assert not np.array_equal(before, weights_of(segmenter.fit(*terrain))["head.weight"])


def flushes_denormals():
    return (torch.tensor([1e-310], dtype=torch.float64) * 1).item() == 0


@pytest.mark.parametrize("flush", [True, False])
def test_global_state_is_left_as_it_was(flush, terrain, fast):
    seen = {}

    class Spy(Callback):
        def on_epoch_begin(self, net, **kwargs):
            seen.update(n_threads=torch.get_num_threads(), flushes=flushes_denormals())

    n_threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.set_flush_denormal(flush)
        np.random.seed(5)  # noqa: NPY002
        torch.manual_seed(5)
        numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002

        segmenter = MarsSegmenter(**fast | {"tta": True}, callbacks=[Spy()]).fit(*terrain)
        segmenter.predict(terrain[0])
        segmenter.predict_proba(terrain[0])
        segmenter.partial_fit(*terrain)
        segmenter.score(*terrain)

        assert seen == {"n_threads": 1, "flushes": True}
        assert torch.get_num_threads() == 2
        assert flushes_denormals() == flush
        assert torch.equal(torch.get_rng_state(), torch_state)
        after = np.random.get_state()  # noqa: NPY002
        np.testing.assert_array_equal(after[1], numpy_state[1])
        assert after[2:] == numpy_state[2:]
    finally:
        torch.set_num_threads(n_threads_before)
        torch.set_flush_denormal(False)


def test_settings_are_put_back_after_an_error(terrain, fast):
    class Broken(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise RuntimeError("broken on purpose")

    n_threads_before = torch.get_num_threads()
    try:
        # Another number than that of the fit.
        torch.set_num_threads(2)
        before = flushes_denormals(), torch.get_rng_state()
        with pytest.raises(RuntimeError, match="on purpose"):
            MarsSegmenter(**fast, callbacks=[Broken()]).fit(*terrain)
        assert torch.get_num_threads() == 2
        assert flushes_denormals() == before[0]
        assert torch.equal(torch.get_rng_state(), before[1])
    finally:
        torch.set_num_threads(n_threads_before)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_mean_and_scale_are_those_of_the_training_images(dtype, terrain, fast):
    X, y = terrain
    X = np.stack([X, 2.0 * X + 3, np.full(X.shape, 7)], axis=-1).astype(dtype)
    segmenter = MarsSegmenter(**fast, validation_fraction=None).fit(X, y)
    pixels = X.reshape(-1, 3).astype(float)
    np.testing.assert_allclose(segmenter.mean_, pixels.mean(axis=0), rtol=1e-9)
    # A constant channel has nothing to divide by.
    np.testing.assert_allclose(segmenter.scale_[:2], pixels.std(axis=0)[:2], rtol=1e-9)
    assert segmenter.scale_[2] == 1


def test_mean_and_scale_of_images_that_are_measured_in_parts(terrain, fast, monkeypatch):
    X, y = terrain
    # The light drifts, so that no part has the mean or the scale of all.
    X = X + 10.0 * np.arange(len(X))[:, None, None]
    monkeypatch.setattr("skmars.batches.NUMBERS_AT_ONCE", 7 * X[0].size)
    segmenter = MarsSegmenter(**fast, validation_fraction=None).fit(X, y)
    np.testing.assert_allclose(segmenter.mean_, X.mean(), rtol=1e-9)
    np.testing.assert_allclose(segmenter.scale_, X.std(), rtol=1e-9)


def test_images_held_out_have_no_part_in_mean_and_scale(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast)
    segmenter.fit(X, y, validation_data=(255 - X[:4], y[:4]))
    np.testing.assert_allclose(segmenter.mean_, X.mean(), rtol=1e-9)


@pytest.fixture(scope="module")
def probabilities_of_bytes(terrain, fast_for_all):
    X, y = terrain
    return MarsSegmenter(**{**fast_for_all, "learning_rate": 1e-3}).fit(X, y).predict_proba(X)


@pytest.mark.parametrize(
    "kind",
    [
        lambda X: X.astype(np.uint16) * 257,
        lambda X: X.astype(np.int32) - 1000,
        lambda X: (X / 255).astype(np.float32),
        lambda X: X / 255,
        lambda X: 1e7 + X / 255,
    ],
    ids=["uint16", "negative int32", "float32 0..1", "float64 0..1", "float64 with an offset"],
)
def test_prediction_does_not_depend_on_the_unit_of_the_images(
    kind, terrain, fast, probabilities_of_bytes
):
    X, y = terrain
    segmenter = MarsSegmenter(**{**fast, "learning_rate": 1e-3}).fit(kind(X), y)
    np.testing.assert_allclose(segmenter.predict_proba(kind(X)), probabilities_of_bytes, atol=5e-3)


def test_bool_and_half_precision_images_can_be_learned_from(terrain, fast):
    X, y = terrain
    for images in (X > 100, (X / 255).astype(np.float16)):
        proba = MarsSegmenter(**fast).fit(images, y).predict_proba(images)
        assert np.isfinite(proba).all()


def test_bfloat16_and_float32_give_close_probabilities(terrain, fast):
    # Few images: where bfloat16 is imitated, a step takes seconds.
    X, y = (part[:8] for part in terrain)
    params = {**fast, "learning_rate": 1e-3}
    fits = [
        MarsSegmenter(**{**params, "precision": name}).fit(X, y)
        for name in ("float32", "bfloat16")
    ]
    assert [fit.precision_ for fit in fits] == ["float32", "bfloat16"]
    float32, bfloat16 = (fit.predict_proba(X) for fit in fits)
    assert not np.array_equal(float32, bfloat16)
    assert np.abs(float32 - bfloat16).mean() < 0.02
    np.testing.assert_allclose(bfloat16.sum(axis=1), 1, atol=1e-5)


def test_auto_precision_is_resolved(terrain, fast):
    segmenter = MarsSegmenter(**{**fast, "precision": "auto"}).fit(*terrain)
    assert segmenter.precision_ in {"float32", "bfloat16"}


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [((-3, 7, 300), np.int16), ((1, 2, 200), np.uint8), ((-1, 0, 2**40), np.int64)],
)
def test_labels_come_back_with_their_dtype(labels, dtype, fast):
    X, y = make_blobs()
    masks = np.array(labels, dtype=dtype)[y]
    reference = MarsSegmenter(**fast).fit(X, y)
    segmenter = MarsSegmenter(**fast).fit(X, masks)
    assert segmenter.classes_.tolist() == list(labels)
    predicted = segmenter.predict(X)
    assert predicted.dtype == dtype
    # Names of the classes change nothing else.
    assert_same_weights(reference, segmenter)
    np.testing.assert_array_equal(predicted, np.array(labels, dtype=dtype)[reference.predict(X)])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_integers_in_floating_masks_are_accepted(dtype, fast):
    X, y = make_blobs()
    segmenter = MarsSegmenter(**fast).fit(X, y.astype(dtype))
    assert_same_weights(segmenter, MarsSegmenter(**fast).fit(X, y))
    assert segmenter.predict(X).dtype == np.int64
    assert segmenter.score(X, y.astype(dtype)) == segmenter.score(X, y)


def test_bool_masks_are_two_classes(fast):
    X, y = make_blobs()
    predicted = MarsSegmenter(**fast).fit(X, y == 2).predict(X)
    assert predicted.dtype == bool


def test_ignored_label_is_never_predicted(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast, ignore_label=1).fit(X, y)
    assert segmenter.classes_.tolist() == [0, 2, 3, 4]
    assert segmenter.predict_proba(X).shape[1] == 4
    assert set(np.unique(segmenter.predict(X))) <= {0, 2, 3, 4}


@pytest.mark.parametrize("ignore_label", [-1, 255, 4, 300])
def test_it_does_not_matter_which_label_is_ignored(ignore_label, fast):
    X, y = make_blobs()
    hidden = np.random.default_rng(0).random(y.shape) < 0.3
    masks = [np.where(hidden, np.int32(label), y) for label in (77, ignore_label)]
    fits = [
        MarsSegmenter(**fast, ignore_label=label).fit(X, mask)
        for label, mask in zip((77, ignore_label), masks, strict=True)
    ]
    assert_same_weights(*fits)
    np.testing.assert_allclose(
        fits[0].class_frequencies_, np.bincount(y[~hidden]) / np.sum(~hidden), rtol=1e-12
    )


@pytest.mark.parametrize("loss", ["cross_entropy", "focal+dice"])
def test_ignored_pixels_have_no_gradient(loss, fast):
    X, y = make_blobs()
    hidden = np.random.default_rng(0).random(y.shape) < 0.3
    params = {**fast, "loss": loss, "validation_fraction": None}
    ignored = MarsSegmenter(**params, ignore_label=255).fit(X, np.where(hidden, 255, y))
    weighted = MarsSegmenter(**params).fit(X, y, sample_weight=(~hidden).astype(float))
    for name, value in weights_of(ignored).items():
        np.testing.assert_allclose(value, weights_of(weighted)[name], atol=1e-4, err_msg=name)


def test_ignored_label_that_never_occurs_changes_nothing(fast):
    X, y = make_blobs()
    assert_same_weights(
        MarsSegmenter(**fast).fit(X, y), MarsSegmenter(**fast, ignore_label=255).fit(X, y)
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_images_without_weight_may_have_wrong_masks(loss, fast):
    X, y = make_blobs()
    X, y = np.concatenate([X, X]), np.concatenate([y, y])
    wrong = y.copy()
    wrong[4:] = np.random.default_rng(0).integers(3, size=y[4:].shape)
    weight = np.repeat([1.0, 0.0], 4)
    params = {**fast, "loss": loss, "validation_fraction": None, "batch_size": 4}
    fits = [MarsSegmenter(**params).fit(X, masks, sample_weight=weight) for masks in (y, wrong)]
    assert_same_weights(*fits)
    # Not because the masks had no influence at all.
    assert not have_same_weights(fits[0], MarsSegmenter(**params).fit(X, wrong))


@pytest.mark.parametrize("augmentation", [None, "auto"])
@pytest.mark.parametrize("loss", LOSSES)
def test_pixels_without_weight_may_have_wrong_labels(loss, augmentation, fast):
    X, y = make_blobs()
    rng = np.random.default_rng(0)
    weight = rng.uniform(0.5, 2, size=y.shape) * (rng.random(y.shape) < 0.6)
    wrong = np.where(weight > 0, y, (y + 1) % 3).astype(y.dtype)
    params = {**fast, "loss": loss, "augmentation": augmentation, "validation_fraction": None}
    fits = [MarsSegmenter(**params).fit(X, masks, sample_weight=weight) for masks in (y, wrong)]
    assert_same_weights(*fits)


@pytest.mark.parametrize("of", ["images", "pixels"])
def test_class_frequencies_are_weighted(of, fast):
    X, y = make_blobs()
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 2, (len(y), 1, 1) if of == "images" else y.shape)
    weight = pixels.ravel() if of == "images" else pixels
    segmenter = MarsSegmenter(**fast).fit(X, y, sample_weight=weight)
    pixels = np.broadcast_to(pixels, y.shape)
    expected = np.bincount(y.ravel(), pixels.ravel()) / pixels.sum()
    np.testing.assert_allclose(segmenter.class_frequencies_, expected, rtol=1e-9)


def test_weights_of_images_are_those_of_their_pixels(fast):
    X, y = make_blobs()
    weight = np.array([0.5, 1, 2, 0.25])
    pixels = np.broadcast_to(weight[:, None, None], y.shape)
    params = {**fast, "validation_fraction": None}
    fits = [MarsSegmenter(**params).fit(X, y, sample_weight=w) for w in (weight, pixels)]
    assert_same_weights(*fits)


def test_validation_score_is_weighted(terrain, fast):
    X, y = terrain
    weight = np.random.default_rng(0).uniform(0.1, 5, len(X))
    held_out = np.zeros(len(X), dtype=bool)
    X = X.copy()
    X[:, 0, 0] = np.arange(len(X))

    class Spy(Callback):
        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            if not training:
                held_out[batch[0][:, 0, 0, 0].numpy()] = True

    segmenter = MarsSegmenter(
        **fast, validation_fraction=0.4, early_stopping=False, callbacks=[Spy()]
    ).fit(X, y, sample_weight=weight)
    expected = segmenter.score(X[held_out], y[held_out], sample_weight=weight[held_out])
    assert segmenter.history_[-1]["valid_mean_iou"] == pytest.approx(expected, abs=1e-6)
    assert expected != segmenter.score(X[held_out], y[held_out])


def test_class_weights_are_those_of_scikit_learn(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast, class_weight="balanced").fit(X, y)
    expected = compute_class_weight("balanced", classes=np.unique(y), y=y.ravel())
    np.testing.assert_allclose(segmenter.class_weight_, expected, rtol=1e-12)
    np.testing.assert_allclose(
        segmenter.class_frequencies_, np.bincount(y.ravel()) / y.size, rtol=1e-12
    )


@pytest.mark.parametrize("class_weight", ["balanced", "sqrt"])
def test_class_weights_follow_the_labelled_pixels_only(class_weight, terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast, class_weight=class_weight, ignore_label=0).fit(X, y)
    counts = np.bincount(y.ravel())[1:]
    weight = segmenter.class_weight_
    power = {"balanced": 1, "sqrt": 0.5}[class_weight]
    np.testing.assert_allclose(weight * counts**power, (weight * counts**power)[0], rtol=1e-9)
    assert np.average(weight, weights=counts) == pytest.approx(1)


def test_class_weight_has_its_greatest_value(terrain, fast):
    X, y = terrain
    free = MarsSegmenter(**fast, class_weight="balanced").fit(X, y).class_weight_
    assert free.max() > 3
    capped = MarsSegmenter(**fast, class_weight="balanced", max_class_weight=3).fit(X, y)
    np.testing.assert_allclose(capped.class_weight_, np.minimum(free, 3))


def test_default_class_weights_are_capped_square_roots(terrain, fast):
    X, y = terrain
    y = y.copy()
    y[y == 4] = 0
    y[0, 0, :3] = 4
    default, free = (
        MarsSegmenter(**fast, **params).fit(X, y).class_weight_
        for params in ({}, {"class_weight": "sqrt"})
    )
    assert free[4] > 8
    np.testing.assert_allclose(default, np.minimum(free, 8))


def test_default_class_weights_are_none_where_there_can_be_none(terrain, fast):
    X, y = terrain
    fast["max_class_weight"] = 0.5
    own = MarsSegmenter(**fast, loss=torch.nn.functional.cross_entropy)
    assert own.fit(X, y).class_weight_.tolist() == [1] * 5
    assert MarsSegmenter(**fast).partial_fit(X, y).class_weight_.tolist() == [1] * 5


def test_images_of_large_integers_keep_their_contrast(terrain, fast):
    X, y = terrain
    large = X.astype(np.uint32) + np.uint32(2**31)
    plain, shifted = (MarsSegmenter(**fast).fit(images, y) for images in (X, large))
    np.testing.assert_allclose(shifted.predict_proba(large), plain.predict_proba(X), atol=1e-3)


def test_default_dtype_of_torch_does_not_matter(terrain, fast):
    X, y = terrain
    expected = MarsSegmenter(**fast).fit(X, y).predict(X)
    torch.set_default_dtype(torch.float64)
    try:
        segmenter = MarsSegmenter(**fast).fit(X, y)
        assert segmenter.predict(X).shape == expected.shape
    finally:
        torch.set_default_dtype(torch.float32)
    assert {weight.dtype for weight in segmenter.net_.module_.parameters()} == {torch.float32}


def test_class_weight_by_label(terrain, fast):
    X, y = terrain
    segmenter = MarsSegmenter(**fast, class_weight={4: 9.0, 0: 0.5}).fit(X, y)
    assert segmenter.class_weight_.tolist() == [0.5, 1, 1, 1, 9]


def test_equal_class_weights_are_none(terrain, fast):
    fits = [
        MarsSegmenter(**fast, class_weight=weight).fit(*terrain)
        for weight in (None, dict.fromkeys(range(5), 1))
    ]
    assert fits[0].class_weight_.tolist() == [1] * 5
    assert_same_weights(*fits)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "dice", "boundary"])
def test_class_weights_enter_the_training(loss, terrain, fast):
    X, y = terrain
    plain = MarsSegmenter(**fast, loss=loss).fit(X, y)
    weighted = MarsSegmenter(**fast, loss=loss, class_weight={1: 5.0}).fit(X, y)
    assert not have_same_weights(plain, weighted)


def test_a_heavy_class_is_predicted_more_often(terrain, fast):
    X, y = terrain
    params = {**fast, "max_epochs": 10, "learning_rate": 0.01, "early_stopping": False}
    light, heavy = (
        MarsSegmenter(**params, class_weight={3: weight}).fit(X, y).predict_proba(X)[:, 3].mean()
        for weight in (0.05, 20.0)
    )
    assert heavy > 1.4 * light


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"loss": "focal", "loss_params": {"gamma": 0.0}}, {"loss": "cross_entropy"}),
        (
            {"loss": "cross_entropy+dice", "loss_params": {"dice_weight": 0.0}},
            {"loss": "cross_entropy"},
        ),
    ],
)
def test_loss_params_reach_the_loss(one, other, terrain, fast):
    params = {**fast, "learning_rate": 1e-3, "validation_fraction": None}
    losses = [
        MarsSegmenter(**params, **more).fit(*terrain).history_[-1]["train_loss"]
        for more in (one, other, {"loss": one["loss"]})
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)


def test_callable_loss_is_trained_on(terrain, fast):
    X, y = terrain
    seen = []

    def loss(logits, target):
        seen.append((tuple(logits.shape), logits.dtype, tuple(target.shape), target.dtype))
        assert target[target >= 0].max() < logits.shape[1]
        assert set(target[target < 0].unique().tolist()) <= {-100}
        return torch.nn.functional.cross_entropy(logits, target)

    params = {**fast, "ignore_label": 0, "validation_fraction": None, "augmentation": None}
    own = MarsSegmenter(**params, loss=loss).fit(X, y)
    assert seen[0] == ((8, 4, 32, 48), torch.float32, (8, 32, 48), torch.int64)
    named = MarsSegmenter(**params, class_weight=None).fit(X, y)
    losses = [fit.history_[-1]["train_loss"] for fit in (own, named)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "batch_size", "max_epochs"])
def test_hyperparameters_of_the_optimizer_reach_the_training(name, terrain, fast):
    changed = {"learning_rate": 0.01, "weight_decay": 1.0, "batch_size": 3, "max_epochs": 1}
    params = {**fast, "early_stopping": False}
    plain = MarsSegmenter(**params).fit(*terrain)
    other = MarsSegmenter(**{**params, name: changed[name]}).fit(*terrain)
    assert not have_same_weights(plain, other)


def test_images_of_one_pixel_can_be_learned_from(fast):
    X = np.array([0, 1, 0, 1, 0, 1, 0, 1], dtype=np.uint8).reshape(-1, 1, 1)
    segmenter = MarsSegmenter(**{**fast, "batch_size": 1}).fit(X, X)
    assert segmenter.predict(X).shape == (8, 1, 1)


def test_class_weights_may_name_a_class_that_a_fold_lacks(terrain, fast):
    X, y = terrain[0], np.minimum(terrain[1], 3)
    weights = {0: 1.0, 1: 2.0, 2: 1.0, 3: 1.0, 4: 8.0}
    segmenter = MarsSegmenter(**fast, class_weight=weights).fit(X, y)
    np.testing.assert_array_equal(segmenter.class_weight_, [1.0, 2.0, 1.0, 1.0])


def test_weights_count_across_batches(fast):
    # Equal images, so that batches differ in labels and weights alone.
    X = np.full((10, 16, 16), 100, dtype=np.uint8)
    y = np.zeros(X.shape, dtype=int)
    y[:2] = 1
    params = {**fast, "validation_fraction": None, "class_weight": None, "augmentation": None}
    params |= {"dropout": 0.0, "ema_decay": None, "max_epochs": 20, "learning_rate": 0.01}
    segmenter = MarsSegmenter(**params).fit(X, y)
    share = segmenter.predict_proba(X[:1])[0, 1].mean()
    assert share < 0.45
    weight = np.where(np.arange(10) < 2, 4.0, 1.0)
    losses = []
    for batch_size in (1, 3, 10):
        again = copy.deepcopy(segmenter)
        again.set_params(warm_start=True, batch_size=batch_size, max_epochs=1, learning_rate=1e-9)
        losses.append(again.fit(X, y, sample_weight=weight).history_[-1]["train_loss"])
    # Eight of the weight are with each class.
    expected = -0.5 * np.log(share) - 0.5 * np.log(1 - share)
    assert losses == pytest.approx([expected] * 3, rel=1e-3)


def test_partial_fit_takes_the_weight_of_one_image(fast):
    X, y = make_blobs()

    def trained(weight):
        segmenter = MarsSegmenter(**fast)
        for place in (0, 1):
            rows = slice(place, place + 1)
            given = [weight if place else 1.0]
            segmenter.partial_fit(X[rows], y[rows], classes=[0, 1, 2], sample_weight=given)
        return segmenter

    assert not have_same_weights(trained(1.0), trained(50.0))


def test_pixels_without_weight_do_not_decide_who_is_held_out(fast):
    X, y = make_blobs()
    X, y = np.tile(X, (3, 1, 1)), np.tile(y, (3, 1, 1))
    weight = np.random.default_rng(0).random(y.shape) < 0.6
    wrong = np.where(weight, y, (y + 1) % 3).astype(y.dtype)
    fits = [
        MarsSegmenter(**fast).fit(X, masks, sample_weight=weight.astype(float))
        for masks in (y, wrong)
    ]
    assert_same_weights(*fits)
