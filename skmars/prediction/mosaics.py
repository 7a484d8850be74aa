"""Images too large for memory: read and labelled strip by strip, and resumed after a kill."""

import hashlib
import itertools
import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from skmars import _validation as check
from skmars._files import replacing
from skmars.device import compute_settings
from skmars.prediction.predict import Settings, coarsest_grid, most_probable, probability_predictor
from skmars.prediction.windows import Windows, blend, check_window
from skmars.training.net import SegmentationNet

__all__ = ["Checkpoint", "MosaicMixin", "fitting_side"]

# Longest side of a window where the segmenter has none of its own, and what neighbours share
# before sides are rounded up, in places of the net's coarsest level. Larger windows were no
# faster, and smaller ones predict more pixels twice.
LONGEST_SIDE = 768
SHARED_PLACES = 3

FORMAT = 1

# Side of the patches that tell one source from another.
PATCH = 64


class MosaicMixin:
    """Prediction of images of any size, for an estimator with `net_` and `_settings`."""

    classes_: np.ndarray
    n_channels_in_: int
    n_threads: int | str
    precision_: str
    net_: SegmentationNet
    _settings: Any

    def predict_large(self, source, target, *, checkpoint=None, progress=False):
        """Label an image that need not fit into memory, window by window.

        Gives the labels that `predict` gives with the same `window` and `overlap`. With
        `window=None` the sides of windows are chosen to fit the image, 768 pixels at most, and
        neighbours have about `3 * 2**depth` in common. Held in memory are one batch of windows
        and the labels of one row of windows, whatever the height of the image.

        Parameters
        ----------
        source : array of shape (H, W) or (H, W, C)
            Anything with a shape and a dtype whose parts `source[a:b, c:d]` are arrays: an
            ndarray, a `numpy.memmap`, a dataset of h5py, an array of zarr or xarray.
        target : array of shape (H, W)
            Gets the labels, `target[a:b, 0:W] = labels`, from top to bottom. Of an integer dtype
            that has all of `classes_`.
        checkpoint : path-like, default=None
            A small file that says how far the labels are. If a run is killed, the same call goes
            on where it stood, with an identical result. Removed at the end.
        progress : bool, default=False
            Whether to show a bar.

        Returns
        -------
        target : array
            As given.

        Raises
        ------
        TypeError, ValueError
            If source or target are not as described, or the checkpoint is that of another run;
            nothing has been written to the target then. Pixels that are not finite are found
            when their window is read.

        Examples
        --------
        >>> import numpy as np
        >>> from skmars import MarsSegmenter
        >>> from skmars.datasets import make_terrain
        >>> X, y = make_terrain(8, random_state=0)
        >>> segmenter = MarsSegmenter(depth=2, base_channels=4, max_epochs=1, window=(64, 64))
        >>> mosaic = np.hstack(X)
        >>> labels = np.zeros(mosaic.shape, dtype=np.uint8)
        >>> segmenter.fit(X, y).predict_large(mosaic, labels).shape
        (64, 1024)
        """
        check_is_fitted(self)
        settings: Settings = self._settings()
        grid = coarsest_grid(self.net_)
        check_window(settings.window, settings.overlap, grid)
        image = _Source(source, self.n_channels_in_)
        _check_target(target, image, self.classes_)
        if settings.window is None:
            sides = [fitting_side(length, grid) for length in image.shape[:2]]
            settings = settings._replace(window=sides, overlap=SHARED_PLACES * grid / LONGEST_SIDE)
        windows = Windows(image.shape, settings.window or (), settings.overlap, grid)
        with compute_settings(self.n_threads):
            record = None
            if checkpoint is not None:
                run = _describe(self.net_, self.classes_, self.precision_, settings)
                record = Checkpoint(checkpoint, {**run, **_describe_arrays(image, target)})
            _label(self.net_, self.classes_, settings, image, target, windows, record, progress)
        return target


class Checkpoint:
    """A file that says which strips of a run are done, with a checksum of each.

    Parameters
    ----------
    path : path-like
        The file; made by the first strip, or read if there is one.
    run : dict
        What tells this run from others, as JSON can hold it.

    Raises
    ------
    ValueError
        If the file is that of another run, or none that this class wrote.
    """

    def __init__(self, path: str | os.PathLike, run: Mapping[str, Any]):
        self.path = Path(path)
        self.run = json.loads(json.dumps(run))
        self.strips: list[int] = []
        if self.path.exists():
            self.strips = self._read()
        # Whether it can be written should show now, not after the first strip.
        self._write()

    def _read(self) -> list[int]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            version, run, strips = content["format"], dict(content["run"]), content["strips"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{os.fspath(self.path)!r} is not a checkpoint") from error
        if version != FORMAT:
            raise ValueError(
                f"checkpoint {os.fspath(self.path)!r} has format {version}, this version reads "
                f"{FORMAT}"
            )
        others = [name for name in self.run if run.get(name) != self.run[name]]
        if others:
            raise ValueError(
                f"checkpoint {os.fspath(self.path)!r} is that of another run, with another "
                f"{', '.join(others)}; give another path, or delete it to begin anew"
            )
        return strips

    def _write(self) -> None:
        content = {"format": FORMAT, "run": self.run, "strips": self.strips}
        with replacing(self.path, "w", encoding="utf-8") as file:
            json.dump(content, file)

    def restore(self, target, windows: Windows) -> int:
        """Number of strips that the target holds as they were written, counted from the top.

        Raises
        ------
        ValueError
            If it holds not even the first of those that are done.
        """
        width = target.shape[1]
        n_done = 0
        for i, checksum in enumerate(self.strips):
            rows = windows.strip(i)
            if _checksum(np.asarray(target[rows.start : rows.stop, 0:width])) != checksum:
                break
            n_done += 1
        if self.strips and not n_done:
            raise ValueError(
                f"the target does not hold the labels that checkpoint {os.fspath(self.path)!r} "
                "tells of; give the target of that run, or delete the checkpoint to begin anew"
            )
        del self.strips[n_done:]
        return n_done

    def add(self, labels: np.ndarray) -> None:
        """Note that one more strip has been written."""
        self.strips.append(_checksum(labels))
        self._write()

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)


def _checksum(labels: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(labels).tobytes())


class _Source:
    """An image that is checked part by part, as its parts are read."""

    def __init__(self, array, n_channels: int):
        try:
            self.shape = tuple(int(side) for side in array.shape)
            self.dtype = np.dtype(array.dtype)
        except (AttributeError, TypeError) as error:
            raise TypeError(
                f"source must be an array with a shape and a dtype, got {type(array).__name__}"
            ) from error
        if len(self.shape) not in (2, 3):
            raise ValueError(
                "source must be one image of shape (H, W) or (H, W, C), got "
                f"{len(self.shape)} dimensions: shape {self.shape}"
            )
        self.array = array
        self.n_channels = n_channels
        # An empty image, other channels and other dtypes all show at one pixel.
        _ = self[0:1, 0:1]

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray:
        rows, columns = region
        part = np.asanyarray(self.array[rows.start : rows.stop, columns.start : columns.stop])
        part = check.check_images(part[None], n_channels=self.n_channels, name="source")[0]
        wanted = (rows.stop - rows.start, columns.stop - columns.start, *self.shape[2:])
        if part.shape != wanted:
            raise ValueError(f"source gave a part of shape {part.shape} instead of {wanted}")
        return part


def fitting_side(length: int, grid: int) -> int:
    """Side of the fewest windows that cover an axis of some length, as short as it can be."""
    shared = SHARED_PLACES * grid
    n = max(1, math.ceil((length - shared) / (LONGEST_SIDE - shared)))
    return grid * math.ceil((length + shared * (n - 1)) / (n * grid))


def _check_target(target, image: _Source, classes: np.ndarray) -> None:
    try:
        shape, dtype = tuple(target.shape), np.dtype(target.dtype)
    except (AttributeError, TypeError) as error:
        raise TypeError(
            f"target must be an array with a shape and a dtype, got {type(target).__name__}"
        ) from error
    if shape != image.shape[:2]:
        raise ValueError(
            f"target must have the height and width of the source, {image.shape[:2]}; got "
            f"shape {shape}"
        )
    if dtype.kind not in "bui":
        raise TypeError(f"target must be of an integer dtype, got {dtype}")
    lost = [label for label in classes.tolist() if np.array(label).astype(dtype) != label]
    if lost:
        raise ValueError(f"target of dtype {dtype} cannot hold the labels {lost}")
    arrays = (target, image.array)
    if all(isinstance(one, np.ndarray) for one in arrays) and np.may_share_memory(*arrays):
        raise ValueError("source and target must not share memory")
    try:
        target[0:1, 0:1] = np.asarray(target[0:1, 0:1])
    except Exception as error:  # Of a kind that depends on what holds the array.
        raise ValueError(f"target cannot be written to: {error}") from error


def _describe(
    net: SegmentationNet, classes: np.ndarray, precision: str, settings: Settings
) -> dict[str, Any]:
    """What labels depend on, besides the image."""
    model = hashlib.sha256()
    for name, tensor in sorted(net.module_.state_dict().items()):
        model.update(name.encode())
        model.update(tensor.cpu().contiguous().numpy().tobytes())
    for values in (net.mean, net.scale, classes):
        model.update(np.ascontiguousarray(values).tobytes())
    how = settings._replace(window=[int(side) for side in settings.window or ()])
    return {
        "model": model.hexdigest(),
        "temperature": float(net.temperature),
        "precision": precision,
        # Of numpy's types, which JSON does not know, some are allowed as parameters.
        "window": how.window,
        "overlap": float(how.overlap),
        "tta": bool(how.tta),
        "batch_size": int(how.batch_size),
    }


def _describe_arrays(image: _Source, target) -> dict[str, Any]:
    """What tells a source and a target from others; of the source's pixels nine patches."""
    pixels = hashlib.sha256()
    corners = (
        [(side - min(side, PATCH)) * part // 2 for part in range(3)] for side in image.shape[:2]
    )
    for a, b in itertools.product(*corners):
        c, d = min(a + PATCH, image.shape[0]), min(b + PATCH, image.shape[1])
        pixels.update(np.ascontiguousarray(image[a:c, b:d]).tobytes())
    return {
        "source": [list(image.shape), image.dtype.str, pixels.hexdigest()],
        "target": [list(image.shape[:2]), np.dtype(target.dtype).str],
    }


def _label(
    net: SegmentationNet,
    classes: np.ndarray,
    settings: Settings,
    image: _Source,
    target,
    windows: Windows,
    record: Checkpoint | None,
    progress: bool,
) -> None:
    """Write the strips that the record does not have yet."""
    width = image.shape[1]
    n_done = 0 if record is None else record.restore(target, windows)
    n_rows, n_columns = len(windows.rows), len(windows.columns)
    # The windows above a strip reach into it, so those of the last one are needed again.
    first = windows.first_row(n_done) if n_done < n_rows else n_rows
    labels = classes.astype(np.dtype(target.dtype))
    blocks = blend(
        [image],
        [windows],
        probability_predictor(net.predictor(), settings.tta),
        settings.batch_size,
        first_row=first,
    )
    with tqdm(
        total=n_rows * n_columns,
        initial=first * n_columns,
        unit="window",
        disable=not progress,
    ) as bar:
        for i in range(first, n_rows):
            rows = windows.strip(i)
            strip = np.empty((rows.stop - rows.start, width), labels.dtype)
            for block in itertools.islice(blocks, n_columns):
                strip[:, block.columns] = most_probable(block.probabilities[None], labels)[0]
                bar.update()
            if i < n_done:
                continue
            target[rows.start : rows.stop, 0:width] = strip
            if record is not None:
                # What the record tells of should outlast the machine as well as this process.
                getattr(target, "flush", lambda: None)()
                record.add(strip)
    if record is not None:
        record.remove()
