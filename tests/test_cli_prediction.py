"""Prediction from the command line: its options, what it may replace, and memory."""

import copy
import os

import numpy as np
import pytest
import torch
from PIL import Image

from skmars import Ensemble, MarsSegmenter
from skmars.cli import main
from skmars.cli.files import load_model
from skmars.datasets import load_image_folder

# For each hyperparameter of prediction: words on the command line, and what reaches the model.
OPTIONS = {
    "batch_size": ("--batch-size 3", 3),
    "tta": ("--tta", True),
    "window": ("--window 16,32", (16, 32)),
    "overlap": ("--overlap 0.5", 0.5),
    "device": ("--device cpu:0", "cpu:0"),
    "precision": ("--precision bfloat16", "bfloat16"),
    "n_threads": ("--n-threads 2", 2),
}


@pytest.fixture(scope="module")
def segmenter(terrain, fast_for_all):
    params = {**fast_for_all, "max_epochs": 1, "ignore_label": 0}
    return MarsSegmenter(**params).fit(*terrain)


@pytest.fixture(scope="module")
def model(segmenter, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "mars.skmars"
    segmenter.save(path)
    return path


@pytest.fixture
def model_with(segmenter, tmp_path_factory):
    """Save the model with four other labels."""

    def model_with(labels):
        other = copy.copy(segmenter)
        other.classes_ = np.array(labels)
        path = tmp_path_factory.mktemp("model") / "other.skmars"
        other.save(path)
        return path

    return model_with


@pytest.fixture(scope="module")
def ensemble(terrain, segmenter, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "ensemble.skmars"
    Ensemble(segmenter, n_members=2, random_state=0).fit(*terrain).save(path)
    return path


@pytest.fixture(scope="module")
def data_file(terrain, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "mars.npz"
    np.savez(path, training_set=np.stack(terrain, axis=1)[:6])
    return path


@pytest.fixture
def images(terrain, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(terrain[0][:3]):
        Image.fromarray(image).save(folder / f"tile{number}.png")
    return folder


class TestOptions:
    @pytest.mark.parametrize("name", OPTIONS)
    @pytest.mark.parametrize("command", ["predict", "score", "report"])
    def test_only_what_was_given_is_set(
        self, command, name, run, model, segmenter, data_file, monkeypatch, tmp_path
    ):
        words, expected = OPTIONS[name]
        seen = {}

        def predict(self, X):
            seen.update(self.get_params(deep=False))
            raise ValueError("enough")

        for method in ("predict", "predict_proba"):
            monkeypatch.setattr(MarsSegmenter, method, predict)
        output = () if command == "score" else ("--output", tmp_path / "m.npz")
        status, _, err = run(command, model, data_file, *output, *words.split(" "))
        assert (status, err) == (2, "skmars: error: enough\n")
        assert seen == {**segmenter.get_params(deep=False), name: expected}

    @pytest.mark.parametrize("command", ["predict", "score", "report"])
    def test_help_has_these_and_no_others(self, command, capsys):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        out = capsys.readouterr().out
        assert all(f"--{name.replace('_', '-')}" in out for name in OPTIONS)
        assert "as the model was saved" in " ".join(out.split())
        assert "--max-epochs" not in out

    def test_masks_are_those_of_the_model_with_these_parameters(
        self, run, model, data_file, terrain, tmp_path
    ):
        path = tmp_path / "masks.npz"
        words = ("--window", "16,16", "--overlap", "0", "--tta")
        assert run("predict", model, data_file, "--output", path, *words)[0] == 0
        segmenter = MarsSegmenter.load(model).set_params(window=(16, 16), overlap=0, tta=True)
        expected = segmenter.predict(terrain[0][:6])
        np.testing.assert_array_equal(np.load(path)["masks"], expected)
        # Otherwise the comparison would be of no use.
        assert (expected != MarsSegmenter.load(model).predict(terrain[0][:6])).any()

    def test_net_computes_where_and_as_precisely_as_asked(self, model, segmenter, terrain):
        assert segmenter.precision_ == "float32"
        changed = load_model(model, {"precision": "bfloat16", "device": "cpu:0"})
        exact = segmenter.predict_proba(terrain[0])
        coarse = changed.predict_proba(terrain[0])
        assert (changed.precision_, changed.device_) == ("bfloat16", "cpu:0")
        assert 0 < np.abs(coarse - exact).max() < 0.2

    def test_members_of_an_ensemble_get_them(self, ensemble, run, data_file, terrain, tmp_path):
        changed = load_model(ensemble, {"window": (16, 16), "precision": "bfloat16"})
        for segmenter in (*changed.estimators_, changed.estimator):
            assert (segmenter.window, segmenter.precision) == ((16, 16), "bfloat16")
        path = tmp_path / "masks.npz"
        words = ("--window", "16,16", "--precision", "bfloat16")
        assert run("predict", ensemble, data_file, "--output", path, *words)[0] == 0
        np.testing.assert_array_equal(np.load(path)["masks"], changed.predict(terrain[0][:6]))
        assert {member.precision_ for member in changed.estimators_} == {"bfloat16"}

    @pytest.mark.parametrize(
        ("option", "word"),
        [
            ("--batch-size 0", "batch_size"),
            ("--window 16", "window"),
            ("--window 1,1", "window"),
            ("--overlap 1", "overlap"),
            ("--device abacus", "abacus"),
            ("--precision low", "precision"),
            ("--depth 3", "--depth"),
        ],
    )
    def test_bad_values(self, run, model, data_file, option, word):
        status, _, err = run("score", model, data_file, *option.split(" "))
        assert status == 2
        assert err.startswith("skmars: error: ")
        assert err.count("\n") == 1
        assert word in err


class TestWhatIsReplaced:
    def test_masks_that_are_there_are_kept(self, run, model, images, tmp_path, monkeypatch):
        # Nothing is predicted in vain.
        monkeypatch.setattr(MarsSegmenter, "predict", None)
        masks = tmp_path / "masks"
        masks.mkdir()
        drawn = masks / "tile1.png"
        drawn.write_bytes(b"drawn by hand")
        status, _, err = run("predict", model, images, "--output", masks)
        assert status == 2
        assert f"{drawn} exists already" in err
        assert "--overwrite" in err
        assert [path.name for path in masks.iterdir()] == ["tile1.png"]
        assert drawn.read_bytes() == b"drawn by hand"

    def test_masks_are_replaced_when_asked_to(self, run, model, images, tmp_path):
        masks = tmp_path / "masks"
        masks.mkdir()
        (masks / "tile1.png").write_bytes(b"of an earlier run")
        assert run("predict", model, images, "--output", masks, "--overwrite")[0] == 0
        with Image.open(masks / "tile1.png") as mask:
            assert mask.size == (48, 32)

    @pytest.mark.parametrize("kind", ["folder", "file"])
    def test_only_missing_masks_are_predicted_on_resuming(
        self, run, model, images, data_file, tmp_path, kind
    ):
        source = images if kind == "folder" else data_file
        complete, resumed = tmp_path / "complete", tmp_path / "resumed"
        assert run("predict", model, source, "--output", complete)[0] == 0
        paths = sorted(complete.iterdir())
        resumed.mkdir()
        (resumed / paths[1].name).write_bytes(b"of the earlier run")
        status, out, _ = run("predict", model, source, "--output", resumed, "--resume")
        assert status == 0
        assert out.startswith(f"predicted {len(paths) - 1} ")
        assert (resumed / paths[1].name).read_bytes() == b"of the earlier run"
        for path in [paths[0], *paths[2:]]:
            assert (resumed / path.name).read_bytes() == path.read_bytes()
        assert run("predict", model, source, "--output", resumed, "--resume")[0] == 0

    def test_images_left_are_read_as_they_are_beside_the_others(
        self, run, tmp_path, terrain, fast
    ):
        """One in colour makes all of a folder RGB, whether it is predicted still or not."""
        X, y = terrain
        X = np.stack([X, X // 2, 255 - X], axis=-1)
        MarsSegmenter(**fast).fit(X, y).save(tmp_path / "model.skmars")
        images, masks = tmp_path / "images", tmp_path / "masks"
        images.mkdir()
        masks.mkdir()
        Image.fromarray(X[0]).save(images / "colour.png")
        Image.fromarray(X[1, ..., 0]).save(images / "grey.png")
        (masks / "colour.png").write_bytes(b"of the earlier run")
        words = (tmp_path / "model.skmars", images, "--output", masks, "--resume")
        assert run("predict", *words)[0] == 0
        assert (masks / "grey.png").exists()

    def test_resuming_needs_a_folder_to_write_to(self, run, model, images, tmp_path):
        words = ("--output", tmp_path / "masks.npz", "--resume")
        status, _, err = run("predict", model, images, *words)
        assert status == 2
        assert "--resume needs a folder" in err

    def test_other_files_in_the_folder_are_no_obstacle(self, run, model, images, tmp_path):
        masks = tmp_path / "masks"
        masks.mkdir()
        (masks / "tile7.png").write_bytes(b"of another image")
        assert run("predict", model, images, "--output", masks)[0] == 0
        assert (masks / "tile7.png").read_bytes() == b"of another image"
        assert sorted(path.name for path in masks.iterdir()) == [
            *(f"tile{number}.png" for number in (0, 1, 2, 7)),
        ]

    def test_images_are_not_replaced_even_when_asked_to(self, run, model, images):
        before = (images / "tile0.png").read_bytes()
        status, _, err = run("predict", model, images, "--output", images, "--overwrite")
        assert status == 2
        assert "another folder" in err
        assert (images / "tile0.png").read_bytes() == before

    @pytest.mark.parametrize("name", ["submission.csv", "masks.npz"])
    def test_a_single_file_is_replaced_unasked(self, run, model, images, tmp_path, name):
        (tmp_path / name).write_text("of an earlier run")
        assert run("predict", model, images, "--output", tmp_path / name)[0] == 0
        assert (tmp_path / name).read_bytes() != b"of an earlier run"


class TestWhatCannotBeWritten:
    @pytest.fixture(autouse=True)
    def _nothing_is_predicted(self, monkeypatch):
        def predict(self, X):
            pytest.fail("predicted in vain")

        monkeypatch.setattr(MarsSegmenter, "predict", predict)

    @pytest.mark.skipif(not os.path.isdir("/proc"), reason="no folder that nobody can write to")
    @pytest.mark.parametrize("output", ["/proc", "/proc/masks/of_mars"])
    def test_into_a_folder_that_nobody_can_write_to(self, run, model, images, output):
        status, _, err = run("predict", model, images, "--output", output)
        assert status == 2
        assert "cannot write to /proc" in err

    def test_into_a_folder_in_a_file(self, run, model, images, tmp_path):
        (tmp_path / "file").touch()
        status, _, err = run("predict", model, images, "--output", tmp_path / "file" / "masks")
        assert status == 2
        assert f"cannot write to {tmp_path / 'file'}" in err

    @pytest.mark.parametrize("name", ["masks.csv", "masks.npz"])
    def test_images_of_several_sizes_to_one_file(self, run, model, images, tmp_path, name):
        Image.fromarray(np.zeros((20, 30), dtype=np.uint8)).save(images / "small.png")
        status, _, err = run("predict", model, images, "--output", tmp_path / name)
        assert status == 2
        assert "images of different sizes need a folder as --output" in err

    @pytest.mark.parametrize(
        ("labels", "name", "words"),
        [
            (
                (1, 2, 3, 256),
                "masks.csv",
                "CSV files hold labels from 0 to 255, and the model has 1",
            ),
            ((-1, 0, 1, 2), "masks.csv", "the model has -1 to 2"),
            ((-1, 0, 1, 2), "masks", "PNG files hold labels from 0 to 65535"),
            ((0, 1, 2, 65536), "masks", "the model has 0 to 65536"),
        ],
    )
    def test_labels_that_the_output_cannot_hold(
        self, run, model_with, images, tmp_path, labels, name, words
    ):
        output = tmp_path / name
        status, _, err = run("predict", model_with(labels), images, "--output", output)
        assert status == 2
        assert words in err
        assert not output.exists()

    def test_images_of_several_types(self, run, model, images, tmp_path):
        Image.fromarray(np.zeros((32, 48), dtype=np.uint16)).save(images / "tile9.png")
        status, _, err = run("predict", model, images, "--output", tmp_path / "masks")
        assert status == 2
        assert "images must have one type of pixels" in err

    def test_images_of_which_one_is_damaged(self, run, model, images, tmp_path):
        last = images / "tile2.png"
        last.write_bytes(last.read_bytes()[:300])
        status, _, err = run("predict", model, images, "--output", tmp_path / "masks")
        assert status == 2
        assert "tile2.png cannot be read" in err

    def test_no_images(self, run, model, tmp_path):
        empty = np.zeros((0, 32, 48))
        path = tmp_path / "mars.npz"
        np.savez(path, training_set=np.zeros((1, 2, 32, 48)), test_set=empty)
        status, _, err = run("predict", model, path, "--output", tmp_path / "masks")
        assert status == 2
        assert f"{path} has no test images" in err


class TestParts:
    @pytest.fixture(autouse=True)
    def _two_images_are_a_part(self, monkeypatch):
        monkeypatch.setattr("skmars.cli.masks.PIXELS_AT_ONCE", 32 * 48 + 1)

    @pytest.fixture
    def sizes(self, monkeypatch):
        """How many images are predicted each time; Ctrl-C is pressed in the place of a third."""
        predict, sizes = MarsSegmenter.predict, []

        def count(self, X):
            if len(sizes) == 2:
                raise KeyboardInterrupt
            sizes.append(len(X))
            return predict(self, X)

        monkeypatch.setattr(MarsSegmenter, "predict", count)
        return sizes

    def test_masks_of_a_folder(self, run, model, images, terrain, sizes, tmp_path):
        expected = MarsSegmenter.load(model).predict(terrain[0][:3])
        sizes.clear()
        output = tmp_path / "deep" / "masks"
        assert run("predict", model, images, "--output", output)[0] == 0
        assert sizes == [2, 1]
        np.testing.assert_array_equal(load_image_folder(images, output).target, expected)

    def test_an_interrupted_run_keeps_what_it_has(self, run, model, data_file, sizes, tmp_path):
        output = tmp_path / "masks"
        assert run("predict", model, data_file, "--output", output)[0] == 130
        assert sizes == [2, 2]
        assert sorted(path.name for path in output.iterdir()) == [f"{i}.png" for i in range(4)]

    def test_one_file_is_predicted_at_once(self, run, model, images, sizes, tmp_path):
        assert run("predict", model, images, "--output", tmp_path / "masks.npz")[0] == 0
        assert sizes == [3]

    def test_a_mask_of_the_last_part_is_not_replaced(self, run, model, images, sizes, tmp_path):
        drawn = tmp_path / "tile2.png"
        drawn.write_bytes(b"drawn by hand")
        assert run("predict", model, images, "--output", tmp_path)[0] == 2
        assert sizes == []
        assert drawn.read_bytes() == b"drawn by hand"

    def test_one_image_in_colour_makes_all_rgb(self, run, model, images, tmp_path):
        Image.new("RGB", (48, 32)).save(images / "tile9.png")
        output = tmp_path / "masks"
        status, _, err = run("predict", model, images, "--output", output)
        assert status == 2
        assert "has 3 channels" in err
        assert not output.exists()

    def test_image_that_cannot_be_predicted_is_found_first(
        self, run, model, sizes, terrain, tmp_path
    ):
        folder = tmp_path / "fractions"
        folder.mkdir()
        for number, image in enumerate(terrain[0][:4].astype(np.float32)):
            image[0, 0] = np.nan if number == 3 else 0
            Image.fromarray(image).save(folder / f"tile{number}.tif")
        status, _, err = run("predict", model, folder, "--output", tmp_path / "masks")
        assert (status, sizes) == (2, [])
        assert err.startswith(f"skmars: error: {folder}/tile3.tif has pixels that are NaN")

    def test_labels_above_255_anywhere_make_all_masks_16_bits(
        self, run, model_with, images, terrain, tmp_path
    ):
        path, output = model_with((0, 1, 2, 300)), tmp_path / "masks"
        assert run("predict", path, images, "--output", output)[0] == 0
        expected = MarsSegmenter.load(path).predict(terrain[0][:3])
        for number, mask in enumerate(expected):
            with Image.open(output / f"tile{number}.png") as picture:
                assert picture.mode.startswith("I")
                np.testing.assert_array_equal(np.asarray(picture), mask)


class TestMemory:
    @pytest.fixture
    def out_of_memory(self, monkeypatch):
        """Let prediction ask for more memory than there is, of numpy or of torch."""

        def out_of_memory(library):
            def predict(self, X):
                if library == "numpy":
                    return np.empty(2**60, dtype=np.uint8)
                if library == "torch":
                    return torch.empty(2**60, dtype=torch.uint8)
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n20.00 GiB.")

            monkeypatch.setattr(MarsSegmenter, "predict", predict)

        return out_of_memory

    @pytest.mark.parametrize("library", ["numpy", "torch", "CUDA"])
    def test_it_is_told_in_one_line_what_to_do(
        self, library, run, model, data_file, out_of_memory
    ):
        out_of_memory(library)
        status, _, err = run("score", model, data_file)
        assert status == 2
        assert err.startswith("skmars: error: out of memory: ")
        assert err.count("\n") == 1
        assert "--window" in err
        assert "--batch-size" in err

    def test_training_has_no_windows(self, run, data_file, tmp_path, monkeypatch):
        def fit(self, X, y, groups):
            raise MemoryError

        monkeypatch.setattr(MarsSegmenter, "fit", fit)
        status, _, err = run("fit", data_file, "--output", tmp_path / "m")
        assert (status, err) == (2, "skmars: error: out of memory: give a smaller --batch-size\n")

    def test_other_errors_of_torch_show_their_traceback(self, model, data_file, monkeypatch):
        def predict(self, X):
            return torch.zeros(2) + torch.zeros(3)

        monkeypatch.setattr(MarsSegmenter, "predict", predict)
        with pytest.raises(RuntimeError, match="size of tensor"):
            main(["score", str(model), str(data_file)])


def test_warnings_are_a_line_each(run, model, tmp_path):
    images = tmp_path / "images.npz"
    grey = np.random.default_rng(0).random((2, 32, 48))
    np.savez(images, training_set=np.stack([grey, np.zeros_like(grey)], axis=1))
    status, _, err = run("predict", model, images, "--output", tmp_path / "masks.npz")
    assert status == 0
    (line,) = err.splitlines()
    assert line.startswith("skmars: warning: the images have ")
