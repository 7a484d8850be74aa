"""Panoramas and their coloured annotation, downscaled and cut to tiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from PIL.Image import Image

_N_LABELS = 5
_BACKGROUND = 0


@dataclass(frozen=True)
class TileGrid:
    """How a panorama is cut.

    Parameters
    ----------
    tile : tuple of int
        Height and width of a tile, in downscaled pixels.
    scale : int
        Pixels of the panorama, in each direction, that become one of the tile.
    overlap : float in [0, 1)
        Fraction of a tile's height and width that the next tile shows again.
    max_void : float in [0, 1]
        Tiles of which a greater share is void are left out.
    """

    tile: tuple[int, int]
    scale: int
    overlap: float
    max_void: float

    def __post_init__(self) -> None:
        pair = isinstance(self.tile, Sequence) and len(self.tile) == 2
        if not pair or not all(_is_count(length) for length in self.tile):
            raise ValueError(f"tile must be (height, width), ints >= 1, got {self.tile!r}")
        if not _is_count(self.scale):
            raise ValueError(f"scale must be an int >= 1, got {self.scale!r}")
        if not _is_number(self.overlap) or not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must be a number in [0, 1), got {self.overlap!r}")
        if not _is_number(self.max_void) or not 0 <= self.max_void <= 1:
            raise ValueError(f"max_void must be a number in [0, 1], got {self.max_void!r}")

    @property
    def stride(self) -> tuple[int, int]:
        """Rows and columns from one tile to the next, at least one."""
        height, width = (max(1, round(length * (1 - self.overlap))) for length in self.tile)
        return height, width

    def n_positions(self, height: int, width: int) -> int:
        """Count the tiles of a panorama of `height` x `width` pixels, void ones included."""
        counts = [
            max(0, (length // self.scale - size) // step + 1)
            for length, size, step in zip((height, width), self.tile, self.stride, strict=True)
        ]
        return counts[0] * counts[1]

    def windows(self, values: np.ndarray) -> np.ndarray:
        """View a downscaled array of shape (h, w) as (rows, columns, tile height, tile width).

        The grid begins at the upper left; what is left at the right and at the bottom, less than
        a tile, belongs to none.
        """
        if any(length < size for length, size in zip(values.shape, self.tile, strict=True)):
            return np.empty((0, 0, *self.tile), values.dtype)
        rows, columns = self.stride
        return sliding_window_view(values, self.tile)[::rows, ::columns]


def cut_tiles(
    image: "Image", annotation: "Image", grid: TileGrid, colours: Mapping[tuple[int, ...], int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut a panorama to tiles.

    Parameters
    ----------
    image : PIL image
        The panorama, grey or in colour.
    annotation : PIL image of the same size
        Its pixels' classes as colours.
    grid : TileGrid
        How to cut.
    colours : mapping of (red, green, blue) to int
        Label of each colour, 0 to 4, and -1 for void. Void, and a colour that is not listed,
        become background (0); only the former counts for `grid.max_void`.

    Returns
    -------
    images : ndarray of shape (n, tile height, tile width)
        Grey tiles, uint8, row by row from the upper left.
    labels : ndarray of shape (n, tile height, tile width)
        Their labels, uint8.
    positions : ndarray of shape (n, 2)
        Row and column of each tile's upper left pixel in the downscaled panorama.

    Raises
    ------
    ValueError
        If image and annotation differ in size.
    """
    if image.size != annotation.size:
        raise ValueError(
            "panorama and annotation must be of the same size, got (width, height) "
            f"{image.size} and {annotation.size}"
        )
    labels, void = downscale_labels(np.asarray(annotation.convert("RGB")), grid.scale, colours)
    void_share = grid.windows(void).mean(axis=(2, 3)) / grid.scale**2
    keep = void_share <= grid.max_void
    grey = downscale_image(image, grid.scale)
    positions = np.argwhere(keep) * grid.stride
    return grid.windows(grey)[keep], grid.windows(labels)[keep], positions


def downscale_image(image: "Image", scale: int) -> np.ndarray:
    """Turn a panorama grey, then average blocks of `scale` x `scale` pixels.

    Grey is the luma of ITU-R BT.601, `0.299 R + 0.587 G + 0.114 B`, rounded. The average is
    rounded after each direction, along the rows first. Rows and columns that do not fill a block
    are cut off at the bottom and at the right.

    Parameters
    ----------
    image : PIL image
        Grey or in colour.
    scale : int
        Side of a block.

    Returns
    -------
    grey : ndarray of shape (height // scale, width // scale)
        uint8.
    """
    from PIL import Image

    width, height = image.width // scale, image.height // scale
    if not width or not height:
        return np.empty((height, width), np.uint8)
    whole = (0, 0, width * scale, height * scale)
    return np.asarray(image.convert("L").resize((width, height), Image.Resampling.BOX, box=whole))


def downscale_labels(
    annotation: np.ndarray, scale: int, colours: Mapping[tuple[int, ...], int]
) -> tuple[np.ndarray, np.ndarray]:
    """Take the most frequent label of each block of `scale` x `scale` pixels.

    Colours that stand for the same label are counted together; among equally frequent labels the
    lowest is taken.

    Parameters
    ----------
    annotation : ndarray of shape (height, width, 3)
        RGB, uint8.
    scale : int
        Side of a block.
    colours : mapping of (red, green, blue) to int
        As for `cut_tiles`.

    Returns
    -------
    labels : ndarray of shape (height // scale, width // scale)
        uint8.
    void : ndarray of shape (height // scale, width // scale)
        Void pixels in each block, float32.
    """
    height, width = (length // scale * scale for length in annotation.shape[:2])
    red, green, blue = (annotation[:height, :width, i].astype(np.int32) for i in range(3))
    code = red << 16 | green << 8 | blue
    fine = np.full(code.shape, _BACKGROUND, np.int8)
    for (r, g, b), label in colours.items():
        fine[code == (r << 16 | g << 8 | b)] = label
    void = _block_counts(fine < 0, scale)
    most = _block_counts(fine <= _BACKGROUND, scale)
    labels = np.full(most.shape, _BACKGROUND, np.uint8)
    for label in range(1, _N_LABELS):
        count = _block_counts(fine == label, scale)
        labels[count > most] = label
        np.maximum(most, count, out=most)
    return labels, void.astype(np.float32)


def _block_counts(mask: np.ndarray, scale: int) -> np.ndarray:
    """Count the true pixels of each block of `scale` x `scale`."""
    # Sums of slices: numpy is slow at reductions along short axes.
    counts = mask.astype(np.int32)
    counts = np.sum([counts[i::scale] for i in range(scale)], axis=0)
    return np.sum([counts[:, i::scale] for i in range(scale)], axis=0)


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= 1


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
