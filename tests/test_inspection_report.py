"""Heat maps, the confusion matrix and the report, as a user meets them."""

import base64
import copy
import io
import re
from html.parser import HTMLParser

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from grey_levels import GreyLevels
from pictures import shown
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.metrics import confusion_matrix
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skmars import Ensemble, MarsSegmenter, OutlierRemover
from skmars.inspection import (
    AttentionDisplay,
    ConfusionDisplay,
    HeatMapDisplay,
    LearningCurveDisplay,
    MaskDisplay,
    ReliabilityDisplay,
    SparsificationDisplay,
    UncertaintyDisplay,
    write_report,
)
from skmars.metrics import expected_calibration_error, iou_per_class, mean_iou_score
from skmars.nn import AttentionGate
from skmars.pipeline import SegmentationPipeline

NAMES = ["background", "soil <fine>", "bedrock", "sand", "big rock"]


@pytest.fixture(scope="module")
def fitted(terrain):
    return MarsSegmenter(
        depth=2, base_channels=4, max_epochs=2, precision="float32", ignore_label=0, random_state=0
    ).fit(*terrain)


@pytest.fixture(scope="module")
def ensemble(fitted, terrain):
    return Ensemble(fitted, n_members=2, random_state=0).fit(*terrain)


class Unsure(GreyLevels):
    """Labels pixels with the first class unless it is sure of another."""

    def predict_proba(self, X):
        pixels = self._pixels(X)
        p = self.colours_.predict_proba(pixels.reshape(-1, self.n_channels_in_))
        return np.moveaxis(p.reshape(*pixels.shape[:3], -1), -1, 1)

    def predict(self, X):
        p = self.predict_proba(X)
        return self.classes_[np.where(p.max(axis=1) > 0.9, p.argmax(axis=1), 0)]


class Page(HTMLParser):
    """Texts, pictures and links of a page."""

    def __init__(self, path):
        super().__init__()
        self.cells, self.pictures, self.links, self.headings = [], [], [], []
        self.tag = ""
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.tag = tag
        for name, value in attrs:
            if name == "src":
                self.pictures.append(value)
            elif name == "href":
                self.links.append(value)

    def handle_data(self, data):
        if data.strip():
            if self.tag in ("th", "td"):
                self.cells.append(data)
            elif self.tag in ("h1", "h2"):
                self.headings.append(data)

    def table(self):
        return dict(zip(self.cells[::2], self.cells[1::2], strict=True))


class TestHeatMaps:
    def test_draws_each_map_beside_its_image(self):
        images = [np.eye(4), np.eye(6)]
        maps = {"one": [np.zeros((2, 2)), np.ones((6, 6))], "two": [np.ones((4, 4))] * 2}
        display = HeatMapDisplay(images, maps).plot()
        assert display.axes_.shape == (2, 3)
        assert [panel.get_title() for panel in display.axes_[0]] == ["image", "one", "two"]
        np.testing.assert_array_equal(shown(display.axes_[0, 1]), maps["one"][0])
        # One scale for all maps of a title.
        assert display.axes_[0, 1].images[0].get_clim() == (0, 1)

    def test_limits_are_those_of_all_maps(self):
        maps = {"one": [np.zeros((4, 4))], "two": [np.full((4, 4), 3.0)]}
        display = HeatMapDisplay([np.eye(4)], maps, limits=(-1, 5)).plot()
        assert [panel.images[0].get_clim() for panel in display.axes_[0, 1:]] == [(-1, 5)] * 2

    @pytest.mark.parametrize("maps", [{}, [np.ones((1, 4, 4))], {"one": [np.ones((4, 4))] * 2}])
    def test_says_what_is_wrong(self, maps):
        with pytest.raises(ValueError, match="maps"):
            HeatMapDisplay([np.eye(4)], maps).plot()

    def test_uncertainty_is_the_entropy_of_the_probabilities(self, fitted, terrain):
        X, _ = terrain
        display = UncertaintyDisplay.from_estimator(fitted, X[:2])
        p = fitted.predict_proba(X[:2])
        expected = -(p * np.log(p)).sum(axis=1) / np.log(p.shape[1])
        np.testing.assert_allclose(shown(display.axes_[1, 1]), expected[1], atol=1e-5)
        again = UncertaintyDisplay.from_predictions(X[:2], p)
        np.testing.assert_allclose(shown(again.axes_[1, 1]), shown(display.axes_[1, 1]))

    def test_uncertainty_of_an_ensemble_has_two_kinds(self, ensemble, terrain):
        X, _ = terrain
        display = UncertaintyDisplay.from_estimator(ensemble, X[:2])
        assert list(display.maps) == ["entropy", "disagreement"]
        expected = ensemble.predict_uncertainty(X[:2])
        np.testing.assert_allclose(display.maps["disagreement"], expected)

    def test_attention_is_what_the_skips_are_multiplied_by(self, fitted, terrain):
        X, _ = terrain
        display = AttentionDisplay.from_estimator(make_pipeline(fitted), X[:3])
        assert list(display.maps) == ["level 1"]
        assert [np.shape(maps) for maps in display.maps.values()] == [(3, 16, 24)]
        assert all(0 < np.min(maps) < np.max(maps) < 1 for maps in display.maps.values())
        # With gates that are wide open the net gets the skips as they are.
        gates = [part for part in fitted.net_.module_.modules() if hasattr(part, "score")]
        before = [gate.score.bias.detach().clone() for gate in gates]
        try:
            for gate in gates:
                torch.nn.init.constant_(gate.score.bias, 100.0)
            maps = AttentionDisplay.from_estimator(fitted, X[:3]).maps
            assert all(np.min(values) > 0.999 for values in maps.values())
        finally:
            for gate, bias in zip(gates, before, strict=True):
                gate.score.bias.data = bias

    def test_attention_in_a_pipeline_is_that_of_what_the_net_gets(self, fitted, terrain):
        X = terrain[0][:3]
        inner = SegmentationPipeline(
            [
                ("outliers", OutlierRemover()),
                ("as it is", "passthrough"),
                ("upside down", FunctionTransformer(np.flip, kw_args={"axis": 1})),
                ("segment", fitted),
            ]
        )
        pipeline = make_pipeline(FunctionTransformer(np.invert), inner)
        display = AttentionDisplay.from_estimator(pipeline, X)
        expected = AttentionDisplay.from_estimator(fitted, np.invert(X)[:, ::-1])
        np.testing.assert_array_equal(display.maps["level 1"], expected.maps["level 1"])
        assert display.images is X

    def test_attention_of_images_of_any_kind(self, fitted, terrain):
        X = terrain[0]
        mirrored = AttentionDisplay.from_estimator(fitted, X[:3, :, ::-1])
        copied = AttentionDisplay.from_estimator(fitted, X[:3, :, ::-1].copy())
        several = AttentionDisplay.from_estimator(fitted, [X[0, :, ::-1], X[1, :20]])
        for level, maps in copied.maps.items():
            np.testing.assert_array_equal(mirrored.maps[level], maps)
            np.testing.assert_allclose(several.maps[level][0], maps[0], atol=1e-5)
        # At half of the resolution: the first level is of patches.
        assert several.maps["level 1"][1].shape == (10, 24)

    def test_attention_computes_as_prediction_does(self, fitted, terrain):
        segmenter, seen = copy.deepcopy(fitted).set_params(n_threads=1), []

        def note(gate, inputs):
            seen.append((torch.get_num_threads(), (torch.tensor([1e-38]) * 0.01).item()))

        gates = [
            part for part in segmenter.net_.module_.modules() if isinstance(part, AttentionGate)
        ]
        gates[0].register_forward_pre_hook(note)
        AttentionDisplay.from_estimator(segmenter, terrain[0][:3])
        # One thread, and no denormal numbers.
        assert seen == [(1, 0.0)] * 3

    def test_attention_leaves_the_segmenter_as_it_was(self, fitted, terrain):
        X, _ = terrain
        before = fitted.predict_proba(X[:2])
        AttentionDisplay.from_estimator(fitted, X[:2])
        np.testing.assert_array_equal(fitted.predict_proba(X[:2]), before)
        assert not any(part._forward_hooks for part in fitted.net_.module_.modules())

    def test_attention_needs_gates(self, terrain, fast):
        segmenter = MarsSegmenter(**fast, attention=False).fit(*terrain)
        with pytest.raises(ValueError, match="no attention gates"):
            AttentionDisplay.from_estimator(segmenter, terrain[0][:1])

    def test_attention_needs_a_net(self, terrain):
        with pytest.raises(TypeError, match="GreyLevels has no net to look into"):
            AttentionDisplay.from_estimator(GreyLevels().fit(*terrain), terrain[0][:1])


class TestConfusion:
    def test_shows_shares_of_each_true_class(self):
        display = ConfusionDisplay([[3, 1], [0, 0]], ["soil", "sand"]).plot()
        np.testing.assert_allclose(display.shares_, [[0.75, 0.25], [0, 0]])
        np.testing.assert_allclose(shown(display.ax_), display.shares_)
        assert [text.get_text() for text in display.ax_.get_xticklabels()] == ["soil", "sand"]

    def test_needs_classes(self, terrain):
        class Dark(BaseEstimator):
            def fit(self, X, y):
                return self

            def predict(self, X):
                return np.zeros(X.shape, int)

        with pytest.raises(ValueError, match="Dark has no attribute classes_"):
            ConfusionDisplay.from_estimator(Dark().fit(*terrain), *terrain)

    @pytest.mark.parametrize("in_pipeline", [False, True])
    def test_is_that_of_scikit_learn(self, in_pipeline, fitted, terrain):
        X, y = terrain
        estimator = make_pipeline(FunctionTransformer(), fitted) if in_pipeline else fitted
        ax = plt.subplots()[1]
        display = ConfusionDisplay.from_estimator(estimator, X, y, ax=ax)
        predicted, labelled = fitted.predict(X), y != 0
        expected = confusion_matrix(y[labelled], predicted[labelled], normalize="true")
        np.testing.assert_allclose(display.shares_, expected)
        assert display.ax_ is ax
        assert display.figure_ is ax.figure
        assert [text.get_text() for text in ax.get_yticklabels()] == ["1", "2", "3", "4"]

    def test_of_weights_as_well_as_of_counts(self):
        display = ConfusionDisplay(np.array([[3, 1], [0, 0]]) / 100, ["a", "b"]).plot()
        np.testing.assert_allclose(display.shares_, [[0.75, 0.25], [0, 0]])

    def test_of_masks_of_different_sizes(self):
        y_true = [np.array([[0, 1, 9]]), np.array([[1], [1]])]
        y_pred = [np.array([[0, 0, 1]]), np.array([[1], [0]])]
        how = {"labels": [0, 1], "ignore_label": 9, "target_names": ["a", "b"]}
        display = ConfusionDisplay.from_predictions(y_true, y_pred, **how)
        np.testing.assert_allclose(display.shares_, [[1, 0], [2 / 3, 1 / 3]])

    def test_predictions_of_no_class_count_in_the_shares(self):
        display = ConfusionDisplay.from_predictions([[[1, 1, 2]]], [[[1, 3, 2]]], labels=[1, 2])
        np.testing.assert_allclose(display.shares_, [[0.5, 0], [0, 1]])

    def test_labels_are_those_of_the_masks_unless_given(self):
        masks = [[[1, 1, 2, 9]]], [[[1, 4, 2, 1]]]
        display = ConfusionDisplay.from_predictions(*masks, ignore_label=9)
        assert display.target_names == ["1", "2", "4"]
        np.testing.assert_allclose(display.shares_, [[0.5, 0, 0.5], [0, 1, 0], [0, 0, 0]])

    @pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.9])
    def test_numbers_stand_out_from_their_cells(self, share):
        rest = (1 - share) / 2
        counts = np.full((3, 3), rest) + (share - rest) * np.eye(3)
        display = ConfusionDisplay(counts, ["a", "b", "c"]).plot()
        for text, shown_share in zip(display.ax_.texts, counts.ravel(), strict=True):
            cell = display.ax_.images[0].cmap(shown_share)[:3]
            assert np.abs(np.mean(cell) - np.mean(text.get_color()[:3])) > 0.25

    def test_needs_a_name_for_each_class(self):
        with pytest.raises(ValueError, match=r"\(2, 2\) and 3 target_names"):
            ConfusionDisplay(np.eye(2), ["a", "b", "c"]).plot()


class TestReport:
    @pytest.fixture
    def page(self, fitted, terrain, tmp_path):
        write_report(tmp_path / "report.html", fitted, *terrain, target_names=NAMES, title="a & b")
        return Page(tmp_path / "report.html")

    def test_tells_the_scores(self, page, fitted, terrain):
        X, y = terrain
        predicted = fitted.predict(X)
        how = {"labels": fitted.classes_, "ignore_label": 0}
        table = page.table()
        assert table["mean IoU"] == f"{mean_iou_score(y, predicted, **how):.3f}"
        for name, value in zip(NAMES[1:], iou_per_class(y, predicted, **how), strict=True):
            assert table[f"IoU of {name}"] == f"{value:.3f}"
        assert 0 <= float(table["pixel accuracy"]) <= 1

    def test_tells_what_differs_from_the_defaults(self, page, fitted):
        table = page.table()
        assert table["base_channels"] == "4"
        assert table["ignore_label"] == "0"
        assert table["n_parameters_"] == f"{fitted.n_parameters_:,}"
        assert "batch_size" not in table

    def test_is_one_file_with_its_pictures(self, page):
        assert len(page.pictures) == len(page.headings) - 3 == 5
        assert not page.links
        assert "http" not in page.text
        for picture in page.pictures:
            kind, data = picture.split(",")
            assert kind == "data:image/png;base64"
            assert min(Image.open(io.BytesIO(base64.b64decode(data))).size) > 200

    def test_names_cannot_break_the_page(self, page):
        assert page.headings[0] == "a & b"
        assert "soil <fine>" not in page.text
        assert "soil &lt;fine&gt;" in page.text

    def test_of_a_pipeline(self, fitted, terrain, tmp_path):
        X, y = terrain
        pipeline = make_pipeline(FunctionTransformer(), fitted)
        write_report(tmp_path / "report.html", pipeline, X, y, target_names=NAMES)
        page = Page(tmp_path / "report.html")
        expected = mean_iou_score(y, fitted.predict(X), labels=fitted.classes_, ignore_label=0)
        assert page.table()["mean IoU"] == f"{expected:.3f}"
        assert len(page.pictures) == 5

    def test_of_what_has_neither_history_nor_probabilities(self, terrain, tmp_path):
        X, y = terrain
        estimator = GreyLevels().fit(X, y)
        write_report(tmp_path / "report.html", estimator, X, y)
        page = Page(tmp_path / "report.html")
        # Beside the title and the two tables.
        assert page.headings[3:] == [
            "Confusion matrix",
            "Masks, from the most errors to the fewest",
        ]
        assert len(page.pictures) == 2
        assert page.table()["mean IoU"] == f"{mean_iou_score(y, estimator.predict(X)):.3f}"

    def test_of_an_ensemble(self, ensemble, terrain, tmp_path):
        X, y = terrain
        write_report(tmp_path / "report.html", ensemble, X, y)
        page = Page(tmp_path / "report.html")
        # Its members have histories, it has none.
        assert "Training" not in page.headings
        assert len(page.pictures) == len(page.headings) - 3 == 4
        assert page.table()["mean IoU"] == f"{ensemble.score(X, y):.3f}"

    @pytest.mark.parametrize("kind", ["fitted", "ensemble"])
    def test_predicts_probabilities_alone(self, kind, request, terrain, tmp_path, monkeypatch):
        X, y = terrain
        estimator = request.getfixturevalue(kind)
        score = estimator.score(X, y)
        monkeypatch.setattr(type(estimator), "predict", None)
        write_report(tmp_path / "report.html", estimator, X, y)
        assert Page(tmp_path / "report.html").table()["mean IoU"] == f"{score:.3f}"
        SparsificationDisplay.from_estimator(estimator, X, y)

    def test_masks_are_those_of_predict_whatever_is_most_probable(self, terrain, tmp_path):
        X, y = terrain
        estimator = Unsure().fit(X, y)
        right = np.mean(estimator.predict(X) == y)
        most_probable = estimator.classes_[estimator.predict_proba(X).argmax(axis=1)]
        assert right != np.mean(most_probable == y)
        write_report(tmp_path / "report.html", estimator, X, y)
        table = Page(tmp_path / "report.html").table()
        assert table["pixel accuracy"] == f"{right:.3f}"
        display = SparsificationDisplay.from_estimator(estimator, X, y)
        assert display.errors["entropy"][0] == pytest.approx(1 - right)

    def test_of_images_of_different_sizes(self, fitted, terrain, tmp_path):
        X, y = terrain
        images, masks = [X[0], X[1][:20]], [y[0], y[1][:20]]
        write_report(tmp_path / "report.html", fitted, images, masks)
        assert re.search(r"<th>images</th><td>2</td>", Page(tmp_path / "report.html").text)

    def test_of_nested_lists(self, terrain, fast, tmp_path):
        X, y = terrain
        segmenter = MarsSegmenter(**{**fast, "max_epochs": 1}).fit(X, y)
        write_report(tmp_path / "page.html", segmenter, X[:6], y[:6].tolist())
        assert (tmp_path / "page.html").exists()

    def test_refuses_labels_that_the_segmenter_does_not_know(self, fitted, terrain, tmp_path):
        X, y = terrain
        with pytest.raises(ValueError, match=r"\[9\] that are not among the classes"):
            write_report(tmp_path / "page.html", fitted, X, np.where(y == 4, 9, y))

    def test_refuses_what_does_not_fit(self, fitted, terrain, tmp_path):
        X, y = terrain
        with pytest.raises(ValueError, match="23 masks"):
            write_report(tmp_path / "report.html", fitted, X, y[:-1])
        with pytest.raises(NotFittedError):
            write_report(tmp_path / "report.html", MarsSegmenter(), X, y)
        with pytest.raises(ValueError, match="n_images=0"):
            write_report(tmp_path / "report.html", fitted, X, y, n_images=0)
        with pytest.raises(ValueError, match="of 0"):
            write_report(tmp_path / "report.html", fitted, X[:0], y[:0])
        with pytest.raises(FileNotFoundError, match="nowhere"):
            write_report(tmp_path / "nowhere" / "report.html", fitted, X, y)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("display", [ConfusionDisplay, ReliabilityDisplay, SparsificationDisplay])
def test_labels_that_the_segmenter_does_not_know(display, fitted, terrain):
    X, y = terrain
    with pytest.raises(ValueError, match=r"\[9\] that are not among the classes"):
        display.from_estimator(fitted, X, np.where(y == 4, 9, y))


def test_learning_curves_of_what_has_none(fitted):
    display = LearningCurveDisplay.from_estimator(make_pipeline(FunctionTransformer(), fitted))
    assert display.best_epoch == fitted.best_epoch_
    with pytest.raises(NotFittedError):
        LearningCurveDisplay.from_estimator(MarsSegmenter())
    with pytest.raises(ValueError, match="no history"):
        LearningCurveDisplay.from_estimator(FunctionTransformer().fit([[1.0]]))


def test_displays_ask_the_segmenter_within_a_pipeline(fitted, terrain):
    X, y = terrain
    pipeline = make_pipeline(FunctionTransformer(), fitted)
    assert MaskDisplay.from_estimator(pipeline, X[:2], y[:2]).ignore_label == 0
    display = ReliabilityDisplay.from_estimator(pipeline, X, y)
    expected = expected_calibration_error(
        y, fitted.predict_proba(X), labels=fitted.classes_, ignore_label=0
    )
    assert display.error == pytest.approx(expected)
