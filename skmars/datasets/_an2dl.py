"""Files of the AN2DL challenge: the data set and the submission."""

import contextlib
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.lib import format as npy_format
from sklearn.utils import Bunch

from skmars._files import replacing

TARGET_NAMES = ["background", "soil", "bedrock", "sand", "big rock"]

_DESCR = """\
Grey images with a label for every pixel, in the layout of the AN2DL challenge (Artificial Neural
Networks and Deep Learning, Politecnico di Milano, 2024-25).

Labels: {labels}.

The challenge is about Martian terrain. It scores the mean intersection over union of its labels
1 to 4; pixels whose true label is 0 are left out.

{n_train} training images of {height} x {width} pixels; {n_test} test images.
"""


def load_an2dl(
    path: str | os.PathLike, *, return_X_y: bool = False
) -> Bunch | tuple[np.ndarray, np.ndarray]:
    """Load a data set in the layout of the AN2DL challenge.

    Parameters
    ----------
    path : str or path-like
        The npz file. Key `training_set`, of shape (n, 2, height, width), holds images and masks
        together. Keys `test_set`, `test_masks`, `training_sol`, `test_sol` and `target_names`, the
        names of labels 0, 1, 2, ..., are optional.
    return_X_y : bool, default=False
        If True, return `(images, target)` instead of a Bunch.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : ndarray of shape (n, height, width)
            Training images: uint8 if all values are whole numbers from 0 to 255, else of the
            type in the file.
        target : ndarray of shape (n, height, width)
            Training masks, uint8.
        groups : ndarray of shape (n,) or None
            The Martian day (sol) of each image. Images of one day show one scene.
        test_images, test_target, test_groups : ndarray or None
            The same of the test set; None for what the file does not have.
        target_names : list of str or None
            Names of labels 0, 1, 2, ...: those in the file, or else AN2DL's if no label is above
            4, or else None.
        DESCR : str
            Description of the data set.
    (images, target) : tuple if `return_X_y` is True

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not an npz file, is damaged, lacks `training_set`, or an array has another
        shape than expected, masks that are not whole numbers, or pickled objects; or if a label
        is not named by the names in the file.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from skmars.datasets import load_an2dl, make_terrain
    >>> X, y = make_terrain(3, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "mars.npz")
    ...     np.savez(path, training_set=np.stack([X, y], axis=1).astype(float))
    ...     data = load_an2dl(path)
    >>> data.images.shape, data.images.dtype
    ((3, 64, 128), dtype('uint8'))
    >>> data.target_names
    ['background', 'soil', 'bedrock', 'sand', 'big rock']
    """
    with _open_npz(path) as archive:
        images, target = _read_training_set(archive, path)
        if return_X_y:
            return images, target
        test_images, test_target = _read_test_set(archive, path)
        n_test = 0 if test_images is None else len(test_images)
        height, width = images.shape[1:]
        names = _read_target_names(archive, path, target, test_target)
        return Bunch(
            images=images,
            target=target,
            groups=_read_groups(archive, path, "training_sol", images),
            test_images=test_images,
            test_target=test_target,
            test_groups=_read_groups(archive, path, "test_sol", test_images),
            target_names=names,
            DESCR=_DESCR.format(
                labels=_name_labels(names),
                n_train=len(images),
                height=height,
                width=width,
                n_test=n_test,
            ),
        )


def save_submission(y_pred: np.ndarray, path: str | os.PathLike) -> None:
    """Write predicted masks as a submission to the AN2DL challenge.

    A CSV file with the header `id,0,1,...` and one row for each image: its number, counted from
    0, and the labels of its pixels, row by row. An existing file is replaced only once the new
    one is complete.

    Parameters
    ----------
    y_pred : ndarray of shape (n, height, width)
        Predicted masks, of any integer type; labels from 0 to 255.
    path : str or path-like
        The file to write.

    Raises
    ------
    ValueError
        If `y_pred` is not a 3-D array of integers from 0 to 255.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from skmars.datasets import save_submission
    >>> y_pred = np.array([[[1, 2], [3, 4]], [[1, 1], [2, 2]]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "submission.csv")
    ...     save_submission(y_pred, path)
    ...     with open(path) as file:
    ...         print(file.read(), end="")
    id,0,1,2,3
    0,1,2,3,4
    1,1,1,2,2
    """
    y_pred = np.asarray(y_pred)
    if y_pred.ndim != 3 or y_pred.dtype.kind not in "iu":
        raise ValueError(
            "y_pred must be an integer array of shape (n, height, width), "
            f"got shape {y_pred.shape} and dtype {y_pred.dtype}"
        )
    if y_pred.size and not 0 <= y_pred.min() <= y_pred.max() <= 255:
        raise ValueError(
            f"y_pred must hold labels from 0 to 255, got {y_pred.min()} to {y_pred.max()}"
        )
    n_pixels = y_pred.shape[1] * y_pred.shape[2]
    # Looking labels up as text is several times faster than formatting every pixel.
    text = np.array([str(label) for label in range(256)], dtype=object)
    with replacing(path, "w", encoding="ascii", newline="\n") as file:
        file.write(",".join(["id", *map(str, range(n_pixels))]) + "\n")
        for i, mask in enumerate(y_pred):
            file.write(f"{i},{','.join(text[mask.ravel()])}\n")


def find_image_arrays(path: str | os.PathLike) -> list[str]:
    """Names of the arrays with a value for each training image, which `write_subset` cuts.

    They are not read, so that a file can be checked before hours of work.

    Parameters
    ----------
    path : str or path-like
        An npz file in the layout of the AN2DL challenge.

    Returns
    -------
    keys : list of str
        `training_set` and others of its length, but for the test set and the names of labels.

    Raises
    ------
    ValueError
        If the file is not an npz file, is damaged or lacks `training_set`, or one of the arrays
        holds Python objects.
    """
    with _open_npz(path) as archive, zipfile.ZipFile(path) as members:
        _check_training_set(archive, path)
        headers = {
            name.removesuffix(".npy"): _read_header(members, name) for name in members.namelist()
        }
    n_images = headers["training_set"][0][:1]
    keys = []
    for key, (shape, has_objects) in headers.items():
        # The test set and the names of labels can happen to be of the same length.
        is_other = key.startswith("test") or key == "target_names"
        if is_other or not shape or shape[:1] != n_images:
            continue
        if has_objects:
            raise ValueError(
                f"{key!r} in {path} has a Python object for each image, which cannot be read "
                "safely: save it as numbers, or as text with astype(str), or leave it out"
            )
        keys.append(key)
    return keys


def write_subset(source: str | os.PathLike, rows: np.ndarray, path: str | os.PathLike) -> None:
    """Copy a data set with some of its training images, and all else as it is.

    Parameters
    ----------
    source : str or path-like
        An npz file in the layout of the AN2DL challenge.
    rows : ndarray of shape (n_kept,)
        Indices of the training images to keep.
    path : str or path-like
        The file to write.

    Raises
    ------
    ValueError
        As by `find_image_arrays`.
    """
    keys = find_image_arrays(source)
    with (
        _open_npz(source) as archive,
        zipfile.ZipFile(source) as members,
        replacing(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as subset,
    ):
        for name in members.namelist():
            # The size is not known beforehand, and more than 2 GB need this format.
            with subset.open(name, "w", force_zip64=True) as member:
                if (key := name.removesuffix(".npy")) in keys:
                    array = _read_array(archive, source, key)[rows]
                    npy_format.write_array(member, array, allow_pickle=False)
                else:
                    with members.open(name) as stored:
                        shutil.copyfileobj(stored, member)


@contextlib.contextmanager
def _open_npz(path: str | os.PathLike) -> Iterator[np.lib.npyio.NpzFile]:
    if os.path.isdir(path):
        raise ValueError(f"{path} is a folder; an npz file with images and masks is needed")
    try:
        archive = np.load(path, allow_pickle=False)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        # Not with the reason: numpy's is to load such a file unsafely.
        raise ValueError(f"{path} is not an npz file") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"{path} is not an npz file, it holds a single array")
    with archive:
        try:
            yield archive
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            # Arrays are read when they are asked for.
            raise ValueError(f"{path} is damaged: {error}") from error


def _read_header(members: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], bool]:
    """Shape of an array, and whether it holds Python objects; no shape for what is no array."""
    with members.open(name) as file:
        try:
            version = npy_format.read_magic(file)
        except ValueError:
            return (), False
        if version == (1, 0):
            shape, _, dtype = npy_format.read_array_header_1_0(file)
        else:
            # Version 3 differs from 2 in the names of fields alone.
            shape, _, dtype = npy_format.read_array_header_2_0(file)
    return shape, dtype.hasobject


def _read_array(archive: np.lib.npyio.NpzFile, path: str | os.PathLike, key: str) -> np.ndarray:
    try:
        return archive[key]
    except ValueError as error:
        # Not with the reason: numpy's is to load such a file unsafely.
        raise ValueError(
            f"{key!r} in {path} is not an array of numbers or text; if it holds Python objects, "
            "as arrays from pandas do, save it as numbers, or as text with astype(str)"
        ) from error


def _check_training_set(archive: np.lib.npyio.NpzFile, path: str | os.PathLike) -> None:
    if "training_set" not in archive:
        raise ValueError(f"{path} has no key 'training_set', it has {sorted(archive)}")


def _read_training_set(
    archive: np.lib.npyio.NpzFile, path: str | os.PathLike
) -> tuple[np.ndarray, np.ndarray]:
    _check_training_set(archive, path)
    pairs = _read_array(archive, path, "training_set")
    if pairs.ndim != 4 or pairs.shape[1] != 2:
        raise ValueError(
            f"'training_set' must have the shape (n, 2, height, width), got {pairs.shape}"
        )
    return _compact(pairs[:, 0]), _as_mask(pairs[:, 1], "training_set")


def _read_test_set(
    archive: np.lib.npyio.NpzFile, path: str | os.PathLike
) -> tuple[np.ndarray | None, np.ndarray | None]:
    if "test_set" not in archive:
        return None, None
    images = _read_array(archive, path, "test_set")
    if images.ndim != 3:
        raise ValueError(f"'test_set' must have the shape (n, height, width), got {images.shape}")
    if "test_masks" not in archive:
        return _compact(images), None
    masks = _read_array(archive, path, "test_masks")
    if masks.shape != images.shape:
        raise ValueError(
            f"'test_masks' must have the shape of 'test_set', {images.shape}, got {masks.shape}"
        )
    return _compact(images), _as_mask(masks, "test_masks")


def _read_groups(
    archive: np.lib.npyio.NpzFile, path: str | os.PathLike, key: str, images: np.ndarray | None
) -> np.ndarray | None:
    if key not in archive or images is None:
        return None
    groups = _read_array(archive, path, key)
    if groups.shape != (len(images),):
        raise ValueError(f"{key!r} must have the shape ({len(images)},), got {groups.shape}")
    return groups


def _read_target_names(
    archive: np.lib.npyio.NpzFile, path: str | os.PathLike, *masks: np.ndarray | None
) -> list[str] | None:
    """Names of labels: those in the file, or AN2DL's if the masks can be its masks."""
    highest = max(int(part.max(initial=0)) for part in masks if part is not None)
    if "target_names" not in archive:
        return list(TARGET_NAMES) if highest < len(TARGET_NAMES) else None
    names = _read_array(archive, path, "target_names")
    if names.ndim != 1 or names.dtype.kind != "U" or len(names) <= highest:
        raise ValueError(
            f"'target_names' must be an array of names, one for each label from 0 to {highest}, "
            f"the highest in the masks; got shape {names.shape} and dtype {names.dtype}"
        )
    return names.tolist()


def _name_labels(names: list[str] | None) -> str:
    if names is None:
        return "not named in the file"
    return ", ".join(f"{label} {name}" for label, name in enumerate(names))


def _compact(values: np.ndarray) -> np.ndarray:
    """Turn whole numbers from 0 to 255 of any type into uint8; leave others as they are."""
    with np.errstate(invalid="ignore"):
        small = values.astype(np.uint8)
    return small if np.array_equal(small, values) else np.ascontiguousarray(values)


def _as_mask(values: np.ndarray, key: str) -> np.ndarray:
    mask = _compact(values)
    if mask.dtype != np.uint8:
        raise ValueError(f"the masks in {key!r} must hold whole numbers from 0 to 255")
    return mask
