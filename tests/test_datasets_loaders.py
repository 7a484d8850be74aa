import os
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from skmars.datasets import load_an2dl, load_image_folder, make_terrain, save_submission

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

    def test_real_file(self, real_file):
        data = load_an2dl(real_file)
        assert data.images.shape == data.target.shape == (len(data.groups), 64, 128)
        assert data.images.dtype == data.target.dtype == np.uint8
        assert set(np.unique(data.target)) == set(range(5))
        assert data.test_images.shape == data.test_target.shape
        assert not set(data.groups) & set(data.test_groups)


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


def write_folder(folder, arrays, suffix=".png"):
    folder.mkdir()
    for stem, array in arrays.items():
        image = array if isinstance(array, Image.Image) else Image.fromarray(array)
        image.save(folder / f"{stem}{suffix}")
    return folder


GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOUR = np.arange(144, dtype=np.uint8).reshape(6, 8, 3)


class TestLoadImageFolder:
    @pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".PNG"])
    def test_pairs_in_natural_order(self, tmp_path, suffix):
        X, y = make_terrain(12, shape=(16, 24), random_state=0)
        stems = [f"tile{i}" for i in range(12)]
        images = write_folder(tmp_path / "x", dict(zip(stems, X, strict=True)), suffix)
        masks = write_folder(tmp_path / "y", dict(zip(stems, y, strict=True)))
        data = load_image_folder(images, str(masks))
        np.testing.assert_array_equal(data.images, X)
        np.testing.assert_array_equal(data.target, y)
        assert data.filenames == [str(images / f"{stem}{suffix}") for stem in stems]
        assert data.groups is None
        assert data.target_names is None
        assert "12 images" in data.DESCR

    def test_without_masks(self, tmp_path):
        data = load_image_folder(write_folder(tmp_path / "x", {"a": GREY}))
        np.testing.assert_array_equal(data.images, GREY[None])
        assert data.target is None

    def test_return_X_y(self, tmp_path):
        folder = write_folder(tmp_path / "x", {"a": GREY})
        X, y = load_image_folder(folder, folder, return_X_y=True)
        np.testing.assert_array_equal(X, y)

    def test_jpeg_images(self, tmp_path):
        X, y = make_terrain(2, shape=(32, 32), random_state=0)
        images = write_folder(tmp_path / "x", {"a": X[0], "b": X[1]}, ".jpg")
        masks = write_folder(tmp_path / "y", {"a": y[0], "b": y[1]})
        data = load_image_folder(images, masks)
        assert np.abs(data.images.astype(float) - X).mean() < 8
        np.testing.assert_array_equal(data.target, y)

    def test_jpeg_masks_are_refused(self, tmp_path):
        images = write_folder(tmp_path / "x", {"a": GREY})
        masks = write_folder(tmp_path / "y", {"a": GREY}, ".jpeg")
        with pytest.raises(ValueError, match="lossy"):
            load_image_folder(images, masks)

    def test_colour_and_alpha(self, tmp_path):
        alpha = np.dstack([COLOUR, np.full((6, 8), 7, dtype=np.uint8)])
        data = load_image_folder(write_folder(tmp_path / "x", {"a": COLOUR, "b": alpha}))
        np.testing.assert_array_equal(data.images, np.stack([COLOUR, COLOUR]))

    def test_grey_with_alpha(self, tmp_path):
        image = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY[::-1])])
        data = load_image_folder(write_folder(tmp_path / "x", {"a": image}))
        np.testing.assert_array_equal(data.images, GREY[None])

    def test_grey_among_colour_becomes_rgb(self, tmp_path):
        data = load_image_folder(write_folder(tmp_path / "x", {"a": COLOUR, "b": GREY}))
        assert data.images.shape == (2, 6, 8, 3)
        np.testing.assert_array_equal(data.images[1], np.dstack([GREY] * 3))

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_16_bits(self, tmp_path, suffix):
        deep = GREY.astype(np.uint16) * 1000
        folder = write_folder(tmp_path / "x", {"a": deep}, suffix)
        data = load_image_folder(folder, folder)
        assert data.images.dtype == data.target.dtype == np.uint16
        np.testing.assert_array_equal(data.images[0], deep)
        np.testing.assert_array_equal(data.target[0], deep)

    def test_levels_that_do_not_fit_16_bits(self, tmp_path):
        deep = GREY.astype(np.int32) * 1000
        images = {"a": Image.fromarray(deep), "b": Image.fromarray(-deep)}
        data = load_image_folder(write_folder(tmp_path / "x", images, ".tif"))
        assert data.images.dtype == np.int32
        np.testing.assert_array_equal(data.images, np.stack([deep, -deep]))

    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
    def test_images_are_turned_as_viewers_turn_them(self, tmp_path, suffix):
        levels = np.arange(0, 256, 16, dtype=np.uint8).repeat(16).reshape(16, 16)
        (tmp_path / "x").mkdir()
        exif = Image.Exif()
        exif[0x0112] = 3  # upside down
        image = Image.fromarray(levels)
        image.save(tmp_path / "x" / f"a{suffix}", exif=exif, quality=95)
        found = load_image_folder(tmp_path / "x").images[0]
        assert np.abs(found.astype(int) - levels[::-1, ::-1]).max() < 12

    def test_several_pages_are_refused(self, tmp_path):
        (tmp_path / "x").mkdir()
        pages = [Image.fromarray(GREY), Image.fromarray(GREY[::-1])]
        pages[0].save(tmp_path / "x" / "a.tif", save_all=True, append_images=pages[1:])
        with pytest.raises(ValueError, match=r"a\.tif has several pages"):
            load_image_folder(tmp_path / "x")

    def test_16_bits_among_colour_are_refused(self, tmp_path):
        folder = write_folder(tmp_path / "x", {"a": COLOUR, "b": GREY.astype(np.uint16) * 1000})
        with pytest.raises(ValueError, match="uint16"):
            load_image_folder(folder)

    def test_8_and_16_bits_together_are_refused(self, tmp_path):
        folder = write_folder(tmp_path / "x", {"a": GREY, "b": GREY.astype(np.uint16) * 257})
        with pytest.raises(ValueError, match=r"a\.png is of type uint8, .*b\.png is of .*uint16"):
            load_image_folder(folder)

    @pytest.mark.parametrize("n_bits", [2, 4])
    def test_packed_grey_masks_are_refused(self, tmp_path, n_bits):
        images = write_folder(tmp_path / "x", {"a": GREY[:1, :4]})
        folder = write_folder(tmp_path / "y", {})
        row = np.packbits(
            np.unpackbits(np.arange(4, dtype=np.uint8)[:, None], axis=1)[:, -n_bits:]
        )
        header = struct.pack(">IIBBBBB", 4, 1, n_bits, 0, 0, 0, 0)
        chunks = {b"IHDR": header, b"IDAT": zlib.compress(b"\0" + row.tobytes()), b"IEND": b""}
        parts = [
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks.items()
        ]
        (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
        with pytest.raises(ValueError, match=f"L;{n_bits}.*8 bits"):
            load_image_folder(images, folder)

    def test_masks_with_zero_for_white_are_refused(self, tmp_path):
        images = write_folder(tmp_path / "x", {"a": GREY})
        folder = write_folder(tmp_path / "y", {})
        Image.fromarray(GREY).save(folder / "a.tif", tiffinfo={262: 0})
        with pytest.raises(ValueError, match=r"L;I.*black being zero"):
            load_image_folder(images, folder)

    def test_palette_masks_give_their_indices(self, tmp_path):
        labels = (GREY % 5).astype(np.uint8)
        mask = Image.fromarray(labels).convert("P")
        mask.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200, 9, 9, 9, 250, 250, 250])
        mask.frombytes(labels.tobytes())
        images = write_folder(tmp_path / "x", {"a": GREY})
        data = load_image_folder(images, write_folder(tmp_path / "y", {"a": mask}))
        np.testing.assert_array_equal(data.target[0], labels)

    def test_one_bit_masks(self, tmp_path):
        mask = Image.fromarray(GREY > 20)
        images = write_folder(tmp_path / "x", {"a": GREY})
        data = load_image_folder(images, write_folder(tmp_path / "y", {"a": mask}))
        assert data.target.dtype == np.uint8
        np.testing.assert_array_equal(data.target[0], GREY > 20)

    def test_colour_masks_are_refused(self, tmp_path):
        folder = write_folder(tmp_path / "x", {"a": COLOUR})
        with pytest.raises(ValueError, match="mode RGB"):
            load_image_folder(folder, folder)

    def test_different_sizes_give_lists(self, tmp_path):
        folder = write_folder(tmp_path / "x", {"a": GREY, "b": GREY[:3]})
        data = load_image_folder(folder, folder)
        assert isinstance(data.images, list)
        assert isinstance(data.target, list)
        assert [image.shape for image in data.images] == [(6, 8), (3, 8)]
        np.testing.assert_array_equal(data.target[1], GREY[:3])
        data.images[0][:] = data.target[1][:] = 7

    def test_mask_of_another_size(self, tmp_path):
        images = write_folder(tmp_path / "x", {"a": GREY})
        masks = write_folder(tmp_path / "y", {"a": GREY[:3]})
        with pytest.raises(ValueError, match=r"\(3, 8\).*\(6, 8\)"):
            load_image_folder(images, masks)

    def test_files_without_a_partner(self, tmp_path):
        images = write_folder(tmp_path / "x", {f"i{k}": GREY for k in range(8)} | {"a": GREY})
        masks = write_folder(tmp_path / "y", {"a": GREY, "z": GREY})
        message = "8 images without a mask: i0, i1, i2, i3, i4, ...; 1 masks without an image: z"
        with pytest.raises(ValueError, match=re.escape(message)):
            load_image_folder(images, masks)

    def test_two_files_of_one_stem(self, tmp_path):
        folder = write_folder(tmp_path / "x", {"a": GREY})
        Image.fromarray(GREY).save(folder / "a.tif")
        with pytest.raises(ValueError, match="same name up to the suffix"):
            load_image_folder(folder)

    def test_other_files_are_passed_over(self, tmp_path):
        folder = write_folder(tmp_path / "x", {"a": GREY})
        (folder / "notes.txt").write_text("no image")
        (folder / ".hidden.png").write_text("no image")
        (folder / "inner.png").mkdir()
        assert len(load_image_folder(folder).images) == 1

    def test_unreadable_image(self, tmp_path):
        folder = write_folder(tmp_path / "x", {"a": GREY})
        (folder / "b.png").write_text("no image")
        with pytest.raises(ValueError, match=r"b\.png is not an image"):
            load_image_folder(folder)

    def test_empty_folder(self, tmp_path):
        with pytest.raises(ValueError, match="no PNG, TIFF or JPEG"):
            load_image_folder(tmp_path)

    def test_missing_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            load_image_folder(tmp_path / "nothing")
