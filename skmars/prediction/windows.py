"""Sliding windows: where they lie, what each pixel takes from them, and how they are joined."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Block",
    "Images",
    "Span",
    "Windows",
    "blend",
    "check_window",
    "cover",
    "equal_batches",
]

Job = TypeVar("Job")

# A batch holds no more pixels than this, unless one window does: larger ones only cost memory.
PIXELS_AT_ONCE = 2**18

# Standard deviations of the Gaussian from one end of a flank to the other.
FLANK = 3.0


class Images(Protocol):
    """What an image has to be here: an array, or anything else that slices to one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, C)."""

    @property
    def dtype(self) -> np.dtype:
        """Of the pixels."""

    def __getitem__(self, region: tuple[slice, slice]) -> np.ndarray:
        """Pixels of a region."""


class Span(NamedTuple):
    """Extent of a window along one axis."""

    start: int
    stop: int
    weights: np.ndarray
    """Fraction of the window in each place of its extent; 0 on the halo at either end."""

    @property
    def kept(self) -> slice:
        """Places whose weight is not 0, counted from the beginning of the image."""
        places = np.flatnonzero(self.weights)
        return slice(self.start + int(places[0]), self.start + int(places[-1]) + 1)


def check_window(window, overlap, grid: int) -> None:
    """Check the size of windows and their overlap.

    Parameters
    ----------
    window : pair of int or None
        Height and width.
    overlap : float
        Fraction of both that neighbours have in common.
    grid : int
        Pixels to a place of the net's coarsest level.

    Raises
    ------
    ValueError
        If a side is shorter than `grid`, or the overlap is not in [0, 1).
    """
    if window is not None and (
        not isinstance(window, tuple | list)
        or len(window) != 2
        or not all(isinstance(side, Integral) and int(side) >= grid for side in window)
    ):
        raise ValueError(
            "window must be None or a pair of integers (height, width), each at least "
            f"2**depth = {grid}; got {window!r}"
        )
    if not isinstance(overlap, Real) or not 0 <= float(overlap) < 1:
        raise ValueError(f"overlap must be a number in [0, 1), got {overlap!r}")


def cover(length: int, side: int, overlap: float, grid: int = 1) -> list[Span]:
    """Cover an axis with overlapping windows and share each place out among them.

    Windows begin at multiples of `grid`, where the pooling of the net begins in the whole image
    as well, and lie about evenly. Of what two neighbours have in common, the outer third of each
    is context only, its halo; on the third in between their weights fall off like Gaussians. At
    the ends of the axis, where the whole image ends too, they do not.

    Parameters
    ----------
    length : int
        Of the axis, at least 1.
    side : int
        Of a window, at least `grid`; the last window may be shorter by less than `grid`.
    overlap : float
        Least fraction of a window that it has in common with the next, in [0, 1). Windows move by
        at least `grid` even if less of them remains.
    grid : int, default=1
        Windows begin at its multiples.

    Returns
    -------
    spans : list of Span
        From the first to the last; in each place the weights add up to 1.

    Examples
    --------
    >>> from skmars.prediction.windows import cover
    >>> [(span.start, span.stop, span.kept) for span in cover(24, 16, 0.5, grid=4)]
    [(0, 16, slice(0, 14, None)), (8, 24, slice(10, 24, None))]
    """
    if length <= side:
        return [Span(0, length, np.ones(length, np.float32))]
    # Rounding must not make a step of 92 out of 91.999.
    step = max(math.floor(side * (1 - overlap) / grid + 1e-9), 1)
    last = math.ceil((length - side) / grid)
    n = math.ceil(last / step) + 1
    starts = [grid * (last * i // (n - 1)) for i in range(n)]
    stops = [start + side for start in starts[:-1]] + [length]
    weights = [np.ones(stop - start) for start, stop in zip(starts, stops, strict=True)]
    for i, j in itertools.pairwise(range(n)):
        shared = stops[i] - starts[j]
        halo = shared // 3
        flank = shared - 2 * halo
        places = np.linspace(0.5, flank - 0.5, flank) / max(flank, 1)
        falling = np.append(np.exp(-0.5 * (FLANK * places) ** 2), np.zeros(halo))
        weights[i][len(weights[i]) - len(falling) :] *= falling
        weights[j][: len(falling)] *= falling[::-1]
    total = np.zeros(length)
    for start, stop, weight in zip(starts, stops, weights, strict=True):
        total[start:stop] += weight
    return [
        Span(start, stop, (weight / total[start:stop]).astype(np.float32))
        for start, stop, weight in zip(starts, stops, weights, strict=True)
    ]


class Windows:
    """The windows over one image: a grid of rows and columns.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the image.
    window : pair of int
        Height and width of a window.
    overlap : float
        Least fraction of the sides that neighbours have in common.
    grid : int
        Windows begin at its multiples.
    """

    def __init__(self, shape: tuple[int, ...], window: Sequence[int], overlap: float, grid: int):
        self.rows = cover(shape[0], window[0], overlap, grid)
        self.columns = cover(shape[1], window[1], overlap, grid)

    def strip(self, i: int) -> slice:
        """Rows of the image that are complete once the windows of row i are, and not before."""
        return _complete(self.rows, i)

    def strip_columns(self, j: int) -> slice:
        """Columns that are complete once window j of a row is, and not before."""
        return _complete(self.columns, j)

    def first_row(self, i: int) -> int:
        """First row of windows that takes part in strip i."""
        begin = self.strip(i).start
        return next(k for k, span in enumerate(self.rows) if span.kept.stop > begin)


def _complete(spans: list[Span], i: int) -> slice:
    is_last = i + 1 == len(spans)
    return slice(spans[i].kept.start, spans[i].stop if is_last else spans[i + 1].kept.start)


class Block(NamedTuple):
    """A part of an image that is complete."""

    image: int
    """Its number among the images."""
    rows: slice
    columns: slice
    probabilities: Tensor
    """Of shape (n_classes, height, width)."""


class _Joiner:
    """Adds up the windows of one image, which come row by row and from left to right.

    Only what later windows still add to is kept: the right flank of the window before, and the
    lower flank of the row of windows before.
    """

    def __init__(self, windows: Windows):
        self.windows = windows
        self.beside = self.above = self.below = torch.empty(0)

    def add(self, i: int, j: int, p: Tensor) -> tuple[slice, slice, Tensor]:
        """Take probabilities of a window in; give the rectangle out that is complete now."""
        row, column = self.windows.rows[i], self.windows.columns[j]
        tall, wide = row.kept, column.kept
        done, done_wide = self.windows.strip(i), self.windows.strip_columns(j)
        if j == 0:
            self._begin_row(i, p)
        inside = slice(tall.start - row.start, tall.stop - row.start)
        across = slice(wide.start - column.start, wide.stop - column.start)
        weight = _to(p, row.weights[inside])[:, None] * _to(p, column.weights[across])
        piece = p[:, inside, across] * weight
        # What is kept from the left and from above begins where this piece does.
        piece[..., : self.beside.shape[-1]] += self.beside
        width = done_wide.stop - done_wide.start
        # Copied, for a view would keep the whole piece alive.
        self.beside = piece[..., width:].clone()
        piece = piece[..., :width]
        piece[:, : self.above.shape[1]] += self.above[..., done_wide]
        height = done.stop - done.start
        self.below[..., done_wide] = piece[:, height:]
        return done, done_wide, piece[:, :height]

    def _begin_row(self, i: int, p: Tensor) -> None:
        n_left = self.windows.rows[i].kept.stop - self.windows.strip(i).stop
        width = self.windows.columns[-1].stop
        # At the first row of windows, which need not be that of the image, nothing is above.
        self.above = self.below if self.below.ndim == 3 else p.new_zeros(len(p), 0, width)
        self.below = p.new_zeros(len(p), n_left, width)
        self.beside = p.new_zeros(len(p), 1, 0)


def _to(like: Tensor, weights: np.ndarray) -> Tensor:
    return torch.from_numpy(weights).to(like.device)


def blend(
    images: Sequence[Images],
    windows: Sequence[Windows],
    predict: Callable[[np.ndarray], Tensor],
    batch_size: int,
    *,
    first_row: int = 0,
) -> Iterator[Block]:
    """Predict images window by window and join the windows to blocks.

    Rows of windows follow each other from top to bottom, in as many images at once as it takes
    to fill a batch. No window is held longer than its batch, and of the sums only those on the
    flanks.

    Parameters
    ----------
    images : sequence of Images
        Of one number of channels; sizes and dtypes may differ.
    windows : sequence of Windows
        Those of each image.
    predict : callable
        Maps windows `(n, h, w)` or `(n, h, w, C)` to probabilities `(n, n_classes, h, w)`.
    batch_size : int
        Windows at once.
    first_row : int, default=0
        Row of windows to begin with. Strips that `Windows.first_row` gives an earlier one for
        are not whole then.

    Yields
    ------
    block : Block
        Each pixel is in one; those of an image come row by row and from left to right.
    """
    for group in _groups(windows, batch_size):
        joiners = {k: _Joiner(windows[k]) for k in group}
        for i in range(first_row, max(len(windows[k].rows) for k in group)):
            alive = [k for k in group if i < len(windows[k].rows)]
            for jobs in _batches(images, windows, alive, i, batch_size):
                outputs = predict(np.stack([_read(images[k], windows[k], i, j) for k, j in jobs]))
                for (k, j), output in zip(jobs, outputs, strict=True):
                    yield Block(k, *joiners[k].add(i, j, output))


def equal_batches(jobs: Sequence[Job], batch_size: int, n_pixels: int) -> Iterator[list[Job]]:
    """Cut a list into batches of nearly equal length, the shorter the larger the images are.

    Parameters
    ----------
    jobs : sequence
        One for each image or window.
    batch_size : int
        Length of a batch at most.
    n_pixels : int
        Of each image or window.
    """
    at_once = max(1, min(batch_size, PIXELS_AT_ONCE // n_pixels))
    for part in np.array_split(np.arange(len(jobs)), math.ceil(len(jobs) / at_once)):
        yield [jobs[number] for number in part]


def _read(image: Images, windows: Windows, i: int, j: int) -> np.ndarray:
    row, column = windows.rows[i], windows.columns[j]
    return image[row.start : row.stop, column.start : column.stop]


def _groups(windows: Sequence[Windows], batch_size: int) -> Iterator[list[int]]:
    """Images that are predicted together: enough that one row of windows of each fills a batch."""
    group: list[int] = []
    n_windows = 0
    for k, grid in enumerate(windows):
        group.append(k)
        n_windows += len(grid.columns)
        if n_windows >= batch_size:
            yield group
            group, n_windows = [], 0
    if group:
        yield group


def _batches(
    images: Sequence[Images],
    windows: Sequence[Windows],
    alive: Sequence[int],
    i: int,
    batch_size: int,
) -> Iterator[list[tuple[int, int]]]:
    """Windows of row i, as pairs of image and column, in batches of one size and dtype each."""
    alike: dict[tuple, list[tuple[int, int]]] = {}
    for k in alive:
        row = windows[k].rows[i]
        for j, column in enumerate(windows[k].columns):
            size = (column.stop - column.start, row.stop - row.start)
            kind = (images[k].shape[2:], np.dtype(images[k].dtype).str)
            alike.setdefault((*size, *kind), []).append((k, j))
    # The last window of a row may be narrower than the others, and is joined after them.
    for (width, height, *_), jobs in sorted(alike.items(), key=lambda item: -item[0][0]):
        yield from equal_batches(jobs, batch_size, width * height)
