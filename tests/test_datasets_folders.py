import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from skmars.datasets import load_image_folder, make_terrain


def write_folder(folder, arrays, suffix=".png"):
    folder.mkdir()
    for stem, array in arrays.items():
        image = array if isinstance(array, Image.Image) else Image.fromarray(array)
        image.save(folder / f"{stem}{suffix}")
    return folder


def write_png(path, width, n_bits, colour_type, rows):
    """Write a PNG file of a kind that Pillow does not write, from the bytes of its rows."""
    header = struct.pack(">IIBBBBB", width, len(rows), n_bits, colour_type, 0, 0, 0)
    pixels = b"".join(b"\0" + row for row in rows)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(pixels), b"IEND": b""}
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def write_signed(path, array):
    """Write a TIFF file of signed bytes, by the tag SampleFormat."""
    Image.fromarray(array.view(np.uint8)).save(path, tiffinfo={339: 2})


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

    def test_16_bit_grey_with_alpha(self, tmp_path):
        deep = GREY.astype(np.uint16) * 1000
        folder = write_folder(tmp_path / "x", {"a": deep})
        pixels = np.stack([deep, deep[::-1]], axis=2).astype(">u2")
        write_png(folder / "b.png", 8, 16, 4, [row.tobytes() for row in pixels])
        data = load_image_folder(folder)
        assert data.images.dtype == np.uint16
        np.testing.assert_array_equal(data.images, np.stack([deep, deep]))

    def test_signed_bytes_keep_their_sign(self, tmp_path):
        signed = GREY.astype(np.int8) - 1
        folder = write_folder(tmp_path / "y", {})
        write_signed(folder / "a.tif", signed)
        data = load_image_folder(folder, folder)
        np.testing.assert_array_equal(data.images[0], signed)
        np.testing.assert_array_equal(data.target[0], signed)

    def test_signed_bytes_among_unsigned_ones(self, tmp_path):
        signed = GREY.astype(np.int8) - 1
        masks = write_folder(tmp_path / "y", {"b": GREY + 200})
        write_signed(masks / "a.tif", signed)
        images = write_folder(tmp_path / "x", {"a": GREY, "b": GREY})
        target = load_image_folder(images, masks).target
        assert target.dtype == np.int32
        np.testing.assert_array_equal(target[0], signed)
        np.testing.assert_array_equal(target[1], GREY + 200)

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
        write_png(folder / "a.png", 4, n_bits, 0, [row.tobytes()])
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

    def test_links_are_read_and_broken_ones_refused(self, tmp_path):
        folder = write_folder(tmp_path / "x", {"a": GREY})
        (folder / "b.png").symlink_to(folder / "a.png")
        assert len(load_image_folder(folder).images) == 2
        (folder / "c.png").symlink_to(tmp_path / "gone.png")
        with pytest.raises(FileNotFoundError, match=r"link to a file that is missing.*c\.png"):
            load_image_folder(folder)

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_images_above_the_limit_of_pillow(self, tmp_path, monkeypatch, suffix):
        folder = write_folder(tmp_path / "x", {"a": GREY}, suffix)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
        np.testing.assert_array_equal(load_image_folder(folder).images[0], GREY)
        assert Image.MAX_IMAGE_PIXELS == 20

    def test_limit_of_pillow_is_back_after_an_error(self, tmp_path, monkeypatch):
        folder = write_folder(tmp_path / "x", {})
        (folder / "a.png").write_text("no image")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
        with pytest.raises(ValueError, match="not an image"):
            load_image_folder(folder)
        assert Image.MAX_IMAGE_PIXELS == 20

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
