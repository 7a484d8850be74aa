import importlib.util

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from skmars import MarsSegmenter
from skmars.cli import main

LABELS = np.array([1, 4, 200], dtype=np.uint8)


def make_session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def assert_same(session, segmenter, X):
    """Labels and probabilities of a graph are those of the segmenter."""
    labels, probabilities = session.run(None, {"images": X.astype(np.float32)})
    expected = segmenter.predict_proba(X)
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    # Where two classes are as good as equally probable, rounding decides.
    first, second = np.sort(expected, axis=1)[:, :-3:-1].swapaxes(0, 1)
    clear = first - second > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(labels[clear], segmenter.predict(X)[clear])


@pytest.fixture(scope="module")
def segmenter(terrain):
    X, y = terrain
    params = {"depth": 2, "base_channels": 4, "max_epochs": 3, "precision": "float32"}
    return MarsSegmenter(**params, learning_rate=1e-2, random_state=0).fit(X, LABELS[y % 3])


@pytest.fixture(scope="module")
def exported(segmenter, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    segmenter.export_onnx(path)
    return path


@pytest.mark.parametrize("shape", [(3, 32, 48), (1, 37, 51), (2, 1, 7), (5, 64, 24)])
def test_images_of_any_number_and_size_get_the_labels_of_predict(shape, segmenter, exported):
    X = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert_same(make_session(exported), segmenter, X)


def test_training_images_get_the_labels_of_predict(terrain, segmenter, exported):
    assert_same(make_session(exported), segmenter, terrain[0])


def test_file_tells_what_it_is(exported):
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["classes"] == "1,4,200"
    session = make_session(exported)
    (images,) = session.get_inputs()
    labels, probabilities = session.get_outputs()
    assert (images.name, images.type) == ("images", "tensor(float)")
    assert (labels.name, labels.type) == ("labels", "tensor(int64)")
    assert probabilities.name == "probabilities"
    assert probabilities.shape[1] == 3


def test_no_file_is_left_where_the_export_fails(segmenter, tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        segmenter.export_onnx(tmp_path / "nowhere" / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_what_stood_there_stays_whole_where_the_export_fails(segmenter, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"an earlier model")

    def crash(*args, **kwargs):
        raise RuntimeError("unsupported")

    monkeypatch.setattr(torch.onnx, "export", crash)
    with pytest.raises(RuntimeError, match="unsupported"):
        segmenter.export_onnx(path)
    assert path.read_bytes() == b"an earlier model"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_packages_are_named(segmenter, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    with pytest.raises(ImportError, match="needs onnxscript, which the extra 'onnx'"):
        segmenter.export_onnx(tmp_path / "model.onnx")


@pytest.mark.slow
def test_command_exports_colour_and_temperature_without_flips(terrain, fast, tmp_path, capsys):
    X, y = terrain
    X = np.stack([X, 255 - X, X // 2], axis=-1)
    segmenter = MarsSegmenter(**fast, patch_size=1, calibration="temperature").fit(X, y)
    assert abs(segmenter.temperature_ - 1) > 0.05
    segmenter.save(tmp_path / "model.skmars")
    paths = [str(tmp_path / name) for name in ("model.skmars", "model.onnx")]
    assert main(["export", *paths]) == 0
    assert "exported" in capsys.readouterr().out
    assert_same(make_session(paths[1]), segmenter, X[:3, :29, :37])


@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [
        {"depth": 4, "aspp": False, "skip": "add"},
        {"skip": "fusion", "block": "plain", "attention": False, "dropout": 0.2},
    ],
    ids=str,
)
def test_every_kind_of_net_in_colour(params, terrain, fast, tmp_path):
    X, y = terrain
    X = np.stack([X, 255 - X, X // 2], axis=-1)
    segmenter = MarsSegmenter(**{**fast, **params}).fit(X, y)
    segmenter.export_onnx(tmp_path / "model.onnx")
    assert_same(make_session(tmp_path / "model.onnx"), segmenter, X[:3, :29, :37])
