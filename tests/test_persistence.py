import io
import json
import os
import pickle
import re
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback

from skmars import Augmenter, Ensemble, MarsSegmenter
from skmars.device import Arithmetic, choose_device


@pytest.fixture(scope="module")
def fitted(terrain):
    segmenter = MarsSegmenter(
        depth=2,
        base_channels=4,
        max_epochs=2,
        batch_size=8,
        precision="float32",
        random_state=0,
        n_threads=1,
        dropout=0.2,
        freeze="encoder",
        fine_tune_epochs=1,
        class_weight={4: 2.0, 0: np.float32(0.5)},
        dilation_rates=(1, 3),
        loss="focal+dice",
        loss_params={"gamma": 1.5, "dice_weight": 2},
        scheduler_params={"final": 0.1},
    )
    return segmenter.fit(*terrain)


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "segmenter.skmars"
    fitted.save(path)
    return path


@pytest.fixture(scope="module")
def saved_ensemble(terrain, fast_for_all, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "ensemble.skmars"
    ensemble = Ensemble(MarsSegmenter(**fast_for_all), n_members=2, random_state=0)
    ensemble.fit(*terrain).save(path)
    return path


def state_of(segmenter):
    return segmenter.net_.module_.state_dict()


def files_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


# Round trips


def test_loaded_segmenter_predicts_the_same(fitted, saved, terrain):
    loaded = MarsSegmenter.load(saved)
    assert type(loaded) is MarsSegmenter
    np.testing.assert_array_equal(
        loaded.predict_proba(terrain[0]), fitted.predict_proba(terrain[0])
    )
    np.testing.assert_array_equal(loaded.predict(terrain[0]), fitted.predict(terrain[0]))
    assert loaded.predict(terrain[0]).dtype == fitted.predict(terrain[0]).dtype
    assert loaded.score(*terrain) == fitted.score(*terrain)


def test_loaded_segmenter_has_the_same_parameters(fitted, saved):
    loaded = MarsSegmenter.load(saved)
    assert loaded.get_params() == fitted.get_params()
    assert isinstance(loaded.dilation_rates, tuple)
    assert all(type(label) is int for label in loaded.class_weight)
    assert {name: type(value) for name, value in loaded.get_params().items()} == {
        name: type(value) for name, value in fitted.get_params().items()
    }


def test_loaded_segmenter_has_the_same_attributes(fitted, saved):
    loaded = MarsSegmenter.load(saved)
    names = {name for name in vars(fitted) if name.endswith("_") and name != "net_"}
    assert names <= set(vars(loaded))
    for name in names:
        ours, theirs = getattr(fitted, name), getattr(loaded, name)
        np.testing.assert_equal(theirs, ours)
        assert type(theirs) is type(ours), name
        if isinstance(ours, np.ndarray):
            assert theirs.dtype == ours.dtype, name
    for name, value in state_of(fitted).items():
        assert torch.equal(value, state_of(loaded)[name])


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int64, bool])
def test_labels_keep_their_dtype(dtype, terrain, fast, tmp_path):
    X, y = terrain
    segmenter = MarsSegmenter(**fast).fit(X, (y > 1).astype(dtype))
    segmenter.save(tmp_path / "file")
    loaded = MarsSegmenter.load(tmp_path / "file")
    assert loaded.classes_.dtype == dtype
    assert loaded.predict(X).dtype == dtype


@pytest.mark.parametrize(
    "params",
    [
        {"block": "plain", "skip": "fusion", "attention": False, "aspp": False, "depth": 3},
        {"class_weight": "balanced", "max_class_weight": 3.0, "ignore_label": 0},
        {"class_weight": {np.int64(2): 3.0}, "learning_rate": np.float32(0.01)},
        {"dilation_rates": (3,)},
        {"loss_params": {}, "scheduler": None, "validation_fraction": None},
        {"tta": True, "batch_size": np.int64(4)},
    ],
    ids=str,
)
def test_parameters_come_back_equal(params, terrain, fast, tmp_path):
    X, y = terrain
    segmenter = MarsSegmenter(**{**fast, **params}).fit(X, y)
    segmenter.save(tmp_path / "file")
    loaded = MarsSegmenter.load(tmp_path / "file")
    assert loaded.get_params() == segmenter.get_params()
    np.testing.assert_array_equal(loaded.predict_proba(X), segmenter.predict_proba(X))


def test_nan_in_the_history_is_kept(terrain, fast, tmp_path):
    segmenter = MarsSegmenter(**fast, validation_fraction=None).fit(*terrain)
    segmenter.partial_fit(*terrain)
    segmenter.history_[-1]["valid_loss"] = float("nan")
    segmenter.save(tmp_path / "file")
    rows = MarsSegmenter.load(tmp_path / "file").history_
    assert np.isnan(rows[-1]["valid_loss"])


@pytest.mark.parametrize("kind", [str, Path])
def test_any_path_will_do(kind, fitted, tmp_path):
    path = kind(tmp_path / "a file")
    fitted.save(path)
    assert MarsSegmenter.load(path).classes_.tolist() == [0, 1, 2, 3, 4]


def test_a_saved_file_can_be_moved(saved, terrain, fitted, tmp_path):
    copy = tmp_path / "copy"
    copy.write_bytes(saved.read_bytes())
    np.testing.assert_array_equal(
        MarsSegmenter.load(copy).predict(terrain[0]), fitted.predict(terrain[0])
    )


def test_what_is_saved_is_the_net_that_was_trained(fitted, terrain, tmp_path):
    changed = pickle.loads(pickle.dumps(fitted)).set_params(depth=3, batch_size=5)
    changed.save(tmp_path / "file")
    copy = MarsSegmenter.load(tmp_path / "file")
    assert (copy.depth, copy.batch_size) == (2, 5)
    np.testing.assert_array_equal(copy.predict(terrain[0]), fitted.predict(terrain[0]))


def test_saved_on_a_device_that_is_not_here(fitted, terrain, tmp_path):
    elsewhere = pickle.loads(pickle.dumps(fitted)).set_params(device="cuda:7")
    elsewhere.save(tmp_path / "file")
    with pytest.warns(UserWarning, match="cuda:7.*'auto'"):
        copy = MarsSegmenter.load(tmp_path / "file")
    assert copy.device == "auto"
    assert copy.predict(terrain[0]).shape == terrain[1].shape


@pytest.mark.parametrize("name", ["auto", "cuda:7"])
def test_pickled_on_a_device_that_is_not_here(name, fitted, terrain, monkeypatch):
    elsewhere = pickle.loads(pickle.dumps(fitted)).set_params(device=name)
    elsewhere.device_ = elsewhere.net_.device = "cuda:7"
    elsewhere.net_.arithmetic = Arithmetic("bfloat16", channels_last=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(UserWarning, match="cuda") as caught:
        copy = pickle.loads(pickle.dumps(elsewhere))
    told = [one.filename for one in caught if "loaded with device='auto'" in str(one.message)]
    assert told == ([] if name == "auto" else [__file__])
    assert copy.device == "auto"
    assert copy.device_ == copy.net_.device == choose_device("auto")
    assert copy.precision_ == copy.net_.arithmetic.precision == "float32"
    np.testing.assert_allclose(
        copy.predict_proba(terrain[0]), fitted.predict_proba(terrain[0]), atol=1e-5
    )
    copy.partial_fit(*terrain)


@pytest.mark.parametrize("how", ["pickle", "joblib"])
def test_pickle_and_joblib_round_trip(how, fitted, terrain, tmp_path):
    if how == "pickle":
        copy = pickle.loads(pickle.dumps(fitted))
    else:
        joblib.dump(fitted, tmp_path / "file")
        copy = joblib.load(tmp_path / "file")
    np.testing.assert_array_equal(copy.predict_proba(terrain[0]), fitted.predict_proba(terrain[0]))
    assert copy.get_params() == fitted.get_params()
    assert copy.history_ == fitted.history_


def test_pickle_does_not_hold_the_training_images(fast, tmp_path):
    X = np.random.default_rng(0).integers(0, 255, (50, 64, 128), dtype=np.uint8)
    segmenter = MarsSegmenter(**{**fast, "max_epochs": 1, "base_channels": 2}).fit(X, X > 100)
    assert len(pickle.dumps(segmenter)) < X.nbytes / 2


def test_unfitted_segmenter_can_be_pickled_and_not_saved(fast, tmp_path):
    segmenter = MarsSegmenter(**fast)
    assert pickle.loads(pickle.dumps(segmenter)).get_params() == segmenter.get_params()
    with pytest.raises(NotFittedError):
        segmenter.save(tmp_path / "file")
    assert files_in(tmp_path) == []


# To go on afterwards


def go_on(copy, terrain, *, warm_start):
    before = {name: value.clone() for name, value in state_of(copy).items()}
    n_before = copy.n_iter_
    if warm_start:
        copy.set_params(warm_start=True, freeze=None, max_epochs=1).fit(*terrain)
        assert [row["phase"] for row in copy.history_[n_before:]] == ["train"]
    else:
        copy.partial_fit(*terrain)
        assert [row["phase"] for row in copy.history_[n_before:]] == ["partial_fit"]
    assert [row["epoch"] for row in copy.history_] == list(range(1, n_before + 2))
    assert not torch.equal(before["head.weight"], state_of(copy)["head.weight"])
    # From where it was, not from new weights: an epoch of 3 steps of 0.002 goes not far.
    moved = before["head.weight"] - state_of(copy)["head.weight"]
    assert moved.abs().max() < 3 * 4 * 0.002


@pytest.mark.parametrize("warm_start", [True, False])
def test_loaded_segmenter_goes_on(warm_start, saved, terrain):
    go_on(MarsSegmenter.load(saved), terrain, warm_start=warm_start)


@pytest.mark.parametrize("warm_start", [True, False])
def test_unpickled_segmenter_goes_on(warm_start, fitted, terrain):
    go_on(pickle.loads(pickle.dumps(fitted)), terrain, warm_start=warm_start)


def test_unpickled_segmenter_goes_on_as_the_original_would(terrain, fast):
    segmenter = MarsSegmenter(**fast, dropout=0.3).fit(*terrain)
    copy = pickle.loads(pickle.dumps(segmenter))
    for one in (segmenter, copy):
        one.partial_fit(*terrain)
    for name, value in state_of(segmenter).items():
        assert torch.equal(value, state_of(copy)[name]), name


def test_loading_leaves_the_global_random_states(saved):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    MarsSegmenter.load(saved)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


# The file


def test_archive_holds_config_and_weights_and_no_pickle(saved, fitted):
    with zipfile.ZipFile(saved) as archive:
        assert sorted(archive.namelist()) == ["config.json", "model.safetensors"]
        config = json.loads(archive.read("config.json"))
        tensors = safetensors.torch.load(archive.read("model.safetensors"))
    assert config["params"]["loss"] == "focal+dice"
    assert tensors.keys() == state_of(fitted).keys()
    for name, value in state_of(fitted).items():
        assert torch.equal(tensors[name], value)


def test_nothing_is_unpickled(saved, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("something was unpickled")

    for module, name in [(pickle, "loads"), (pickle, "load"), (torch, "load"), (joblib, "load")]:
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    MarsSegmenter.load(saved)


def test_saving_leaves_one_file(fitted, tmp_path):
    fitted.save(tmp_path / "segmenter")
    fitted.save(tmp_path / "segmenter")
    assert files_in(tmp_path) == ["segmenter"]


def test_saving_keeps_links_and_permissions(fitted, tmp_path):
    fitted.save(tmp_path / "model-3")
    (tmp_path / "model-3").chmod(0o640)
    (tmp_path / "latest").symlink_to("model-3")
    before = (tmp_path / "model-3").stat().st_ino
    fitted.save(tmp_path / "latest")
    assert (tmp_path / "latest").is_symlink()
    assert (tmp_path / "model-3").stat().st_ino != before
    assert (tmp_path / "model-3").stat().st_mode & 0o777 == 0o640
    MarsSegmenter.load(tmp_path / "model-3")


class Crash(OSError):
    pass


@pytest.mark.parametrize(
    "where", ["os.replace", "os.fsync", "safetensors.torch.save", "zipfile.ZipFile.writestr"]
)
@pytest.mark.parametrize("before", [True, False])
def test_crash_while_writing_leaves_what_was_there(where, before, fitted, tmp_path, monkeypatch):
    path = tmp_path / "segmenter"
    if before:
        fitted.save(path)
        content = path.read_bytes()

    def crash(*args, **kwargs):
        raise Crash

    monkeypatch.setattr(where, crash)
    with pytest.raises(Crash):
        fitted.save(path)
    monkeypatch.undo()
    assert files_in(tmp_path) == (["segmenter"] if before else [])
    if before:
        assert path.read_bytes() == content
        MarsSegmenter.load(path)


def test_file_is_complete_before_it_replaces_the_old_one(fitted, tmp_path, monkeypatch):
    path = tmp_path / "segmenter"
    fitted.save(path)
    replace, seen = os.replace, []

    def watch(source, target):
        assert Path(source).parent == Path(target).parent
        seen.append(zipfile.ZipFile(source).testzip())
        MarsSegmenter.load(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    fitted.save(path)
    assert seen == [None]


def test_folder_that_is_not_there(fitted, tmp_path):
    with pytest.raises(FileNotFoundError):
        fitted.save(tmp_path / "nowhere" / "segmenter")


# Damaged and foreign files


def rewrite(saved, path, **replaced):
    """Copy an archive with other members; None leaves one out."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        members = {name: old.read(name) for name in old.namelist()}
        members |= {name.replace("_", "."): value for name, value in replaced.items()}
        for name, value in members.items():
            if value is not None:
                new.writestr(name, value)
    return path


def change_config(saved, path, change):
    with zipfile.ZipFile(saved) as archive:
        config = json.loads(archive.read("config.json"))
    return rewrite(saved, path, config_json=json.dumps(change(config)))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        MarsSegmenter.load(tmp_path / "nothing")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_truncated_file(share, saved, tmp_path):
    path = tmp_path / "file"
    content = saved.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="file"):
        MarsSegmenter.load(path)


@pytest.mark.parametrize("place", [0.05, 0.2, 0.5, 0.9])
def test_damaged_content(place, saved, tmp_path):
    path = tmp_path / "file"
    content = bytearray(saved.read_bytes())
    start = int(place * len(content))
    content[start : start + 8] = bytes(255 - byte for byte in content[start : start + 8])
    path.write_bytes(content)
    with pytest.raises(ValueError, match="file"):
        MarsSegmenter.load(path)


def test_any_changed_byte_is_an_error_or_without_effect(saved, fitted, tmp_path):
    content = saved.read_bytes()
    # Where names, sizes and flags stand, rather than weights.
    with zipfile.ZipFile(saved) as archive:
        infos = archive.infolist()
        headers = [range(info.header_offset, info.header_offset + 60) for info in infos]
        headers.append(range(archive.start_dir, len(content)))
    path = tmp_path / "file"
    for place in (place for header in headers for place in header[::3]):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            loaded = MarsSegmenter.load(path)
        except ValueError:
            continue
        except Exception as error:
            raise AssertionError(f"byte {place} of {len(content)}: {error!r}") from error
        for name, value in state_of(fitted).items():
            assert torch.equal(value, state_of(loaded)[name])


@pytest.mark.parametrize(
    "content",
    [b"", b"not a zip archive", pickle.dumps({"a": 1}), b"\x89PNG\r\n\x1a\n" + bytes(99)],
)
def test_foreign_file(content, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a saved segmenter"):
        MarsSegmenter.load(path)


def test_npz_file_is_no_segmenter(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, images=np.zeros(3))
    (tmp_path / "file").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="not a saved segmenter"):
        MarsSegmenter.load(tmp_path / "file")


@pytest.mark.parametrize(
    "replaced",
    [
        {"config_json": None},
        {"model_safetensors": None},
        {"config_json": "{"},
        {"config_json": b"\xff\xfe"},
        {"config_json": "[]"},
        {"config_json": "3"},
        {"config_json": "{}"},
        {"config_json": '{"format": 1}'},
        {"config_json": '{"format": 1, "params": 3, "fitted": {}}'},
        {"model_safetensors": b""},
        {"model_safetensors": pickle.dumps({})},
        {"model_safetensors": safetensors.torch.save({"head.weight": torch.zeros(3)})},
    ],
    ids=str,
)
def test_archive_with_other_content(replaced, saved, tmp_path):
    path = rewrite(saved, tmp_path / "file", **replaced)
    with pytest.raises(ValueError, match="file"):
        MarsSegmenter.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: {**config, "format": 999},
        lambda config: {**config, "params": {**config["params"], "unheard_of": 1}},
        lambda config: {**config, "params": {**config["params"], "depth": 3}},
        lambda config: {**config, "params": {**config["params"], "skip": "teleport"}},
        lambda config: {**config, "fitted": {}},
    ],
    ids=["later format", "unknown parameter", "another net", "unknown option", "no attributes"],
)
def test_config_that_does_not_fit(change, saved, tmp_path):
    path = change_config(saved, tmp_path / "file", change)
    with pytest.raises(ValueError, match="file"):
        MarsSegmenter.load(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_ensemble(share, saved_ensemble, tmp_path):
    path = tmp_path / "file"
    content = saved_ensemble.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        Ensemble.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: {**config, "format": 999},
        lambda config: {**config, "members": []},
        lambda config: {**config, "members": None},
        lambda config: {**config, "members": [*config["members"], config["members"][0]]},
        lambda config: {name: value for name, value in config.items() if name != "members"},
        lambda config: {name: value for name, value in config.items() if name != "params"},
    ],
    ids=["later format", "no members", "none", "one too many", "a segmenter", "no parameters"],
)
def test_config_that_is_of_no_ensemble(change, saved_ensemble, tmp_path):
    path = change_config(saved_ensemble, tmp_path / "file", change)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        Ensemble.load(path)


def test_ensemble_without_the_weights_of_a_member(saved_ensemble, tmp_path):
    with zipfile.ZipFile(saved_ensemble) as archive:
        tensors = safetensors.torch.load(archive.read("model.safetensors"))
    first = {name: value for name, value in tensors.items() if name.startswith("0.")}
    weights = safetensors.torch.save(first)
    path = rewrite(saved_ensemble, tmp_path / "file", model_safetensors=weights)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        Ensemble.load(path)


# What JSON cannot hold


def own_loss(logits, target):
    return torch.nn.functional.cross_entropy(logits, target)


class Noisy(Augmenter):
    """An Augmenter of a user's own."""

    def __init__(self, *, noise=0.1):
        super().__init__()
        self.noise = noise


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("augmentation", Noisy()),
        ("loss", own_loss),
        ("callbacks", [Callback()]),
        ("random_state", np.random.RandomState(0)),
    ],
)
def test_what_cannot_be_saved_is_left_out_with_a_warning(name, value, terrain, fast, tmp_path):
    X, y = terrain
    segmenter = MarsSegmenter(**{**fast, name: value}).fit(X, y)
    with pytest.warns(UserWarning, match=name):
        segmenter.save(tmp_path / "file")
    loaded = MarsSegmenter.load(tmp_path / "file")
    expected = segmenter.get_params(deep=False) | {name: MarsSegmenter().get_params()[name]}
    assert loaded.get_params(deep=False) == expected
    np.testing.assert_array_equal(loaded.predict_proba(X), segmenter.predict_proba(X))
