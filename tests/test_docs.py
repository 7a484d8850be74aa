"""The code of pages that stand by themselves, as it is written there."""

import re
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

DOCS = Path(__file__).parents[1] / "docs"

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="the documentation is not at hand")


# What makes the trainings of a page short.
SMALL = {
    "MarsSegmenter(ignore_label=0": "MarsSegmenter(depth=2, base_channels=4, max_epochs=1, "
    "precision='float32', ignore_label=0",
    ", time_limit=300": "",
}


def run(page, **names):
    """Names after all Python blocks of a page, one after another."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for there, here in SMALL.items():
        text = text.replace(there, here)
    for block in re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        exec(compile(block, page, "exec"), names)
    return names


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


def test_guide(tmp_path, monkeypatch, terrain):
    pytest.importorskip("onnxruntime")
    X, y = terrain
    monkeypatch.chdir(tmp_path)
    np.savez("mars_for_students.npz", training_set=np.stack([X, y], axis=1))
    groups = np.arange(len(X)) // 2
    names = run("guide.md", X=X, y=y, groups=groups, X_new=X, X_test=X, y_test=y)
    plt.close("all")
    segmenter = names["segmenter"]
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    np.testing.assert_array_equal(names["labels"], segmenter.predict(X))
    assert names["uncertainty"].shape == names["masks"].shape == X.shape
