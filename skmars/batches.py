"""From the arrays as they were given to batches of tensors, and nothing in between."""

import copy
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.utils.data import Dataset

from skmars._validation import count_channels
from skmars.losses import IGNORE_INDEX

__all__ = [
    "Batches",
    "SegmentationDataset",
    "channels_first",
    "encode_masks",
    "measure_scaling",
]

NUMBERS_AT_ONCE = 2**20


def channels_first(images: np.ndarray) -> Tensor:
    """View images `(n, H, W)` or `(n, H, W, C)` of any dtype as a tensor `(n, C, H, W)`."""
    # Foreign byte orders, such as those of FITS files, are not for torch.
    tensor = torch.from_numpy(images.astype(images.dtype.newbyteorder("="), copy=False))
    return tensor.unsqueeze(1) if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2)


def encode_masks(masks: np.ndarray, classes: np.ndarray, ignore_label) -> Tensor:
    """Map labels `(n, H, W)` to int64 indices into `classes`, `IGNORE_INDEX` where ignored."""
    target = np.searchsorted(classes, masks)
    if ignore_label is not None:
        target[masks == ignore_label] = IGNORE_INDEX
    return torch.from_numpy(target)


def measure_scaling(images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, computed a few images at a time.

    Parameters
    ----------
    images : ndarray of shape (n, H, W) or (n, H, W, C)
        Images.
    rows : ndarray of int
        Those to measure.

    Returns
    -------
    mean, scale : ndarray of shape (C,) of float64
        The scale of a constant channel is 1.
    """
    n_channels = count_channels(images)
    scaler = StandardScaler()
    n_parts = math.ceil(images[:1].size * len(rows) / NUMBERS_AT_ONCE)
    for part in np.array_split(rows, min(n_parts, len(rows))):
        scaler.partial_fit(images[part].reshape(-1, n_channels))
    return scaler.mean_, scaler.scale_


class SegmentationDataset(Dataset):
    """Rows of images and masks that become tensors only when a batch asks for them.

    Parameters
    ----------
    images : ndarray of shape (n, H, W) or (n, H, W, C)
        Kept as given.
    masks : ndarray of shape (n, H, W)
        Labels, each in `classes` or `ignore_label`.
    classes : ndarray of shape (n_classes,)
        Sorted labels.
    ignore_label : int or None
        Label that is no class.
    sample_weight : ndarray of shape (n,) or (n, H, W), or None
        Weights of images or pixels.
    rows : ndarray of int, or None
        The images that belong to this data set; all by default.
    mean_weight : float, default=1.0
        What sample weights are divided by.
    """

    def __init__(
        self,
        images,
        masks,
        classes,
        ignore_label,
        *,
        sample_weight=None,
        rows=None,
        mean_weight=1.0,
    ):
        self.images = images
        self.masks = masks
        self.classes = classes
        self.ignore_label = ignore_label
        self.sample_weight = sample_weight
        self.rows = np.arange(len(images)) if rows is None else rows
        self.mean_weight = mean_weight

    def subset(self, chosen: np.ndarray) -> "SegmentationDataset":
        """Make the data set of some of the rows, by their places or a boolean for each."""
        subset = copy.copy(self)
        subset.rows = self.rows[chosen]
        return subset

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
        """Images of the dtype given `(b, C, H, W)`, and their target and weights."""
        rows = self.rows[index]
        weight = None
        if self.sample_weight is not None:
            scaled = self.sample_weight[rows] / self.mean_weight
            weight = torch.from_numpy(scaled.astype(np.float32))
        target = encode_masks(self.masks[rows], self.classes, self.ignore_label)
        if weight is not None and weight.ndim == 3:
            # Labels that do not count must not tell their neighbours how far a border is.
            target[weight == 0] = IGNORE_INDEX
        return channels_first(self.images[rows]), (target, weight)


class Batches:
    """Iterate over a data set in batches of nearly equal size, sliced in one step each.

    Parameters
    ----------
    dataset : SegmentationDataset
        What is sliced.
    batch_size : int
        Largest number of images in a batch; all batches of an epoch differ by at most one, so
        that no ragged one is left over at the end.
    rng : numpy.random.Generator or None, default=None
        Shuffles anew for each epoch; by default the order is kept.
    is_over : callable, default=None
        Asked before each batch but an epoch's first; true ends the epoch early.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        batch_size: int,
        rng: np.random.Generator | None = None,
        is_over: Callable[[], bool] | None = None,
    ):
        self.dataset = dataset
        self.batch_size = batch_size
        self.rng = rng
        self.is_over = is_over

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, tuple[Tensor, Tensor | None]]]:
        order = np.arange(len(self.dataset))
        if self.rng is not None:
            self.rng.shuffle(order)
        for n_done, rows in enumerate(np.array_split(order, len(self))):
            if n_done and self.is_over is not None and self.is_over():
                return
            yield self.dataset[rows]
