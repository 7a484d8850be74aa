import sys

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from pictures import shown

from skmars.inspection import (
    LearningCurveDisplay,
    MaskDisplay,
    class_names,
    iou_table,
)
from skmars.inspection._pictures import PALETTE

HISTORY = [
    {"train_loss": 0.9, "valid_loss": 1.0, "valid_mean_iou": 0.2, "learning_rate": 2e-3},
    {"train_loss": 0.6, "valid_loss": 0.8, "valid_mean_iou": 0.5, "learning_rate": 1e-3},
    {"train_loss": 0.5, "valid_loss": 0.9, "valid_mean_iou": 0.4, "learning_rate": 1e-4},
]
PHASES = ["train", "train", "fine_tune"]


class Flipped:
    """A segmenter that predicts half of the image's brightness."""

    ignore_label = 0

    def predict(self, X):
        return [(np.asarray(image) > 100).astype(int) + 1 for image in X]


class TestMaskDisplay:
    def test_stores_what_it_is_given(self, terrain):
        X, y = terrain
        display = MaskDisplay(X, y, y, labels=[0, 1], target_names=["a", "b"], ignore_label=0)
        assert display.images is X
        assert display.y_true is display.y_pred is y
        assert (display.labels, display.target_names) == ([0, 1], ["a", "b"])
        assert display.ignore_label == 0

    @pytest.mark.parametrize(
        ("true", "pred", "errors", "titles"),
        [
            (True, True, True, ["image", "true", "predicted", "errors"]),
            (True, True, False, ["image", "true", "predicted"]),
            (False, True, False, ["image", "predicted"]),
            (False, False, False, ["image"]),
        ],
    )
    def test_one_panel_for_each_mask(self, terrain, true, pred, errors, titles):
        X, y = terrain
        display = MaskDisplay(X[:3], y[:3] if true else None, y[:3] if pred else None)
        assert display.plot(errors=errors) is display
        assert display.axes_.shape == (3, len(titles))
        assert [panel.get_title() for panel in display.axes_[0]] == titles
        assert all(len(panel.images) == 1 for panel in display.axes_.ravel())
        assert display.figure_ is display.axes_[0, 0].figure
        assert (display.legend_ is None) == (len(titles) == 1)

    def test_several_images_in_a_row(self, terrain):
        X, y = terrain
        display = MaskDisplay(X[:3], y[:3]).plot(images_per_row=2)
        assert display.axes_.shape == (2, 4)
        assert [len(panel.images) for panel in display.axes_[1]] == [1, 1, 0, 0]

    def test_colours_of_a_mask(self):
        image, mask = np.full((2, 2), 7), np.array([[0, 1], [3, 4]])
        display = MaskDisplay([image], [mask]).plot(alpha=1)
        colors = [to_rgb(PALETTE[label]) for label in mask.ravel()]
        np.testing.assert_allclose(shown(display.axes_[0, 1]).reshape(4, 3), colors)

    def test_a_label_has_one_colour_whatever_others_there_are(self):
        pictures = []
        for others in ([0, 1], [1, 4]):
            mask = np.array([[3, *others]])
            display = MaskDisplay([np.ones((1, 3))], [mask]).plot(alpha=1)
            pictures.append(shown(display.axes_[0, 1])[0, 0])
        np.testing.assert_array_equal(*pictures)

    def test_labels_beyond_the_palette_have_different_colours(self):
        mask = np.array([[-3, 200, 1000]])
        display = MaskDisplay([np.ones((1, 3))], [mask]).plot(alpha=1)
        assert len(np.unique(shown(display.axes_[0, 1])[0], axis=0)) == 3

    def test_a_label_beyond_the_palette_leaves_the_others_theirs(self):
        mask = np.array([[1, 255, 19, 2]])
        display = MaskDisplay([np.ones((1, 4))], [mask]).plot(alpha=1)
        colors = shown(display.axes_[0, 1])[0]
        for place, label in ((0, 1), (2, 19), (3, 2)):
            np.testing.assert_allclose(colors[place], to_rgb(PALETTE[label]))
        assert len(np.unique(colors, axis=0)) == 4

    def test_pixels_that_are_not_finite_do_not_spoil_the_image(self):
        image = np.array([[np.nan, 0.0, 1.0, np.inf, 2.0]])
        picture = shown(MaskDisplay([image], [np.zeros((1, 5), int)]).plot().axes_[0, 0])
        np.testing.assert_allclose(picture[0, :, 0], [0, 0, 0.5, 1, 1], atol=0.01)

    def test_ignored_pixels_keep_the_image_and_are_no_errors(self):
        image = np.array([[0, 50, 100, 200]], dtype=np.uint8)
        true, pred = np.array([[0, 1, 1, 2]]), np.array([[2, 1, 2, 2]])
        display = MaskDisplay([image], [true], [pred], ignore_label=0).plot(errors=True)
        picture, in_true, in_pred, errors = map(shown, display.axes_[0])
        for masked in (in_true, in_pred):
            np.testing.assert_array_equal(masked[0, 0], picture[0, 0])
            assert not np.allclose(masked[0, 1], picture[0, 1])
        is_grey = np.ptp(errors[0], axis=1) < 1e-6
        assert is_grey.tolist() == [True, True, False, True]
        texts = [text.get_text() for text in display.legend_.get_texts()]
        assert texts == ["1", "2", "0: not counted"]

    @pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32, np.float32])
    @pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4)])
    def test_images_of_any_type_and_channels(self, dtype, shape):
        image = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
        before = image.copy()
        picture = shown(MaskDisplay([image]).plot().axes_[0, 0])
        np.testing.assert_array_equal(image, before)
        assert picture.shape == (5, 7, 3)
        assert 0 == picture.min() < picture.max() == 1
        is_grey = np.ptp(picture, axis=2).max() < 1e-9
        assert is_grey == (shape[2:] != (3,))

    def test_images_of_different_sizes(self):
        images = [np.eye(4), np.eye(6), np.zeros((3, 9))]
        masks = [image.astype(int) for image in images]
        display = MaskDisplay(images, masks, masks).plot()
        assert [shown(panel).shape[:2] for panel in display.axes_[:, 1]] == [
            image.shape for image in images
        ]

    def test_from_estimator_equals_from_predictions(self, terrain):
        X, y = terrain[0][:2], terrain[1][:2]
        ours = MaskDisplay.from_estimator(Flipped(), X, y, errors=True)
        theirs = MaskDisplay.from_predictions(
            X, y, Flipped().predict(X), ignore_label=0, errors=True
        )
        assert ours.ignore_label == 0
        np.testing.assert_array_equal(ours.y_pred, theirs.y_pred)
        for one, other in zip(ours.axes_.ravel(), theirs.axes_.ravel(), strict=True):
            np.testing.assert_array_equal(shown(one), shown(other))

    def test_names_are_those_of_the_classes_whatever_is_shown(self):
        X = np.arange(6, dtype=np.uint8).reshape(1, 2, 3) * 40
        y = X // 160 + 1

        class Three:
            classes_ = np.array([1, 2, 3])
            ignore_label = 0

            def predict(self, X):
                return y

        names = ["soil", "bedrock", "sand"]
        true = np.where(X == 0, 0, y)
        display = MaskDisplay.from_estimator(Three(), X, true, target_names=names)
        texts = [text.get_text() for text in display.legend_.get_texts()]
        assert texts == [*names, "0: not counted"]

    def test_ax_is_divided(self, terrain):
        X, y = terrain
        figure, (left, _) = plt.subplots(1, 2)
        display = MaskDisplay(X[:2], y[:2]).plot(ax=left)
        assert display.figure_ is figure
        assert display.axes_.shape == (2, 2)
        assert display.legend_.axes is left

    def test_axes_of_ones_own(self, terrain):
        X, y = terrain
        figure, axes = plt.subplots(2, 2)
        display = MaskDisplay(X[:2], y[:2]).plot(ax=axes)
        assert display.figure_ is figure
        assert (display.axes_ == axes).all()

    def test_wrong_input(self, terrain):
        X, y = terrain
        with pytest.raises(ValueError, match="got 2 images and 3 true masks"):
            MaskDisplay(X[:2], y[:3]).plot()
        with pytest.raises(ValueError, match="errors=True needs both"):
            MaskDisplay(X[:2], y[:2]).plot(errors=True)
        with pytest.raises(ValueError, match=r"1 target_names for the labels \[0, 1"):
            MaskDisplay(X[:2], y[:2], labels=[0, 1, 2], target_names=["a"]).plot()
        with pytest.raises(ValueError, match=r"\(32, 48\) pixels with a true mask of \(1, 48\)"):
            MaskDisplay(X[:2], y[:2, :1]).plot()
        with pytest.raises(ValueError, match="at least one image"):
            MaskDisplay(X[:0], y[:0]).plot()
        with pytest.raises(ValueError, match="at least one image"):
            MaskDisplay(X[:2], y[:2]).plot(images_per_row=0)
        with pytest.raises(ValueError, match="2 x 2"):
            MaskDisplay(X[:2], y[:2]).plot(ax=plt.subplots(1, 3)[1])
        with pytest.raises(ValueError, match="must be a subplot"):
            MaskDisplay(X[:2], y[:2]).plot(ax=plt.figure().add_axes((0, 0, 1, 1)))


class TestLearningCurveDisplay:
    def test_from_history(self):
        rows = [{**row, "phase": phase} for row, phase in zip(HISTORY, PHASES, strict=True)]
        display = LearningCurveDisplay.from_history(rows, best_epoch=1)
        for name in ("train_loss", "valid_loss", "valid_mean_iou", "learning_rate"):
            np.testing.assert_array_equal(getattr(display, name), [row[name] for row in rows])
        assert display.phases == PHASES
        loss, iou, rate = display.axes_
        np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[1, 0.9], [2, 0.6], [3, 0.5]])
        np.testing.assert_array_equal(loss.lines[1].get_ydata(), [1.0, 0.8, 0.9])
        np.testing.assert_array_equal(iou.lines[1].get_xydata(), [[2, 0.5]])
        # The beginning of the second phase, named once.
        assert all(panel.lines[-1].get_xdata()[0] == 2.5 for panel in display.axes_)
        assert [text.get_text().strip() for text in rate.texts] == ["fine tune"]

    def test_from_estimator(self):
        class Fitted:
            history_ = HISTORY
            best_epoch_ = 2

        display = LearningCurveDisplay.from_estimator(Fitted())
        assert display.best_epoch == 2
        assert display.phases is None
        assert len(display.axes_) == 3

    def test_what_is_kept_may_not_be_validated(self):
        rows = [*HISTORY, {"train_loss": 0.4, "learning_rate": 1e-4}]
        display = LearningCurveDisplay.from_history(rows, best_epoch=3)
        assert len(display.axes_[1].lines) == 1
        assert display.axes_[1].get_legend() is None

    def test_without_validation(self):
        rows = [{"train_loss": 0.5, "learning_rate": 1e-3, "phase": "train"}]
        display = LearningCurveDisplay.from_history(rows, best_epoch=0)
        assert [panel.get_title() for panel in display.axes_] == ["loss", "learning rate"]
        assert display.valid_mean_iou is None

    def test_axes_of_ones_own(self):
        figure, (left, _) = plt.subplots(1, 2)
        display = LearningCurveDisplay([1.0, 0.5])
        assert display.plot(ax=left) is display
        assert display.figure_ is figure
        figure, ax = plt.subplots(1, 3)
        assert (LearningCurveDisplay.from_history(HISTORY, ax=ax).axes_ == ax).all()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: MaskDisplay(np.ones((1, 2, 2))).plot(),
        lambda: MaskDisplay.from_estimator(None, np.ones((1, 2, 2))),
        lambda: MaskDisplay.from_predictions(np.ones((1, 2, 2)), None, None),
        lambda: LearningCurveDisplay([1.0]).plot(),
        lambda: LearningCurveDisplay.from_history(HISTORY),
    ],
)
def test_without_matplotlib(monkeypatch, draw):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        ImportError, match=r"Display\.\w+ needs matplotlib, which the extra 'plot'"
    ):
        draw()


def test_class_names():
    names = ["sky", "soil", "rock"]
    assert class_names(np.array([1, 2]), names) == ["soil", "rock"]
    assert class_names([1, 3], names) == ["1", "3"]
    assert class_names([-1, 1], names) == ["-1", "1"]
    assert class_names([1, 2]) == ["1", "2"]


def test_class_names_of_the_classes_alone():
    assert class_names([1, 2, 4], ["soil", "bedrock", "big rock"]) == [
        "soil",
        "bedrock",
        "big rock",
    ]
    assert class_names([1, 2, 4], ["soil", "bedrock"]) == ["1", "2", "4"]


def test_iou_table_leaves_absent_classes_out_of_the_mean():
    table = iou_table({"net": [0.5, np.nan, 1.0], "other": [np.nan] * 3}, ["a", "b", "c"])
    assert [line.split() for line in table.splitlines()] == [
        ["class", "net", "other"],
        ["a", "0.500", "-"],
        ["b", "-", "-"],
        ["c", "1.000", "-"],
        ["mean", "IoU", "0.750", "-"],
    ]
    assert len({len(line) for line in table.splitlines()}) == 1
