"""Images and masks from folders of files."""

import contextlib
import errno
import os
import re
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import Bunch

if TYPE_CHECKING:
    from PIL import Image

_MASK_SUFFIXES = (".png", ".tif", ".tiff")
_LOSSY_SUFFIXES = (".jpg", ".jpeg")
_IMAGE_SUFFIXES = _MASK_SUFFIXES + _LOSSY_SUFFIXES
_N_NAMED = 5
# Grey levels of 2 or 4 bits, which are spread over 0 to 255, and those with zero for white.
_CHANGED_GREYS = frozenset({"L;2", "L;4", "1;I", "L;I", "L;2I", "L;4I"})
# 16-bit grey with alpha, of which Pillow keeps the upper bytes alone.
_DEEP_GREY_ALPHA = "LA;16B"
# The TIFF tag that tells signed numbers, by its value 2.
_SAMPLE_FORMAT = 339
# Threads that set and restore Pillow's limit by turns could leave it lifted.
_limit_lock = threading.Lock()


def load_image_folder(
    images: str | os.PathLike,
    masks: str | os.PathLike | None = None,
    *,
    group_pattern: str | None = None,
    return_X_y: bool = False,
) -> Bunch | tuple[np.ndarray | list[np.ndarray], np.ndarray | list[np.ndarray] | None]:
    """Load images, and masks of the same names, from folders.

    An image and its mask are a pair if their names are the same up to the suffix. Sub-folders,
    hidden files and files of other kinds are passed over.

    Parameters
    ----------
    images : str or path-like
        Folder of PNG, TIFF or JPEG files of any size, grey or in colour. 16-bit grey images stay
        as they are, 16-bit colour is read with 8 bits. An alpha channel is dropped, palettes are
        resolved to RGB, and images are turned as their EXIF orientation says.
    masks : str or path-like, default=None
        Folder of PNG or TIFF files: palette images, whose indices are the labels, or grey
        images of 1, 8 or 16 bits, whose values are the labels, below zero too if the file says
        that they are signed. Turned like the images.
    group_pattern : str, default=None
        Regular expression that is searched for in the name of each image, without the suffix.
        What its first parentheses match, or all of it if it has none, is the group of the image:
        "sol[0-9]+" for tiles of one sol, "(.+)_" for all before the last underscore.
    return_X_y : bool, default=False
        If True, return `(images, target)` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : ndarray of shape (n, height, width) or (n, height, width, 3)
            The images in natural order of their names ("tile2" before "tile10"). A list of
            arrays if they differ in size. If some are in colour, grey ones become RGB.
        target : ndarray of shape (n, height, width) or None
            The masks, unsigned integers, or int32 if a label is below zero or above 65535; a list
            if the images differ in size; None without `masks`.
        filenames : list of str
            Paths of the images.
        groups : ndarray of shape (n,) or None
            Which images belong together, as strings; None without `group_pattern`.
        target_names : None
            Folders do not tell what the labels mean.
        DESCR : str
            Description of the data set.
    (images, target) : tuple if `return_X_y` is True

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or a link in it leads to no file.
    ValueError
        If a folder holds no images, two files have the same name up to the suffix, a file has
        no partner or several pages, images differ in the type of their pixels, or a mask is a
        JPEG or colour image, stores labels in 2 or 4 bits or with zero for white, or differs
        from its image in size. If `group_pattern` is no regular expression, or finds nothing in
        a name.

    Notes
    -----
    Pillow's limit on the pixels of an image, `PIL.Image.MAX_IMAGE_PIXELS`, is lifted while a file
    is read, for all threads of the process: the files should be from people you trust.

    Examples
    --------
    >>> import os, tempfile
    >>> from PIL import Image
    >>> from skmars.datasets import load_image_folder, make_terrain
    >>> X, y = make_terrain(3, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, arrays in [("images", X), ("masks", y)]:
    ...         os.mkdir(os.path.join(folder, name))
    ...         for stem, array in zip(["sol3_a", "sol3_b", "sol8_a"], arrays):
    ...             Image.fromarray(array).save(os.path.join(folder, name, f"{stem}.png"))
    ...     data = load_image_folder(
    ...         f"{folder}/images", f"{folder}/masks", group_pattern="sol[0-9]+"
    ...     )
    >>> data.images.shape, data.target.shape
    ((3, 64, 128), (3, 64, 128))
    >>> data.groups.tolist()
    ['sol3', 'sol3', 'sol8']
    """
    image_files = list_image_files(Path(images))
    groups = None if group_pattern is None else _find_groups(image_files, group_pattern)
    pixels = _narrow([_read(path, _image_to_array) for path in image_files.values()])
    if any(image.ndim == 3 for image in pixels):
        pixels = [
            _as_rgb(image, path) for image, path in zip(pixels, image_files.values(), strict=True)
        ]
    _check_same_type(pixels, image_files)
    labels = None
    if masks is not None:
        mask_files = list_image_files(Path(masks))
        _check_pairs(image_files, mask_files)
        labels = _narrow([_read_mask(mask_files[stem]) for stem in image_files])
        for stem, image, mask in zip(image_files, pixels, labels, strict=True):
            if image.shape[:2] != mask.shape:
                raise ValueError(
                    f"{mask_files[stem]} is of (height, width) {mask.shape}, "
                    f"its image of {image.shape[:2]}"
                )
    data, target = _stack(pixels), None if labels is None else _stack(labels)
    if return_X_y:
        return data, target
    return Bunch(
        images=data,
        target=target,
        filenames=[str(path) for path in image_files.values()],
        groups=groups,
        target_names=None,
        DESCR=f"{len(pixels)} images from {images}"
        + (f" with masks from {masks}." if masks is not None else "."),
    )


def read_images(files: dict[str, Path], names: Collection[str]) -> Iterator[np.ndarray]:
    """Read images as `load_image_folder` does, but one at a time and only some of them.

    Parameters
    ----------
    files : dict of str to Path
        What `list_image_files` has found.
    names : collection of str
        Of the images to read.

    Yields
    ------
    image : ndarray of shape (height, width) or (height, width, 3)
        All grey, or all in colour, and of one type.

    Raises
    ------
    ValueError
        Before the first one, if an image cannot be read, has pixels that are not finite, or they
        differ in type.
    """
    # Each is read for its kind and range first: one in colour makes all RGB, and what is beyond
    # 16 bits makes all wider.
    ranges = _narrow([_range(path) for path in files.values()])
    _check_same_type(ranges, files)
    in_colour = any(extremes.ndim == 3 for extremes in ranges)
    for (name, path), extremes in zip(files.items(), ranges, strict=True):
        if name not in names:
            continue
        image = _read(path, _image_to_array).astype(extremes.dtype, copy=False)
        yield _as_rgb(image, path) if in_colour else image


def _range(path: Path) -> np.ndarray:
    """Least and greatest value of an image, as an image of these two pixels."""
    image = _read(path, _image_to_array)
    extremes = np.stack([image.min(axis=(0, 1)), image.max(axis=(0, 1))])[np.newaxis]
    if not np.isfinite(extremes).all():
        raise ValueError(f"{path} has pixels that are NaN or infinite: fill them")
    return extremes


def list_image_files(folder: Path) -> dict[str, Path]:
    """Paths of the images in a folder by their stem, in natural order."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: _natural_key(path.stem)):
        is_image = path.suffix.lower() in _IMAGE_SUFFIXES and not path.is_dir()
        if not is_image or path.name.startswith("."):
            continue
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "link to a file that is missing", str(path))
        if path.stem in files:
            raise ValueError(f"{files[path.stem]} and {path} have the same name up to the suffix")
        files[path.stem] = path
    if not files:
        raise ValueError(f"no PNG, TIFF or JPEG files in {folder}")
    return files


def _natural_key(stem: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", stem)
    key = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
    # Names such as "1" and "01" are equal as numbers.
    return [*key, (2, 0, stem)]


def _find_groups(files: dict[str, Path], pattern: str) -> np.ndarray:
    """What a regular expression finds in the stem of each file."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"group_pattern={pattern!r} is no regular expression: {error}") from error
    # 0 is all that is found, 1 what is in the first parentheses.
    part = min(expression.groups, 1)
    groups = []
    for stem, path in files.items():
        match = expression.search(stem)
        if match is None or not match[part]:
            raise ValueError(f"group_pattern={pattern!r} finds nothing in the name of {path}")
        groups.append(match[part])
    return np.array(groups)


def _check_pairs(image_files: dict[str, Path], mask_files: dict[str, Path]) -> None:
    problems = []
    for missing, there, what in [
        (mask_files, image_files, "images without a mask"),
        (image_files, mask_files, "masks without an image"),
    ]:
        stems = [stem for stem in there if stem not in missing]
        if stems:
            dots = ", ..." if len(stems) > _N_NAMED else ""
            problems.append(f"{len(stems)} {what}: {', '.join(stems[:_N_NAMED])}{dots}")
    if problems:
        raise ValueError("; ".join(problems))


@contextlib.contextmanager
def _any_size() -> Iterator[None]:
    """Lift Pillow's limit on the pixels of an image, which is meant for files from strangers."""
    from PIL import Image

    with _limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _read(path: Path, convert: Callable[["Image.Image", Path], np.ndarray]) -> np.ndarray:
    from PIL import Image

    try:
        with _any_size(), Image.open(path) as image:
            if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
                raise ValueError(f"{path} has several pages; save each as a file of its own")
            return convert(image, path)
    except (FileNotFoundError, PermissionError):
        raise
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{path} is not an image that can be read") from error
    except (OSError, SyntaxError) as error:
        # Pillow does not say in which file.
        raise ValueError(f"{path} cannot be read: {error}") from error


def _upright(image: "Image.Image") -> "Image.Image":
    """An image as viewers show it, in which masks are drawn."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _image_to_array(image: "Image.Image", path: Path) -> np.ndarray:
    if _stored_as(image) == _DEEP_GREY_ALPHA:
        return _deep_grey(image)
    if _is_signed_byte(image):
        return np.array(_upright(image)).view(np.int8)
    image = _upright(image)
    if image.mode == "LA":
        return np.array(image.convert("L"))
    if image.mode in ("L", "F", "I") or image.mode.startswith("I;16"):
        return np.array(image)
    return np.array(image.convert("L" if image.mode == "1" else "RGB"))


def _mask_to_array(image: "Image.Image", path: Path) -> np.ndarray:
    if _is_signed_byte(image):
        return np.array(_upright(image)).view(np.int8)
    if image.mode in ("1", "L", "P"):
        # An R at the end says that the bits of a byte are in reverse.
        if (stored := _stored_as(image)).removesuffix("R") in _CHANGED_GREYS:
            raise ValueError(
                f"{path} stores grey levels as {stored}, from which other values are read than it "
                "has; save the mask with 8 bits, black being zero"
            )
        return np.array(_upright(image), dtype=np.uint8)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return np.array(_upright(image))
    raise ValueError(
        f"{path} is of mode {image.mode}; a mask must be a palette image or a grey one of 1, 8 "
        "or 16 bits"
    )


def _stored_as(image: "Image.Image") -> str:
    """Pillow's name for how pixels are stored in the file, as long as they have not been read."""
    # A tile names its codec, its place twice, and what the codec has to know.
    tiles = getattr(image, "tile", [])
    stored = tiles[0][3] if tiles else ""
    return str(stored[0]) if isinstance(stored, tuple) and stored else str(stored)


def _deep_grey(image: Any) -> np.ndarray:
    """Grey levels of a 16-bit PNG image with alpha."""
    # Pillow has no mode for it. Read as four bytes: two of the grey level, then two of alpha.
    image.tile = [(*tile[:3], "RGBA") for tile in image.tile]
    return np.array(_upright(image)).view(">u2")[..., 0].astype(np.uint16)


def _is_signed_byte(image: "Image.Image") -> bool:
    """Whether a TIFF image holds signed bytes, which Pillow opens as unsigned ones."""
    return image.mode == "L" and getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT) == (2,)


def _narrow(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Bring integers that are signed or of more than 8 bits into 16 unsigned ones, if all fit.

    Pillow opens 16-bit PNG files as 32 bits in older versions, or big-endian.
    """
    # Signed bytes are among them: int8 does not hold what the bytes of other files may.
    wide = [array.dtype.kind in "iu" and array.dtype != np.uint8 for array in arrays]
    fits = all(
        array.min() >= 0 and array.max() <= np.iinfo(np.uint16).max
        for array, is_wide in zip(arrays, wide, strict=True)
        if is_wide
    )
    dtype = np.uint16 if fits else np.int32
    return [
        array.astype(dtype) if is_wide else array
        for array, is_wide in zip(arrays, wide, strict=True)
    ]


def _read_mask(path: Path) -> np.ndarray:
    if path.suffix.lower() in _LOSSY_SUFFIXES:
        raise ValueError(
            f"{path}: masks cannot be JPEG files, whose lossy compression alters labels; "
            "save them as PNG or TIFF"
        )
    return _read(path, _mask_to_array)


def _as_rgb(image: np.ndarray, path: Path) -> np.ndarray:
    if image.ndim == 3:
        return image
    if image.dtype != np.uint8:
        raise ValueError(f"{path} is a grey image of type {image.dtype} among 8-bit RGB images")
    return np.repeat(image[..., None], 3, axis=2)


def _check_same_type(pixels: list[np.ndarray], files: dict[str, Path]) -> None:
    """Refuse images of several types: equal numbers would not be equally bright."""
    first: dict[np.dtype, Path] = {}
    for image, path in zip(pixels, files.values(), strict=True):
        first.setdefault(image.dtype, path)
    if len(first) > 1:
        found = ", ".join(f"{path} is of type {dtype}" for dtype, path in first.items())
        raise ValueError(f"images must have one type of pixels: {found}")


def _stack(arrays: list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    same_size = len({array.shape for array in arrays}) == 1
    return np.stack(arrays) if same_size else arrays
