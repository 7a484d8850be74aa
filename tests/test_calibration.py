"""Temperature scaling, reliability and sparsification, as a user meets them."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss
from skorch import NeuralNet
from skorch.history import History

from skmars import Ensemble, MarsSegmenter
from skmars.datasets import make_terrain
from skmars.inspection import ReliabilityDisplay, SparsificationDisplay
from skmars.metrics import (
    expected_calibration_error,
    predictive_entropy,
    reliability_curve,
    sparsification_curve,
    sparsification_error,
)
from skmars.training.temperature import TemperatureScaling, best_temperature

LABELS = np.array([3, 7, 9])
IGNORED = 255


@pytest.fixture(scope="module")
def scored():
    """True masks with ignored pixels, and probabilities that are right more often than not."""
    rng = np.random.default_rng(0)
    y = rng.choice(LABELS, size=(6, 9, 11))
    logits = rng.normal(size=(6, 3, 9, 11)) + 1.5 * (y[:, None] == LABELS[:, None, None])
    y[rng.random(y.shape) < 0.2] = IGNORED
    return y, softmax(logits, axis=1)


@pytest.fixture(scope="module")
def trained():
    """Images to train, validate and test on, and a segmenter that is calibrated."""
    X, y = make_terrain(72, shape=(32, 48), class_frequencies=[1, 1, 1, 1, 0], random_state=0)
    segmenter = MarsSegmenter(
        depth=2,
        base_channels=4,
        max_epochs=8,
        batch_size=4,
        calibration="temperature",
        precision="float32",
        tta=False,
        random_state=0,
    )
    segmenter.fit(X[:32], y[:32], validation_data=(X[32:52], y[32:52]))
    return segmenter, (X[32:52], y[32:52]), (X[52:], y[52:])


def flat(y, p):
    kept = y != IGNORED
    return y[kept], np.moveaxis(p, 1, -1)[kept]


class TestReliability:
    def test_is_the_curve_of_scikit_learn(self, scored):
        y, p = scored
        curve = reliability_curve(y, p, labels=LABELS, ignore_label=IGNORED, n_bins=10)
        true, scores = flat(y, p)
        right = LABELS[scores.argmax(1)] == true
        accuracy, confidence = calibration_curve(right, scores.max(1), n_bins=10)
        used = curve.n_pixels > 0
        np.testing.assert_allclose(curve.accuracy[used], accuracy)
        np.testing.assert_allclose(curve.confidence[used], confidence)
        assert curve.n_pixels.sum() == len(true)
        assert np.isnan(curve.accuracy[~used]).all()

    def test_error_is_the_gap_weighted_by_pixels(self, scored):
        y, p = scored
        true, scores = flat(y, p)
        right = LABELS[scores.argmax(1)] == true
        confidence = scores.max(1)
        expected = 0.0
        for low in np.arange(15) / 15:
            chosen = (confidence >= low) & (confidence < low + 1 / 15)
            if chosen.any():
                gap = abs(right[chosen].mean() - confidence[chosen].mean())
                expected += gap * chosen.mean()
        error = expected_calibration_error(y, p, labels=LABELS, ignore_label=IGNORED)
        assert error == pytest.approx(expected, abs=1e-9)

    def test_of_certain_and_right_is_zero(self):
        y = np.array([[[3, 7], [9, 7]]])
        p = (y[:, None] == LABELS[:, None, None]).astype(np.float32)
        assert expected_calibration_error(y, p, labels=LABELS) == 0

    def test_takes_lists_of_different_sizes(self, scored):
        y, p = scored
        cut = [y[0], y[1][:4]], [p[0], p[1][:, :4]]
        curve = reliability_curve(*cut, labels=LABELS, ignore_label=IGNORED)
        assert curve.n_pixels.sum() == sum((mask != IGNORED).sum() for mask in cut[0])

    def test_empty_masks_count_for_nothing(self, scored):
        y, p = scored
        how = {"labels": LABELS, "ignore_label": IGNORED}
        curve = reliability_curve([y[0][:0], y[1]], [p[0][:, :0], p[1]], **how)
        np.testing.assert_array_equal(curve, reliability_curve(y[1:2], p[1:2], **how))
        with pytest.raises(ValueError, match="no pixel is labelled"):
            reliability_curve([y[0][:0]], [p[0][:, :0]], **how)

    def test_a_label_to_ignore_has_to_be_named(self, scored):
        with pytest.raises(ValueError, match=r"y_true has labels \[255\]"):
            expected_calibration_error(*scored, labels=LABELS)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"labels": [3, 7]}, "must be"),
            ({"labels": [3, 3, 7]}, "repeat"),
            ({"labels": [3, 7, 8]}, r"y_true has labels \[9\] that are not among"),
            ({"n_bins": 0}, "n_bins"),
            ({"probabilities": np.full((6, 3, 9, 11), 1.5)}, r"in \[0, 1\]"),
            ({"probabilities": np.full((6, 3, 9, 11), np.nan)}, r"in \[0, 1\]"),
            ({"y_true": np.full((6, 9, 11), IGNORED)}, "no pixel is labelled"),
            ({"y_true": np.zeros((5, 9, 11), int)}, "5 true masks"),
        ],
    )
    def test_says_what_is_wrong(self, scored, change, message):
        given = {"y_true": scored[0], "probabilities": scored[1], "labels": LABELS} | change
        with pytest.raises(ValueError, match=message):
            reliability_curve(**given, ignore_label=IGNORED)


class TestSparsification:
    @pytest.mark.parametrize("n_levels", [10_000, 4])
    def test_is_the_error_of_the_surest_pixels(self, scored, n_levels):
        y, p = scored
        rng = np.random.default_rng(1)
        uncertainty = rng.permutation(y.size).reshape(y.shape) % n_levels
        predicted = LABELS[p.argmax(1)]
        kept = y != IGNORED
        levels, wrong = uncertainty[kept], (predicted != y)[kept].astype(float)
        for level in np.unique(levels):
            wrong[levels == level] = wrong[levels == level].mean()
        wrong = wrong[np.argsort(levels)]
        curve = sparsification_curve(y, predicted, uncertainty, ignore_label=IGNORED, n_points=5)
        for removed, error, best in zip(*curve, strict=True):
            n_left = (1 - removed) * len(wrong)
            whole = int(n_left + 1e-9)
            errors = wrong[:whole].sum() + (n_left - whole) * wrong[min(whole, len(wrong) - 1)]
            assert error == pytest.approx(errors / n_left)
            assert best == pytest.approx(max(wrong.sum() - len(wrong) + n_left, 0) / n_left)

    def test_errors_as_uncertainty_are_the_best(self, scored):
        y, p = scored
        predicted = LABELS[p.argmax(1)]
        oracle = (predicted != y).astype(float)
        assert sparsification_error(y, predicted, oracle, ignore_label=IGNORED) < 1e-12

    def test_ties_do_not_depend_on_the_order_of_the_pixels(self, scored):
        y, p = scored
        predicted = LABELS[p.argmax(1)]
        curve = sparsification_curve(y, predicted, np.zeros(y.shape), ignore_label=IGNORED)
        kept = y != IGNORED
        np.testing.assert_allclose(curve.error, (predicted != y)[kept].mean())

    def test_entropy_is_better_than_chance_and_worse_than_the_best(self, scored):
        y, p = scored
        predicted = LABELS[p.argmax(1)]
        chance = np.random.default_rng(0).random(y.shape)
        areas = [
            sparsification_error(y, predicted, u, ignore_label=IGNORED)
            for u in (predictive_entropy(p, axis=1), chance)
        ]
        assert 0 < areas[0] < areas[1]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"uncertainty": np.full((6, 9, 11), np.nan)}, "NaN"),
            ({"uncertainty": np.zeros((6, 9, 12))}, "must be"),
            ({"y_pred": np.zeros((5, 9, 11), int)}, "5 images"),
            ({"n_points": 1}, "n_points"),
            ({"ignore_label": 0}, "no pixel is labelled"),
            ({"y_true": [], "y_pred": [], "uncertainty": []}, "no pixel is labelled"),
        ],
    )
    def test_says_what_is_wrong(self, change, message):
        zeros = np.zeros((6, 9, 11), int)
        given = {"y_true": zeros, "y_pred": zeros, "uncertainty": zeros} | change
        with pytest.raises(ValueError, match=message):
            sparsification_curve(**given)


class TestEntropy:
    @pytest.mark.parametrize("axis", [0, 1])
    def test_is_that_of_scipy_as_a_share_of_the_highest(self, scored, axis):
        p = np.moveaxis(scored[1], 1, axis)
        found = predictive_entropy(p, axis=axis)
        np.testing.assert_allclose(found, entropy(p, base=3, axis=axis), atol=1e-12)

    def test_of_what_is_sure_is_zero(self):
        p = np.eye(3, dtype=np.float32)
        assert predictive_entropy(p).tolist() == [0, 0, 0]
        assert predictive_entropy(p).dtype == np.float32
        assert predictive_entropy(np.ones((1, 4, 4))).max() == 0


class TestTemperature:
    @pytest.mark.parametrize("true_temperature", [0.4, 1.0, 3.0])
    def test_finds_what_the_logits_were_multiplied_by(self, true_temperature):
        rng = np.random.default_rng(0)
        honest = rng.normal(size=(20000, 4))
        target = (honest + rng.gumbel(size=honest.shape)).argmax(1)
        logits = torch.from_numpy(honest * true_temperature)
        found = best_temperature(logits, torch.from_numpy(target))
        assert found == pytest.approx(true_temperature, rel=0.03)

    def test_weighs_pixels(self):
        logits = torch.tensor([[4.0, 0.0]] * 2)
        weight = torch.tensor([3.0, 1.0])
        found = best_temperature(logits, torch.tensor([0, 1]), weight)
        assert found == pytest.approx(4 / np.log(3), rel=0.01)

    def test_without_weights_is_one(self):
        assert best_temperature(torch.zeros(2, 2), torch.zeros(2).long(), torch.zeros(2)) == 1


class TestSegmenter:
    def test_is_the_best_of_all_temperatures_on_what_was_held_out(self, trained):
        segmenter, (X, y), _ = trained
        log_p = np.log(np.moveaxis(segmenter.predict_proba(X), 1, -1)[y >= 0])

        def loss(factor):
            return log_loss(y.ravel(), np.exp(log_softmax(log_p * factor, axis=1)))

        # Found on some of the pixels, so that others can be a little better.
        assert loss(1) < min(loss(0.8), loss(1.25))
        assert segmenter.temperature_ != 1

    def test_changes_probabilities_but_not_training_nor_labels(self, trained):
        segmenter, valid, (X, _) = trained
        X_train, y_train = make_terrain(
            72, shape=(32, 48), class_frequencies=[1, 1, 1, 1, 0], random_state=0
        )
        plain = MarsSegmenter(**segmenter.get_params() | {"calibration": None})
        plain.fit(X_train[:32], y_train[:32], validation_data=valid)
        assert plain.temperature_ == 1
        powered = plain.predict_proba(X).astype(np.float64) ** (1 / segmenter.temperature_)
        expected = powered / powered.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(segmenter.predict_proba(X), expected, atol=1e-5)
        assert (plain.predict(X) == segmenter.predict(X)).mean() > 0.9999

    def test_history_tells_each_epoch_and_the_best_one_counts(self, trained):
        segmenter, *_ = trained
        temperatures = [row["temperature"] for row in segmenter.history_]
        assert len(set(temperatures)) > 1
        assert segmenter.temperature_ == temperatures[segmenter.best_epoch_]

    def test_outlives_saving(self, trained, tmp_path):
        segmenter, _, (X, _) = trained
        segmenter.save(tmp_path / "model.skmars")
        loaded = MarsSegmenter.load(tmp_path / "model.skmars")
        assert loaded.temperature_ == segmenter.temperature_
        np.testing.assert_allclose(
            loaded.predict_proba(X), segmenter.predict_proba(X), rtol=0, atol=1e-6
        )

    def test_does_not_outlive_training_that_validates_nothing(self, terrain, fast):
        segmenter = MarsSegmenter(**fast, calibration="temperature").fit(*terrain)
        assert segmenter.temperature_ != 1
        assert segmenter.partial_fit(*terrain).temperature_ == 1

    @pytest.mark.parametrize("weighted", ["images", "pixels", None])
    def test_heeds_weights_and_leaves_ignored_pixels_out(self, weighted):
        rng = np.random.default_rng(0)
        logits = torch.from_numpy(rng.normal(size=(4, 3, 8, 8))) * 5
        target = torch.from_numpy(rng.integers(0, 3, size=(4, 8, 8)))
        weights = {"images": torch.tensor([0.0, 1, 2, 1]), "pixels": torch.rand(4, 8, 8)}
        weight = weights.get(weighted)
        target[2, :4] = -100
        net = NeuralNet(torch.nn.Flatten, torch.nn.MSELoss)
        net.history = History()
        net.history.new_epoch()
        watch = TemperatureScaling()
        watch.on_epoch_begin(net)
        for part in (slice(0, 3), slice(3, 4)):
            batch = (None, (target[part], None if weight is None else weight[part]))
            watch.on_batch_end(net, batch=batch, y_pred=logits[part])
        watch.on_epoch_end(net)
        kept = target >= 0
        every = torch.ones(4) if weight is None else weight
        every = every.reshape(4, *(every.shape[1:] or (1, 1))).expand_as(target)[kept]
        expected = best_temperature(logits.movedim(1, -1)[kept], target[kept], every)
        assert net.history[-1, "temperature"] == pytest.approx(expected, rel=1e-6)

    def test_is_of_the_whole_image(self):
        # Of a sixteenth of the columns the net is wrong, at the left.
        logits = torch.zeros(1, 2, 1024, 1024)
        logits[:, 0] = 3
        target = torch.zeros(1, 1024, 1024, dtype=torch.int64)
        target[:, :, :64] = 1
        net = NeuralNet(torch.nn.Flatten, torch.nn.MSELoss)
        net.history = History()
        net.history.new_epoch()
        watch = TemperatureScaling()
        watch.on_epoch_begin(net)
        watch.on_batch_end(net, batch=(None, (target, None)), y_pred=logits)
        watch.on_epoch_end(net)
        assert net.history[-1, "temperature"] == pytest.approx(3 / np.log(15), rel=0.2)

    def test_does_not_depend_on_the_size_of_batches(self):
        rng = np.random.default_rng(0)
        logits = torch.from_numpy(rng.normal(size=(2, 3, 128, 128))).float() * 4
        target = torch.from_numpy(rng.integers(0, 3, size=(2, 128, 128)))
        target[0] = logits[0].argmax(0)
        target[1, 8:] = -100
        found = []
        for parts in ([slice(0, 2)], [slice(0, 1), slice(1, 2)]):
            net = NeuralNet(torch.nn.Flatten, torch.nn.MSELoss)
            net.history = History()
            net.history.new_epoch()
            watch = TemperatureScaling()
            watch.on_epoch_begin(net)
            for part in parts:
                watch.on_batch_end(net, batch=(None, (target[part], None)), y_pred=logits[part])
            watch.on_epoch_end(net)
            found.append(net.history[-1, "temperature"])
        kept = target >= 0
        expected = best_temperature(logits.movedim(1, -1)[kept], target[kept])
        np.testing.assert_allclose(found, expected, rtol=0.15)

    def test_needs_images_to_validate_on(self, terrain, fast):
        segmenter = MarsSegmenter(**fast, calibration="temperature", validation_fraction=None)
        with pytest.raises(ValueError, match="not trained on"):
            segmenter.fit(*terrain)
        segmenter.fit(*terrain, validation_data=terrain)
        assert segmenter.temperature_ > 0


class TestDisplays:
    def test_reliability_shows_the_curve(self, trained):
        segmenter, _, (X, y) = trained
        display = ReliabilityDisplay.from_estimator(segmenter, X, y)
        curve = reliability_curve(y, segmenter.predict_proba(X), labels=segmenter.classes_)
        used = curve.n_pixels > 0
        line = display.axes_[0].lines[1]
        np.testing.assert_allclose(line.get_ydata(), curve.accuracy[used])
        error = expected_calibration_error(
            y, segmenter.predict_proba(X), labels=segmenter.classes_
        )
        assert f"{error:.3f}" in display.axes_[0].get_title()

    def test_sparsification_shows_all_kinds_that_there_are(self, terrain, fast):
        X, y = terrain
        ensemble = Ensemble(
            MarsSegmenter(**fast, class_weight="sqrt"), n_members=2, random_state=0
        ).fit(X, y)
        display = SparsificationDisplay.from_estimator(ensemble, X, y)
        assert list(display.errors) == ["entropy", "disagreement"]
        uncertainty = ensemble.predict_uncertainty(X, kind="entropy")
        area = sparsification_error(y, ensemble.predict(X), uncertainty)
        assert display.areas["entropy"] == pytest.approx(area, abs=1e-4)
        assert len(display.ax_.lines) == 3

    def test_draws_into_axes_of_the_user(self, trained):
        segmenter, _, (X, y) = trained
        figure, ax = plt.subplots()
        assert SparsificationDisplay.from_estimator(segmenter, X, y, ax=ax).figure_ is figure
        figure, axes = plt.subplots(2)
        display = ReliabilityDisplay.from_estimator(segmenter, X, y, ax=axes)
        assert list(display.axes_) == list(axes)

    def test_sparsification_needs_a_kind(self, scored):
        y, _ = scored
        with pytest.raises(ValueError, match="at least one kind"):
            SparsificationDisplay.from_predictions(y, y, {})
