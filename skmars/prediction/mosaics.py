"""Images too large for memory: read and labelled strip by strip, and resumed after a kill."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from tqdm.auto import tqdm

from skmars.device import compute_settings
from skmars.metrics import predictive_entropy
from skmars.prediction.arrays import Source, check_nodata, check_target, check_uncertainty
from skmars.prediction.checkpoints import Checkpoint, describe_arrays, describe_net
from skmars.prediction.models import Model
from skmars.prediction.predict import (
    coarsest_grid,
    most_probable,
    probability_predictor,
    warn_of_other_scale,
)
from skmars.prediction.windows import Block, Windows, blend, check_window
from skmars.training.net import SegmentationNet

__all__ = ["MosaicMixin", "fitting_side"]

# Longest side of a window where the segmenter has none of its own, and what neighbours share
# before sides are rounded up, in places of the net's coarsest level. Larger windows were no
# faster, and smaller ones predict more pixels twice.
LONGEST_SIDE = 768
SHARED_PLACES = 3


class Output(NamedTuple):
    """An array that is written for all pixels, and what it gets."""

    array: Any
    """Of shape (H, W)."""
    of_block: Callable[[Block], np.ndarray]
    """Gives the values of a block, of shape (height, width)."""


class MosaicMixin:
    """Prediction of images of any size, for an estimator with `net_`, or another `_model`."""

    classes_: np.ndarray
    n_threads: int | str
    precision_: str
    net_: SegmentationNet
    _settings: Any

    def predict_large(
        self,
        source,
        target,
        *,
        nodata=None,
        nodata_label=None,
        uncertainty=None,
        checkpoint=None,
        progress=False,
    ):
        """Label an image that need not fit into memory, window by window.

        Gives the labels that `predict` gives with the same `window` and `overlap`; an `Ensemble`
        has those of its members, which have to be of one depth and patch size for that. With
        `window=None` the sides of windows are chosen to fit the
        image, 768 pixels at most, and neighbours have about `3 * 2**depth` in common, whatever
        `overlap` is. Held in memory are one batch of windows and, of one row of windows, the
        labels and the sums of probabilities where it overlaps with the next, whatever the height
        of the image.

        Parameters
        ----------
        source : array of shape (H, W) or (H, W, C)
            Anything with a shape and a dtype whose parts `source[a:b, c:d]` are arrays: an
            ndarray, a `numpy.memmap`, a dataset of h5py, an array of zarr or xarray.
        target : array of shape (H, W)
            Gets the labels, `target[a:b, 0:W] = labels`, from top to bottom. Such an assignment
            must reach what stores the array, as it does with all of the above but xarray. Of an
            integer dtype that has all of `classes_`, and `nodata_label`.
        nodata : float, default=None
            What pixels without data have in all of their channels, a number or NaN. They are
            filled with the mean of the training images before the net sees them; windows that
            have no other pixels are left out.
        nodata_label : int, default=None
            The label that pixels without data get, of `classes_` or another; needed with `nodata`.
        uncertainty : array of shape (H, W), default=None
            Gets the entropy of each pixel's probabilities as `target` gets its label: from 0 to 1,
            NaN without data. Of a floating dtype.
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

        Warns
        -----
        UserWarning
            If nine patches of the image, but for constant ones, are on another scale than the
            training images, as `predict` says of images.

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
        check_nodata(nodata, nodata_label)
        model = self._model()
        window, overlap = model.settings.window, model.settings.overlap
        check_window(window, overlap, model.grid)
        image = Source(source, model.mean, nodata)
        own_label = [] if nodata_label is None else [nodata_label]
        check_target(target, image, [*self.classes_.tolist(), *own_label])
        if uncertainty is not None:
            check_uncertainty(uncertainty, image, target)
        patches = image.patches()
        warn_of_other_scale(map(image.with_data, patches), model.scale, stacklevel=3)
        if window is None:
            window = [fitting_side(length, model.grid) for length in image.shape[:2]]
            overlap = SHARED_PLACES * model.grid / LONGEST_SIDE
        record = None
        if checkpoint is not None:
            layout = {"window": [int(side) for side in window], "overlap": float(overlap)}
            arrays = describe_arrays(image, patches, target, uncertainty, nodata_label)
            record = Checkpoint(checkpoint, {**model.describe(), **layout, **arrays})
        predict = model.predict
        if nodata is not None:
            predict = _with_data_only(predict, image, len(self.classes_))
        windows = Windows(image.shape, window, overlap, model.grid)
        blocks = functools.partial(blend, [image], [windows], predict, model.settings.batch_size)
        label = functools.partial(
            _label, classes=self.classes_.astype(target.dtype), nodata_label=nodata_label
        )
        outputs = [Output(target, label)]
        if uncertainty is not None:
            outputs.append(Output(uncertainty, _entropy))
        with compute_settings(model.n_threads):
            _write(blocks, outputs, windows, record, progress)
        return target

    def _model(self) -> Model:
        """What labels windows."""
        with compute_settings(self.n_threads):
            settings = self._settings()
            infer = self.net_.predictor()
        net, grid = self.net_, coarsest_grid(self.net_)
        check_window(settings.window, settings.overlap, grid)
        return Model(
            predict=probability_predictor(infer, settings.tta),
            settings=settings,
            grid=grid,
            mean=net.mean,
            scale=net.scale,
            n_threads=self.n_threads,
            describe=functools.partial(
                describe_net, net, self.classes_, self.precision_, settings
            ),
        )


def fitting_side(length: int, grid: int) -> int:
    """Side of the fewest windows that cover an axis of some length, as short as it can be."""
    shared = SHARED_PLACES * grid
    n = max(1, math.ceil((length - shared) / (LONGEST_SIDE - shared)))
    return grid * math.ceil((length + shared * (n - 1)) / (n * grid))


def _with_data_only(
    predict: Callable[[np.ndarray], Tensor], image: Source, n_classes: int
) -> Callable[[np.ndarray], Tensor]:
    """Make of a function of windows one that gives NaN where pixels have no data.

    They stay NaN where windows are added up: a pixel without data has none in any window.
    """

    def predict_data(windows: np.ndarray) -> Tensor:
        is_empty = image.is_empty(windows)
        has_data = ~is_empty.all(axis=(1, 2))
        shape = (len(windows), n_classes, *is_empty.shape[1:])
        probabilities = torch.full(shape, torch.nan, dtype=torch.float32)
        if has_data.any():
            filled = image.fill(windows[has_data])
            probabilities[torch.from_numpy(has_data)] = predict(filled).cpu()
        return probabilities.masked_fill_(torch.from_numpy(is_empty)[:, None], torch.nan)

    return predict_data


def _label(block: Block, classes: np.ndarray, nodata_label: int | None) -> np.ndarray:
    """Labels of a block; pixels without data have probabilities of NaN."""
    labels = most_probable(block.probabilities[None], classes)[0]
    if nodata_label is not None:
        labels[block.probabilities[0].isnan().cpu().numpy()] = nodata_label
    return labels


def _entropy(block: Block) -> np.ndarray:
    return predictive_entropy(block.probabilities.cpu().numpy())


def _write(
    blocks: Callable[..., Iterator[Block]],
    outputs: Sequence[Output],
    windows: Windows,
    record: Checkpoint | None,
    progress: bool,
) -> None:
    """Write the strips that the record does not have yet."""
    width = windows.columns[-1].stop
    n_done = 0 if record is None else record.restore([one.array for one in outputs], windows)
    n_rows, n_columns = len(windows.rows), len(windows.columns)
    # The windows above a strip reach into it, so those of the last one are needed again.
    first = windows.first_row(n_done) if n_done < n_rows else n_rows
    to_come = blocks(first_row=first)
    with tqdm(
        total=n_rows * n_columns,
        initial=first * n_columns,
        unit="window",
        disable=not progress,
    ) as bar:
        for i in range(first, n_rows):
            rows = windows.strip(i)
            shape = (rows.stop - rows.start, width)
            strips = [np.empty(shape, one.array.dtype) for one in outputs]
            for block in itertools.islice(to_come, n_columns):
                for strip, one in zip(strips, outputs, strict=True):
                    strip[:, block.columns] = one.of_block(block)
                bar.update()
            if i < n_done:
                continue
            for strip, one in zip(strips, outputs, strict=True):
                one.array[rows.start : rows.stop, 0:width] = strip
                if record is not None:
                    # What the record tells of should outlast the machine as well as this process.
                    getattr(one.array, "flush", lambda: None)()
            if record is not None:
                record.add(strips)
    if record is not None:
        record.remove()
