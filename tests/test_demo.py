import json

import numpy as np
import pytest

from skmars import MarsSegmenter
from skmars.cli import demo
from skmars.cli.demo import run_demo
from skmars.datasets import make_terrain
from skmars.datasets._an2dl import TARGET_NAMES

METHODS = ["segmenter", "grey value", "majority"]
FILES = [
    "confusion_matrix.png",
    "learning_curves.png",
    "masks.png",
    "model.skmars",
    "scores.json",
]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    tiny = {"depth": 2, "base_channels": 4, "batch_size": 8, "precision": "float32"}
    monkeypatch.setattr(demo, "SETTINGS", {**demo.SETTINGS, **tiny, "verbose": 0})


@pytest.fixture
def write(tmp_path, terrain):
    """Write an npz file with 18 training and 6 test images of the fixture `terrain`."""
    X, y = terrain

    def write(relabel=None, **arrays):
        masks = y if relabel is None else relabel[y]
        pairs = np.stack([X, masks], axis=1)
        sources = {"training_set": pairs[:18], "test_set": X[18:], "test_masks": masks[18:]}
        path = tmp_path / "mars.npz"
        kept = {key: value for key, value in sources.items() if arrays.get(key, 1) is not None}
        extra = {key: value for key, value in arrays.items() if value is not None}
        np.savez(path, **kept, **extra)
        return path

    return write


def test_file_with_a_test_set(write, tmp_path, capsys):
    folder = tmp_path / "deep" / "demo"
    figures = run_demo(write(), folder, time_limit=1)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert all(path.stat().st_size > 1000 for path in folder.glob("*.png"))
    assert json.loads((folder / "scores.json").read_text()) == figures
    assert (figures["n_train"], figures["n_test"], figures["ignore_label"]) == (18, 6, 0)
    assert list(figures["iou"]) == list(figures["mean_iou"]) == METHODS
    names = ["soil", "bedrock", "sand", "big rock"]
    assert all(list(values) == names for values in figures["iou"].values())
    out = capsys.readouterr().out
    assert all(word in out for word in [*names, *METHODS, "mean IoU", "Outliers", str(folder)])


def test_saved_model_has_the_score_that_is_told(write, tmp_path, terrain):
    figures = run_demo(write(), tmp_path, time_limit=1)
    segmenter = MarsSegmenter.load(tmp_path / "model.skmars")
    score = segmenter.score(terrain[0][18:], terrain[1][18:])
    assert figures["mean_iou"]["segmenter"] == pytest.approx(score, abs=1e-3)


def test_file_without_test_masks_holds_out_whole_sols(write, tmp_path, monkeypatch):
    sols = np.repeat([3, 5, 8, 9, 11, 12], 3)
    seen = {}

    def fit(self, X, y, *, groups):
        seen.update(X=X, groups=groups)
        return original(self, X, y, groups=groups)

    original = MarsSegmenter.fit
    monkeypatch.setattr(MarsSegmenter, "fit", fit)
    figures = run_demo(write(test_masks=None, training_sol=sols), tmp_path, time_limit=1)
    assert figures["n_train"] + figures["n_test"] == 18
    assert 3 <= figures["n_test"] <= 6
    assert len(seen["X"]) == figures["n_train"] == len(seen["groups"])
    # No sol is on both sides: those left are complete.
    assert np.unique(seen["groups"], return_counts=True)[1].tolist() == [3] * (
        figures["n_train"] // 3
    )


def test_file_without_test_set_and_sols(write, tmp_path):
    figures = run_demo(write(test_set=None, test_masks=None), tmp_path, time_limit=1)
    assert (figures["n_train"], figures["n_test"]) == (14, 4)


def test_too_few_sols_are_told(write, tmp_path, capsys):
    run_demo(write(training_sol=np.zeros(18, dtype=int)), tmp_path, time_limit=1)
    assert "fewer than 2 sols" in capsys.readouterr().out


def test_other_labels_all_count(write, tmp_path, capsys):
    figures = run_demo(write(relabel=np.array([0, 7, 7, 9, 9])), tmp_path, time_limit=1)
    assert figures["ignore_label"] is None
    assert list(figures["iou"]["segmenter"]) == ["0", "7", "9"]
    assert "All labels count" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("relabel", "names", "expected"),
    [
        ([0, 1, 2, 3, 4], None, 0),
        ([0, 1, 2, 3, 4], TARGET_NAMES, 0),
        ([0, 1, 2, 3, 4], ["sky", *TARGET_NAMES[1:]], None),
        ([0, 1, 2, 2, 5], None, None),
        ([1, 1, 2, 3, 4], None, None),
        ([0, 1, 1, 2, 2], None, 0),
        ([0, 1, 1, 1, 1], None, None),
    ],
)
def test_label_0_is_left_out_if_it_is_the_background(write, relabel, names, expected):
    path = write(
        relabel=np.array(relabel), target_names=None if names is None else np.array(names)
    )
    assert demo._read(path, 0).ignore_label() == expected


def test_generated_terrain(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "N_TRAIN", 12)
    monkeypatch.setattr(demo, "N_TEST", 5)
    monkeypatch.setattr(demo, "TIME_LIMIT_GENERATED", 1.0)
    figures = run_demo(output=tmp_path)
    assert (figures["data"], figures["n_train"], figures["n_test"]) == ("generated terrain", 12, 5)
    assert MarsSegmenter.load(tmp_path / "model.skmars").time_limit == 1.0
    assert (tmp_path / "masks.png").exists()


def test_baselines_by_hand():
    X_train = np.array([[[10, 10, 10, 200, 200, 90]]], dtype=np.uint8)
    y_train = np.array([[[1, 1, 2, 2, 2, 0]]])
    X_test, y_test = np.array([[[10, 30, 180, 255]]], dtype=np.uint8), np.array([[[1, 1, 2, 2]]])
    parts = demo._Data("", X_train, y_train, X_test, y_test, None, None, ["a", "b", "c"])
    labels = np.array([1, 2])
    assert demo._majority_baseline(parts, labels).tolist() == [[[2, 2, 2, 2]]]
    assert demo._grey_value_baseline(parts, labels).tolist() == [[[1, 1, 2, 2]]]


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_grey_value_baseline_of_other_types(dtype):
    X, y = make_terrain(4, shape=(16, 24), random_state=0)
    labels = np.unique(y)

    def baseline(images):
        parts = demo._Data("", images, y, images, y, None, None, [])
        return demo._grey_value_baseline(parts, labels)

    np.testing.assert_array_equal(baseline(X), baseline((X * 257.0).astype(dtype)))


def test_varied_images_show_every_class_and_group():
    counts = np.array([[9, 0, 0]] * 20 + [[5, 4, 0]] * 5 + [[5, 0, 4]])
    groups = np.array([0] * 10 + [1] * 10 + [2] * 5 + [3])
    chosen = demo._varied_images(counts, groups, 4)
    assert (counts[chosen].sum(axis=0) > 0).all()
    assert sorted(groups[chosen]) == [0, 1, 2, 3]
    assert len(np.unique(demo._varied_images(counts, None, 8))) == 8
    assert len(demo._varied_images(counts[:3], None, 8)) == 3


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        run_demo(tmp_path / "none.npz", tmp_path)
