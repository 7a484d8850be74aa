"""The code of pages that stand by themselves, as it is written there."""

import re
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from skmars import MarsSegmenter
from skmars.prediction.checkpoints import Checkpoint

DOCS = Path(__file__).parents[1] / "docs"

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the documentation is not at hand")


# What makes the trainings of a page short.
SMALL = {
    "MarsSegmenter(ignore_label=0": "MarsSegmenter(depth=2, base_channels=4, max_epochs=1, "
    "precision='float32', ignore_label=0",
    ", time_limit=300": "",
}


# What is a package that the project does without.
MISSING = "import rasterio"


def page_text(page):
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page):
    """Python blocks of a page, with what makes its trainings short."""
    text = page_text(page)
    for there, here in SMALL.items():
        text = text.replace(there, here)
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def run(page, leave_out=MISSING, **names):
    """Names after the Python blocks of a page, one after another."""
    for block in blocks(page):
        if leave_out not in block:
            exec(compile(block, page, "exec"), names)
    return names


def test_what_makes_the_trainings_short_is_on_some_page():
    text = "".join(page_text(page) for page in ("guide.md", "pipelines.md", "large_images.md"))
    assert [there for there in SMALL if there not in text] == []


def test_pipelines():
    names = run("pipelines.md")
    assert names["masks"].shape == names["y"].shape
    assert names["pipeline"]["outliers"].outlier_mask_.sum() == 6
    assert names["smaller"].predict(names["X"]).shape == (48, 16, 24)
    assert len(names["X_train"]) + len(names["X_val"]) + len(names["X_test"]) == 48
    assert np.isfinite(names["search"].cv_results_["mean_test_iou_3"]).all()
    assert np.isfinite(names["scores"]["test_score"]).all()
    groups = np.array(names["groups"])
    for train, test in names["folds"].split(names["X"], names["y"], groups):
        assert not set(groups[train]) & set(groups[test])


@pytest.fixture
def guide_names(tmp_path, monkeypatch, terrain):
    """What the guide takes for granted, in a folder of its own."""
    X, y = terrain
    monkeypatch.chdir(tmp_path)
    np.savez("mars_for_students.npz", training_set=np.stack([X, y], axis=1))
    groups = np.arange(len(X)) // 2
    yield {"X": X, "y": y, "groups": groups, "X_new": X, "X_test": X, "y_test": y}
    plt.close("all")


def test_guide(guide_names):
    names = run("guide.md", leave_out="export_onnx", **guide_names)
    assert Path("confusion.png").stat().st_size > 1000
    assert names["uncertainty"].shape == names["masks"].shape == names["X"].shape


@pytest.mark.slow
def test_guide_with_its_export(guide_names):
    pytest.importorskip("onnxruntime")
    names = run("guide.md", **guide_names)
    np.testing.assert_array_equal(names["labels"], names["segmenter"].predict(names["X"]))


def test_tiles_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 5, shape, dtype=np.uint8) for shape in [(130, 260), (64, 128)]]
    for folder in ("images", "masks"):
        Path(folder).mkdir()
        for number, array in enumerate(arrays):
            Image.fromarray(array).save(f"{folder}/{number}.png")
    names = {}
    exec(next(block for block in blocks("data.md") if "def tiles" in block), names)
    assert names["X"].shape == names["y"].shape == (5, 64, 128)
    np.testing.assert_array_equal(names["X"][1], arrays[0][:64, 128:256])
    np.testing.assert_array_equal(names["y"][2], arrays[0][64:128, :128])
    np.testing.assert_array_equal(names["groups"], [0, 0, 0, 0, 1])


def test_large_images(tmp_path, monkeypatch, terrain, fast):
    X, y = terrain
    monkeypatch.chdir(tmp_path)
    mosaic = np.random.default_rng(0).integers(1, 255, (300, 270), dtype=np.uint8)
    mosaic[:, :20] = 0
    np.save("mosaic.npy", mosaic)
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 1}).fit(X, y)
    noted, add = [], Checkpoint.add

    def add_and_stop(self, strips):
        if noted:
            raise KeyboardInterrupt
        add(self, strips)
        noted.append(len(strips[0]))

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "add", add_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run("large_images.md", X=X, segmenter=segmenter)
    expected, killed = segmenter.predict(mosaic[None])[0], np.load("labels.npy")
    np.testing.assert_array_equal(killed[: noted[0]], expected[: noted[0]])
    assert not killed[200:].any()
    # The same script once more: what was there is needed by the checkpoint.
    names = run("large_images.md", X=X, segmenter=segmenter)
    assert not Path("labels.checkpoint").exists()
    assert (names["labels"][:, :20] == 255).all()
    assert np.isin(names["labels"][:, 20:], segmenter.classes_).all()
