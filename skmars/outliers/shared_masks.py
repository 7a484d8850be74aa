"""Masks that several images share, and images that several masks share.

Both are found by hashing: each mask and each image is read once.
"""

import hashlib

import numpy as np
from scipy.stats import binom

from skmars._validation import labelled_pixels

__all__ = [
    "count_corners",
    "find_copies",
    "find_shared_masks",
    "fraction_differing",
    "group_equal",
]

# Chance of calling any group of a data set an outlier that shares its mask by accident.
_SIGNIFICANCE = 1e-3
# Of two images one may have the mask rightly, and taking both would cost a good one for a bad one.
_FEWEST_SHARING = 3
_LOWEST_LOG = -300.0


def find_shared_masks(
    X: np.ndarray, y: np.ndarray, *, ignore_label: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find groups of different images that share one mask more often than chance would.

    The chance that an independent mask agrees with a given one is estimated from above: a mask
    with one straight boundary has as many places for it as the shorter side has gaps between
    pixels, and at each corner of its boundaries the boundary might at least as well have gone on
    straight, which halves the chance. A constant mask has no boundary and is passed over. The
    number of other images with the mask is then binomial, and a group is beyond chance if that
    many have a probability below 0.001 over all images. A pair never is: one of the two may have
    the mask rightly.

    Parameters
    ----------
    X : ndarray of shape (n, H, W) or (n, H, W, C)
        Images. Copies of one image count once: they share their mask rightly.
    y : ndarray of shape (n, H, W)
        Masks.
    ignore_label : int or None, default=None
        Label of pixels without one: where they begin is no boundary.

    Returns
    -------
    n_sharing : ndarray of shape (n,) of int
        Different images with the mask of this one, itself included; 1 for constant masks.
    log_chance : ndarray of shape (n,)
        Decimal logarithm of the expected number of masks of a data set that so many images share
        by chance, at most 0 and at least -300.
    is_beyond_chance : ndarray of shape (n,) of bool
    """
    n = len(y)
    n_sharing = np.ones(n, dtype=int)
    log_chance = np.zeros(n)
    for rows in group_equal(y):
        mask = y[rows[0]]
        labelled = mask[labelled_pixels(mask, ignore_label)]
        if len(rows) == 1 or len(labelled) == 0 or (labelled == labelled[0]).all():
            continue
        n_different = len(group_equal(X[rows]))
        n_sharing[rows] = n_different
        if n_different >= _FEWEST_SHARING:
            chance = _agreement_chance(mask, ignore_label)
            log_tail = binom.logsf(n_different - 2, n - 1, chance) + np.log(n)
            log_chance[rows] = np.clip(log_tail / np.log(10), _LOWEST_LOG, 0)
    return n_sharing, log_chance, log_chance < np.log10(_SIGNIFICANCE)


def find_copies(
    X: np.ndarray,
    y: np.ndarray,
    wanted: np.ndarray,
    *,
    tolerance: float,
    ignore_label: int | None = None,
) -> list[np.ndarray]:
    """Find identical images whose masks contradict each other.

    Parameters
    ----------
    X : ndarray of shape (n, H, W) or (n, H, W, C)
        Images. Constant ones are passed over: they show nothing that a mask could contradict.
    y : ndarray of shape (n, H, W)
        Masks.
    wanted : bool array of shape (n,)
        Images to look at; the others are passed over.
    tolerance : float
        Fraction of the pixels on which masks of one image may differ.
    ignore_label : int or None, default=None
        Label of pixels without one, which contradict nothing.

    Returns
    -------
    groups : list of ndarray of int
        Rows of each image that has copies, if two of their masks differ by more.
    """
    groups = []
    for same in group_equal(X):
        rows = same[wanted[same]]
        if len(rows) < 2 or np.ptp(X[rows[0]].astype(np.float64)) == 0:
            continue
        masks = y[rows]
        if max(fraction_differing(mask, masks, ignore_label).max() for mask in masks) > tolerance:
            groups.append(rows)
    return groups


def fraction_differing(
    mask: np.ndarray, others: np.ndarray, ignore_label: int | None
) -> np.ndarray:
    """Fraction of the pixels on which a mask and each of others `(n, H, W)` have two labels."""
    differs = mask != others
    if ignore_label is not None:
        differs &= (mask != ignore_label) & (others != ignore_label)
    return differs.mean(axis=(1, 2))


def group_equal(values: np.ndarray) -> list[np.ndarray]:
    """Rows of equal arrays, in the order of their first."""
    groups: dict[bytes, list[int]] = {}
    for row, value in enumerate(values):
        # Adding 0 turns the negative zeros of floats into positive ones.
        data = value + 0 if value.dtype.kind == "f" else value
        groups.setdefault(hashlib.blake2b(data.tobytes(), digest_size=16).digest(), []).append(row)
    return [np.array(rows) for rows in groups.values()]


def count_corners(mask: np.ndarray, ignore_label: int | None = None) -> int:
    """Count the places within a mask where boundaries between labels turn or meet.

    At a corner of four pixels nothing turns if the two rows, or the two columns, are alike.
    Those with a pixel of the ignored label are not counted.

    Examples
    --------
    >>> import numpy as np
    >>> from skmars.outliers.shared_masks import count_corners
    >>> mask = np.zeros((6, 6), dtype=int)
    >>> mask[2:4, 1:4] = 1
    >>> count_corners(mask)
    4
    """
    across = mask[:, 1:] != mask[:, :-1]
    along = mask[1:] != mask[:-1]
    rows_alike = ~(along[:, 1:] | along[:, :-1])
    columns_alike = ~(across[1:] | across[:-1])
    turns = ~(rows_alike | columns_alike)
    if ignore_label is not None:
        unknown = mask == ignore_label
        turns &= ~(unknown[1:, 1:] | unknown[1:, :-1] | unknown[:-1, 1:] | unknown[:-1, :-1])
    return int(np.count_nonzero(turns))


def _agreement_chance(mask: np.ndarray, ignore_label: int | None) -> float:
    """Upper estimate of the chance that an independent mask is the same as one not constant."""
    sides = [side - 1 for side in mask.shape if side > 1]
    return max(0.5 ** count_corners(mask, ignore_label) / max(min(sides), 1), 1e-300)
