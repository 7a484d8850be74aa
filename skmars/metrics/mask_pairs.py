"""Pairs of true and predicted masks: checked, cut into chunks and counted."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MaskPairs",
    "check_label_list",
    "count_with_others",
    "pair_masks",
    "regroup",
    "stack_masks",
]

# Pixels converted to int64 at a time; they stay in the processor's cache.
CHUNK = 2**17
# Labels this close together are looked up in a table; others are searched for.
MAX_TABLE = 1024


class MaskPairs(NamedTuple):
    """True and predicted masks, image by image, with their weights."""

    y_true: list[NDArray[Any]]
    y_pred: list[NDArray[Any]]
    sample_weight: list[NDArray[Any]] | None  # each of shape () or that of its mask

    def groups(self) -> Iterator[slice]:
        """Yield runs of images of one shape, of at most `CHUNK` pixels or of one image."""
        start = 0
        for i, mask in enumerate(self.y_true):
            first = self.y_true[start]
            too_many = i > start and (i - start + 1) * first.size > CHUNK
            if mask.shape != first.shape or too_many:
                yield slice(start, i)
                start = i
        yield slice(start, len(self.y_true))

    def chunks(self) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]]:
        """Yield true labels, predicted labels and weights of at most `CHUNK` pixels, 1-D."""
        for images in self.groups():
            columns = [stack_masks(self.y_true[images]), stack_masks(self.y_pred[images])]
            if self.sample_weight is not None:
                shape = self.y_true[images.start].shape
                weights = [np.broadcast_to(w, shape) for w in self.sample_weight[images]]
                columns.append(np.stack(weights))
            columns = [column.reshape(-1) for column in columns]
            for i in range(0, len(columns[0]), CHUNK):
                true, pred, *weight = (column[i : i + CHUNK] for column in columns)
                yield true, pred, weight[0] if weight else None


def pair_masks(y_true: Any, y_pred: Any, sample_weight: Any) -> MaskPairs:
    """Check true and predicted masks with their weights, and bring them into one form."""
    true, pred = _as_masks("y_true", y_true), _as_masks("y_pred", y_pred)
    if len(true) != len(pred):
        raise ValueError(f"y_true and y_pred differ in length: {len(true)} and {len(pred)}")
    for i, (a, b) in enumerate(zip(true, pred, strict=True)):
        if a.shape != b.shape:
            raise ValueError(f"y_true[{i}] is of shape {a.shape} but y_pred[{i}] of {b.shape}")
    if sum(mask.size for mask in true) == 0:
        raise ValueError("y_true and y_pred are empty: at least one pixel is needed")
    if sample_weight is None:
        return MaskPairs(true, pred, None)

    if any(np.ma.is_masked(weight) for weight in sample_weight):
        raise TypeError("sample_weight has masked pixels: fill them with 0 to leave them out")
    weights = [np.asarray(weight) for weight in sample_weight]
    if len(weights) != len(true):
        raise ValueError(f"sample_weight is of length {len(weights)}, y_true of {len(true)}")
    for i, (weight, mask) in enumerate(zip(weights, true, strict=True)):
        if weight.shape not in {(), mask.shape}:
            raise ValueError(
                f"sample_weight[{i}] must be a number or of shape {mask.shape}; "
                f"got shape {weight.shape}"
            )
        if not np.all((weight >= 0) & (weight < np.inf)):
            raise ValueError("sample_weight must be finite and not negative")
    return MaskPairs(true, pred, weights)


def _as_masks(name: str, masks: Any) -> list[NDArray[Any]]:
    if any(np.ma.is_masked(mask) for mask in masks):
        raise TypeError(f"{name} has masked pixels: fill them with a label, and ignore that")
    masks = [np.asarray(mask) for mask in masks]
    for mask in masks:
        if mask.ndim != 2 or mask.dtype.kind not in "buif":
            raise ValueError(
                f"{name} must be an integer array of shape (n, H, W) or a list of arrays of "
                f"shape (H, W); got an image of dtype {mask.dtype} and shape {mask.shape}"
            )
    return masks


def stack_masks(masks: list[NDArray[Any]]) -> NDArray[np.int64]:
    """Return masks of one shape as one int64 array."""
    stacked = np.stack(masks)
    with np.errstate(invalid="ignore"):
        integers = stacked.astype(np.int64, copy=False)
    may_change = stacked.dtype.kind == "f" or stacked.dtype == np.uint64
    if may_change and not np.array_equal(integers, stacked):
        raise ValueError("masks must hold integers in the range of int64; got other values")
    return integers


def check_label_list(labels: Any, ignore_label: int | None) -> NDArray[np.int64]:
    """Check that labels are different integers and none is ignored."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0 or labels.dtype.kind not in "buif":
        raise ValueError(f"labels must be a list of at least one integer; got {labels!r}")
    labels = stack_masks([labels])[0]
    if len(np.unique(labels)) < len(labels):
        raise ValueError(f"labels must not repeat; got {labels.tolist()}")
    if ignore_label is not None and ignore_label in labels:
        raise ValueError(f"labels must not hold ignore_label={ignore_label}")
    return labels


def count_with_others(
    pairs: MaskPairs, labels: Any, ignore_label: int | None
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the labels and their confusion matrix.

    A last row and column count the pixels that are or are predicted to be of no label; without
    them, an error between a class and the rest would not count.
    """
    if ignore_label is not None and ignore_label != int(ignore_label):
        raise ValueError(f"ignore_label must be None or an integer; got {ignore_label!r}")
    classes = _find_labels(pairs) if labels is None else check_label_list(labels, ignore_label)
    ignored = np.array([] if ignore_label is None else [ignore_label], dtype=np.int64)
    known = np.union1d(classes, ignored)
    seen, counts = _count_known(pairs, known)
    row = np.searchsorted(known, ignored)
    seen[row] = counts[row] = 0
    if labels is None:
        in_use = np.flatnonzero(seen[:-1].any(axis=1) | seen[:, :-1].any(axis=0))
        classes = known[np.setdiff1d(in_use, row)]
    return classes, regroup(known, counts, classes)


def regroup(found: NDArray[np.int64], counts: NDArray[Any], labels: Any) -> NDArray[Any]:
    """Return a confusion matrix of found labels and others as one of labels and others."""
    place = {label: i for i, label in enumerate(np.asarray(labels).tolist())}
    places = np.array([place.get(label, len(place)) for label in [*found.tolist(), None]])
    matrix = np.zeros((len(place) + 1, len(place) + 1), dtype=counts.dtype)
    np.add.at(matrix, (places[:, np.newaxis], places), counts)
    return matrix


def _find_labels(pairs: MaskPairs) -> NDArray[np.int64]:
    """Return the sorted labels of all masks, and perhaps some between them."""
    found: set[int] = set()
    for *masks, _ in pairs.chunks():
        for mask in masks:
            low, high = int(mask.min()), int(mask.max())
            found.update(range(low, high + 1) if high - low < 256 else np.unique(mask).tolist())
    return np.array(sorted(found), dtype=np.int64)


def _count_known(
    pairs: MaskPairs, known: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the numbers and the weights of pixels by true and predicted label.

    Row and column `len(known)` are for all other labels.
    """
    size = len(known) + 1
    seen = np.zeros(size**2, dtype=np.int64)
    weighted = np.zeros(size**2)
    for true, pred, weight in pairs.chunks():
        cells = _encode(true, known) * size + _encode(pred, known)
        seen += np.bincount(cells, minlength=size**2)
        if weight is not None:
            weighted += np.bincount(cells, weights=weight, minlength=size**2)
    counts = seen if pairs.sample_weight is None else weighted
    return seen.reshape(size, size), counts.reshape(size, size)


def _encode(values: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each value in sorted `known`, or `len(known)`."""
    low, high = int(known[0]), int(known[-1])
    if high - low < MAX_TABLE:
        table = np.full(high - low + 3, len(known))
        table[known - low + 1] = np.arange(len(known))
        return table[np.clip(values, low - 1, high + 1) - (low - 1)]
    place = np.searchsorted(known, values)
    place[known[np.minimum(place, len(known) - 1)] != values] = len(known)
    return place
