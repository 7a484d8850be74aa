"""Folders of images, labels and their names, and what the command line says of them."""

import numpy as np
import pytest
from PIL import Image

from skmars import MarsSegmenter
from skmars.cli import demo
from skmars.cli.demo import run_demo
from skmars.datasets import load_an2dl, load_image_folder
from skmars.tuning import SegmenterSearchCV

TINY = (
    *("--depth", "2", "--base-channels", "4", "--batch-size", "8", "--max-epochs", "1"),
    *("--precision", "float32", "--random-state", "0"),
)

AN2DL = ["background", "soil", "bedrock", "sand", "big rock"]

# Two sites, each with two panoramas of two tiles.
PANORAMAS = ["site1_p1", "site1_p2", "site2_p1", "site2_p2"]
STEMS = [f"{panorama}_{tile}" for panorama in PANORAMAS for tile in "ab"]
SITES = [stem.split("_")[0] for stem in STEMS]

UPSIDE_DOWN = 3


def write_folder(folder, arrays, **how):
    folder.mkdir()
    for stem, array in arrays.items():
        Image.fromarray(array).save(folder / f"{stem}.png", **how)
    return folder


@pytest.fixture
def pairs(terrain, tmp_path):
    """Folders of images and masks whose names tell the site."""
    for name, arrays in zip(("images", "masks"), terrain, strict=True):
        write_folder(tmp_path / name, dict(zip(STEMS, arrays[: len(STEMS)], strict=True)))
    return tmp_path / "images", tmp_path / "masks"


@pytest.fixture
def write_file(terrain, tmp_path):
    """Write an npz file of images and masks, whose labels are changed by a function."""

    def write_file(relabel=lambda y: y, **arrays):
        X, y = terrain
        path = tmp_path / "mars.npz"
        np.savez(path, training_set=np.stack([X, relabel(y)], axis=1), **arrays)
        return path

    return write_file


@pytest.fixture
def fitted_with(monkeypatch):
    """The groups that a fit or a search has got, which ends before it begins."""
    seen = {}

    def fit(self, X, y, groups):
        seen["groups"] = groups
        raise ValueError("enough")

    monkeypatch.setattr(MarsSegmenter, "fit", fit)
    monkeypatch.setattr(SegmenterSearchCV, "fit", fit)
    return seen


@pytest.fixture
def tiny(monkeypatch):
    """Let the demonstration train a small net."""
    small = {"depth": 2, "base_channels": 4, "batch_size": 8, "precision": "float32"}
    monkeypatch.setattr(demo, "SETTINGS", {**demo.SETTINGS, **small, "verbose": 0})


class TestGroups:
    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("site[0-9]", SITES),
            ("^[^_]+", SITES),
            ("site([0-9])_(p)", [site[-1] for site in SITES]),
            ("(.+)_", [stem[:-2] for stem in STEMS]),
        ],
    )
    def test_they_are_what_is_found_in_the_names(self, pairs, pattern, expected):
        data = load_image_folder(*pairs, group_pattern=pattern)
        assert isinstance(data.groups, np.ndarray)
        assert data.groups.tolist() == expected
        assert load_image_folder(*pairs).groups is None

    def test_only_the_name_without_the_suffix_is_searched(self, pairs):
        with pytest.raises(ValueError, match="finds nothing"):
            load_image_folder(*pairs, group_pattern="png|images")

    @pytest.mark.parametrize(
        ("pattern", "first"),
        # Nothing, an empty group, and parentheses that take no part in what is found.
        [("site1", "site2_p1_a"), ("(site1)?", "site2_p1_a"), ("(x)|site", "site1_p1_a")],
    )
    def test_a_name_without_a_group_is_refused(self, pairs, pattern, first):
        with pytest.raises(ValueError, match=rf"finds nothing in the name of .*{first}\.png"):
            load_image_folder(*pairs, group_pattern=pattern)

    def test_a_bad_expression_is_refused_before_anything_is_read(self, tmp_path):
        folder = tmp_path / "x"
        folder.mkdir()
        (folder / "a.png").write_text("no image")
        with pytest.raises(ValueError, match=r"group_pattern='\(' is no regular expression"):
            load_image_folder(folder, group_pattern="(")

    @pytest.mark.parametrize("command", ["fit", "tune"])
    def test_they_reach_the_training(self, command, run, pairs, fitted_with, tmp_path):
        words = ("--images", pairs[0], "--masks", pairs[1], "--group-pattern", "^[^_]+")
        status, _, err = run(command, *words, "--output", tmp_path / "m")
        assert (status, err) == (2, "skmars: error: enough\n")
        np.testing.assert_array_equal(fitted_with["groups"], SITES)

    def test_a_file_has_its_own(self, run, write_file, tmp_path):
        words = ("--output", tmp_path / "m", "--group-pattern", "x")
        status, _, err = run("fit", write_file(), *words)
        assert status == 2
        assert "--group-pattern needs --images and --masks" in err


class TestOrientation:
    @pytest.mark.parametrize("kind", ["grey", "palette", "one bit", "16 bits"])
    def test_masks_are_turned_as_their_images_are(self, tmp_path, kind):
        levels = np.arange(48, dtype=np.uint8).reshape(6, 8)
        mask, expected = Image.fromarray(levels), levels
        if kind == "palette":
            mask.putpalette(range(144))
        elif kind == "one bit":
            expected = levels > 20
            mask = Image.fromarray(expected)
        elif kind == "16 bits":
            expected = levels * np.uint16(1000)
            mask = Image.fromarray(expected)
        exif = Image.Exif()
        exif[0x0112] = UPSIDE_DOWN
        images = write_folder(tmp_path / "images", {"a": levels}, exif=exif)
        (tmp_path / "masks").mkdir()
        mask.save(tmp_path / "masks" / "a.png", exif=exif)
        data = load_image_folder(images, tmp_path / "masks")
        np.testing.assert_array_equal(data.images[0], levels[::-1, ::-1])
        np.testing.assert_array_equal(data.target[0], expected[::-1, ::-1])

    def test_sides_are_exchanged_in_both(self, tmp_path):
        levels = np.arange(48, dtype=np.uint8).reshape(6, 8)
        exif = Image.Exif()
        exif[0x0112] = 6  # a quarter turn
        for name in ("images", "masks"):
            write_folder(tmp_path / name, {"a": levels}, exif=exif)
        data = load_image_folder(tmp_path / "images", tmp_path / "masks")
        assert data.images.shape == data.target.shape == (1, 8, 6)
        np.testing.assert_array_equal(data.images, data.target)


class TestNames:
    OWN = np.array(["sky", "rock", "sand"])

    def test_those_in_the_file(self, write_file):
        data = load_an2dl(write_file(lambda y: y % 3, target_names=self.OWN))
        assert data.target_names == ["sky", "rock", "sand"]
        assert "0 sky, 1 rock, 2 sand" in data.DESCR

    def test_those_of_an2dl_only_for_its_labels(self, write_file):
        assert load_an2dl(write_file()).target_names == AN2DL
        other = load_an2dl(write_file(lambda y: np.array([0, 64, 128, 192, 255])[y]))
        assert other.target_names is None
        assert "soil" not in other.DESCR

    def test_labels_of_the_test_set_count_as_well(self, write_file, terrain):
        masks = terrain[1][:2] + 9
        path = write_file(test_set=terrain[0][:2], test_masks=masks)
        assert load_an2dl(path).target_names is None

    @pytest.mark.parametrize(
        "names", [OWN, np.array([AN2DL]), np.arange(5), np.array("background")]
    )
    def test_each_label_needs_one(self, write_file, names):
        with pytest.raises(ValueError, match=r"target_names.*each label from 0 to 4"):
            load_an2dl(write_file(target_names=names))

    def test_they_are_those_of_the_score(self, run, write_file, tmp_path):
        path = write_file(lambda y: y % 3, target_names=self.OWN)
        assert run("fit", path, "--output", tmp_path / "m", *TINY)[0] == 0
        out = run("score", tmp_path / "m", path)[1]
        assert [line.split()[0] for line in out.splitlines()[3:-1]] == self.OWN.tolist()

    def test_other_labels_are_not_named_by_their_place(self, run, write_file, tmp_path):
        other = np.array([0, 64, 128, 192, 255])
        path = write_file(lambda y: other[y])
        assert run("fit", path, "--output", tmp_path / "m", *TINY)[0] == 0
        out = run("score", tmp_path / "m", path)[1]
        assert [line.split()[0] for line in out.splitlines()[3:-1]] == list(map(str, other))
        # Neither if the labels of this file could be AN2DL's, as long as the model's are not.
        out = run("score", tmp_path / "m", write_file(np.zeros_like))[1]
        assert "background" not in out

    def test_they_are_not_cut_with_the_outliers(self, run, write_file, tmp_path):
        # As many names as images.
        names = np.array([f"class {label}" for label in range(24)])
        path = write_file(target_names=names)
        words = ("--method", "appearance", "--contamination", "0.25")
        assert run("outliers", path, *words, "--output", tmp_path / "clean.npz")[0] == 0
        clean = load_an2dl(tmp_path / "clean.npz")
        assert len(clean.images) == 18
        assert clean.target_names == names.tolist()

    def test_label_0_of_own_names_counts_in_the_demonstration(self, write_file, tmp_path, tiny):
        path = write_file(lambda y: y % 3, target_names=self.OWN)
        figures = run_demo(path, tmp_path, time_limit=1)
        assert figures["ignore_label"] is None
        assert list(figures["iou"]["segmenter"]) == self.OWN.tolist()


class TestLabelsThatAreTold:
    @pytest.mark.usefixtures("fitted_with")
    def test_their_shares_of_the_labelled_pixels(self, run, write_file, tmp_path):
        def relabel(y):
            mask = np.full_like(y, 7)
            mask[:, :16] = 1  # half of the pixels
            mask[:, :8] = 0  # a quarter
            return mask

        path, output = write_file(relabel), ("--output", tmp_path / "m")
        assert run("fit", path, *output)[1:] == (
            "labels               0: 25 %, 1: 25 %, 7: 50 %\n",
            "skmars: error: enough\n",
        )
        out = run("fit", path, *output, "--ignore-label", 0)[1]
        assert out == "labels               1: 33.3 %, 7: 66.7 %\n"

    @pytest.mark.usefixtures("fitted_with")
    @pytest.mark.parametrize("n_labels", [13, 50, 51, 256])
    def test_many_of_them(self, run, write_file, tmp_path, n_labels):
        path = write_file(lambda y: np.arange(y.size).reshape(y.shape) % n_labels)
        _, out, err = run("fit", path, "--output", tmp_path / "m")
        told = "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ..."
        assert out == f"labels               {n_labels} of them: {told}\n"
        warning = f"skmars: warning: the masks have {n_labels} labels"
        assert (warning in err) == (n_labels > 50)

    @pytest.mark.parametrize("value", ["x", "1.5"])
    def test_bad_label_to_ignore_is_refused_by_the_fit(self, run, write_file, tmp_path, value):
        words = ("--output", tmp_path / "m", "--ignore-label", value)
        status, _, err = run("fit", write_file(), *words)
        assert status == 2
        assert "ignore_label" in err
        assert err.count("\n") == 1


class TestFoldersWhereFilesAreNeeded:
    @pytest.mark.parametrize("command", ["fit", "tune", "score", "report"])
    def test_folders_have_options_of_their_own(self, command, run, pairs, tmp_path):
        model = ("none.skmars",) if command in ("score", "report") else ()
        output = () if command == "score" else ("--output", tmp_path / "m")
        status, _, err = run(command, *model, pairs[0], *output)
        assert status == 2
        assert f"{pairs[0]} is a folder: give --images and --masks, or an npz file" in err

    @pytest.mark.parametrize("command", ["outliers", "demo"])
    def test_some_commands_have_none(self, command, run, pairs, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        status, _, err = run(command, pairs[0])
        assert status == 2
        assert f"{pairs[0]} is a folder; an npz file with images and masks is needed" in err

    def test_a_picture_is_no_folder(self, run, pairs, tmp_path):
        picture = pairs[0] / f"{STEMS[0]}.png"
        status, _, err = run("predict", "none.skmars", picture, "--output", tmp_path / "m.npz")
        assert status == 2
        assert f"{picture} is not an npz file; give one, or a folder of images" in err


class TestDemo:
    @pytest.mark.usefixtures("tiny")
    def test_one_sol_that_has_most_of_the_images(self, write_file, tmp_path, capsys):
        sols = np.repeat([3, 5, 8], [20, 2, 2])
        figures = run_demo(write_file(training_sol=sols), tmp_path, time_limit=1)
        assert (figures["n_train"], figures["n_test"]) == (20, 4)
        assert "The training set has fewer than 2 sols" in capsys.readouterr().out
