import os
import zipfile

import numpy as np
import pytest

from skmars.datasets import load_an2dl, make_terrain, save_submission
from skmars.datasets._an2dl import find_image_arrays, write_subset

NAMES = ["background", "soil", "bedrock", "sand", "big rock"]


@pytest.fixture(scope="module")
def terrain():
    return make_terrain(5, shape=(16, 24), random_state=0)


def write_an2dl(path, terrain, dtype=np.float64, **arrays):
    np.savez(path, training_set=np.stack(terrain, axis=1).astype(dtype), **arrays)
    return path


class TestLoadAN2DL:
    @pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
    def test_training_set_of_any_type(self, tmp_path, terrain, dtype):
        data = load_an2dl(write_an2dl(tmp_path / "mars.npz", terrain, dtype))
        assert data.images.dtype == data.target.dtype == np.uint8
        np.testing.assert_array_equal(data.images, terrain[0])
        np.testing.assert_array_equal(data.target, terrain[1])
        assert data.target_names == NAMES
        assert "5 training images of 16 x 24" in data.DESCR

    def test_what_is_absent_is_none(self, tmp_path, terrain):
        data = load_an2dl(write_an2dl(tmp_path / "mars.npz", terrain))
        for key in ("groups", "test_images", "test_target", "test_groups"):
            assert data[key] is None

    def test_test_set_without_masks(self, tmp_path, terrain):
        X, _ = terrain
        data = load_an2dl(write_an2dl(tmp_path / "m.npz", terrain, test_set=X[:2].astype(float)))
        np.testing.assert_array_equal(data.test_images, X[:2])
        assert data.test_images.dtype == np.uint8
        assert data.test_target is None

    def test_groups_and_test_masks(self, tmp_path, terrain):
        X, y = terrain
        path = write_an2dl(
            tmp_path / "mars.npz",
            terrain,
            training_sol=np.array([3, 3, 4, 5, 5]),
            test_set=X[:2],
            test_masks=y[:2],
            test_sol=np.array([8, 9]),
        )
        data = load_an2dl(str(path))
        assert data.groups.tolist() == [3, 3, 4, 5, 5]
        np.testing.assert_array_equal(data.test_target, y[:2])
        assert data.test_groups.tolist() == [8, 9]

    def test_return_X_y(self, tmp_path, terrain):
        X, y = load_an2dl(write_an2dl(tmp_path / "mars.npz", terrain), return_X_y=True)
        np.testing.assert_array_equal(X, terrain[0])
        np.testing.assert_array_equal(y, terrain[1])

    @pytest.mark.parametrize("change", [lambda X: X / 255, lambda X: X - 300.0, lambda X: X * 9.0])
    def test_images_that_are_not_bytes_keep_their_values(self, tmp_path, terrain, change):
        X, y = change(terrain[0].astype(float)), terrain[1]
        data = load_an2dl(write_an2dl(tmp_path / "mars.npz", (X, y)))
        assert data.images.dtype == np.float64
        np.testing.assert_array_equal(data.images, X)
        assert data.target.dtype == np.uint8

    def test_outliers_are_not_read(self, tmp_path, terrain):
        # Reading this key would raise, as it holds pickled objects.
        path = write_an2dl(
            tmp_path / "mars.npz", terrain, training_outliers=np.array([None], dtype=object)
        )
        assert not any("outlier" in key for key in load_an2dl(path))

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            load_an2dl(tmp_path / "nothing.npz")

    def test_missing_key(self, tmp_path, terrain):
        np.savez(tmp_path / "mars.npz", train=terrain[0])
        with pytest.raises(ValueError, match=r"no key 'training_set'.*\['train'\]"):
            load_an2dl(tmp_path / "mars.npz")

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn"])
    def test_damaged_file(self, tmp_path, content):
        (tmp_path / "mars.npz").write_bytes(content)
        with pytest.raises(ValueError, match="not an npz file"):
            load_an2dl(tmp_path / "mars.npz")

    def test_single_array(self, tmp_path, terrain):
        np.save(tmp_path / "mars.npy", terrain[0])
        with pytest.raises(ValueError, match="single array"):
            load_an2dl(tmp_path / "mars.npy")

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"training_set": np.zeros((4, 3, 8, 8))}, r"training_set.*\(4, 3, 8, 8\)"),
            ({"training_set": np.full((4, 2, 8, 8), 0.5)}, "whole numbers"),
            ({"training_set": np.full((4, 2, 8, 8), np.nan)}, "whole numbers"),
            ({"test_set": np.zeros((4, 8))}, r"test_set.*\(4, 8\)"),
            ({"test_set": np.zeros((2, 8, 8)), "test_masks": np.zeros((3, 8, 8))}, "test_masks"),
            ({"training_sol": np.zeros(3)}, r"training_sol.*\(4,\).*\(3,\)"),
        ],
    )
    def test_wrong_content(self, tmp_path, arrays, message):
        np.savez(tmp_path / "mars.npz", **{"training_set": np.zeros((4, 2, 8, 8)), **arrays})
        with pytest.raises(ValueError, match=message):
            load_an2dl(tmp_path / "mars.npz")

    @pytest.mark.parametrize("key", ["training_set", "training_sol", "test_set", "target_names"])
    def test_python_objects(self, tmp_path, key):
        objects = np.array(["a", "b", "c", "d"], dtype=object)
        np.savez(tmp_path / "mars.npz", **{"training_set": np.zeros((4, 2, 8, 8)), key: objects})
        with pytest.raises(ValueError, match=rf"'{key}' in .*mars\.npz .*astype\(str\)"):
            load_an2dl(tmp_path / "mars.npz")

    def test_real_file(self, real_file):
        data = load_an2dl(real_file)
        assert data.images.shape == data.target.shape == (len(data.groups), 64, 128)
        assert data.images.dtype == data.target.dtype == np.uint8
        assert set(np.unique(data.target)) == set(range(5))
        assert data.test_images.shape == data.test_target.shape
        assert not set(data.groups) & set(data.test_groups)


class TestWriteSubset:
    @pytest.fixture
    def source(self, tmp_path, terrain):
        """Five images, and arrays and files of any kind."""
        path = write_an2dl(
            tmp_path / "mars.npz",
            terrain,
            training_sol=np.array([3, 3, 4, 5, 5]),
            target_names=np.array(NAMES),
            test_set=terrain[0],
            scale=np.array(7),
            training_outliers=np.array([None, {}], dtype=object),
        )
        with zipfile.ZipFile(path, "a") as archive:
            # np.savez has no way to write a key of this name.
            with archive.open("file.npy", "w") as member:
                np.save(member, np.arange(5))
            archive.writestr("notes.txt", "from the rover")
        return path

    def test_arrays_of_the_images_are_cut(self, source, terrain, tmp_path):
        assert find_image_arrays(source) == ["training_set", "training_sol", "file"]
        write_subset(source, np.array([0, 3]), tmp_path / "few.npz")
        data = load_an2dl(tmp_path / "few.npz")
        np.testing.assert_array_equal(data.images, terrain[0][[0, 3]])
        np.testing.assert_array_equal(data.target, terrain[1][[0, 3]])
        assert data.groups.tolist() == [3, 5]
        with np.load(tmp_path / "few.npz") as few:
            assert few["file"].tolist() == [0, 3]
            assert few["training_set"].dtype == np.float64

    def test_all_else_is_copied_byte_for_byte(self, source, tmp_path):
        write_subset(source, np.array([0, 3]), tmp_path / "few.npz")
        cut = {"training_set.npy", "training_sol.npy", "file.npy"}
        with zipfile.ZipFile(source) as before, zipfile.ZipFile(tmp_path / "few.npz") as after:
            assert before.namelist() == after.namelist()
            for name in set(before.namelist()) - cut:
                assert before.read(name) == after.read(name), name

    def test_objects_for_each_image_cannot_be_cut(self, terrain, tmp_path):
        ids = np.array(list("abcde"), dtype=object)
        source = write_an2dl(tmp_path / "mars.npz", terrain, ids=ids)
        with pytest.raises(ValueError, match=r"'ids' in .*mars\.npz .*astype\(str\)"):
            write_subset(source, np.array([0, 3]), tmp_path / "few.npz")
        assert os.listdir(tmp_path) == ["mars.npz"]

    def test_file_without_images(self, tmp_path):
        np.savez(tmp_path / "mars.npz", train=np.arange(3))
        with pytest.raises(ValueError, match=r"no key 'training_set'.*\['train'\]"):
            find_image_arrays(tmp_path / "mars.npz")


class TestSaveSubmission:
    def test_read_back(self, tmp_path):
        _, y = make_terrain(3, random_state=0)
        save_submission(y, tmp_path / "submission.csv")
        header, *rows = (tmp_path / "submission.csv").read_text().splitlines()
        assert header == ",".join(["id", *map(str, range(8192))])
        table = np.array([row.split(",") for row in rows], dtype=int)
        assert table[:, 0].tolist() == [0, 1, 2]
        np.testing.assert_array_equal(table[:, 1:].reshape(y.shape), y)

    @pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint16])
    def test_any_integer_type_and_two_digit_labels(self, tmp_path, dtype):
        save_submission(np.array([[[0, 12]], [[127, 4]]], dtype=dtype), str(tmp_path / "s.csv"))
        assert (tmp_path / "s.csv").read_bytes() == b"id,0,1\n0,0,12\n1,127,4\n"

    @pytest.mark.parametrize(
        ("y_pred", "message"),
        [
            (np.zeros((2, 4), dtype=int), r"\(2, 4\)"),
            (np.zeros((2, 4, 4)), "float64"),
            (np.zeros((2, 4, 4), dtype=bool), "bool"),
            (np.full((2, 4, 4), -1), "0 to 255"),
            (np.full((2, 4, 4), 256), "0 to 255"),
        ],
    )
    def test_wrong_predictions_leave_the_old_file(self, tmp_path, y_pred, message):
        path = tmp_path / "submission.csv"
        path.write_text("old")
        with pytest.raises(ValueError, match=message):
            save_submission(y_pred, path)
        assert path.read_text() == "old"

    def test_failure_leaves_the_old_file_and_no_other(self, tmp_path, monkeypatch):
        path = tmp_path / "submission.csv"
        path.write_text("old")

        def fail(*args):
            raise OSError("disk full")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            save_submission(np.zeros((1, 2, 2), dtype=int), path)
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["submission.csv"]

    def test_replaces_the_old_file(self, tmp_path):
        path = tmp_path / "submission.csv"
        path.write_text("old")
        save_submission(np.zeros((1, 1, 2), dtype=int), path)
        assert path.read_text() == "id,0,1\n0,0,0\n"
        assert os.listdir(tmp_path) == ["submission.csv"]
