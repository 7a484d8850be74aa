"""Splits of images that keep groups together and spread rare classes."""

import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_consistent_length, indexable

from skmars import _validation as check
from skmars._balancing import share_out

__all__ = ["SegmentationKFold", "class_counts", "holdout_split", "train_val_test_split"]

N_CANDIDATES = 100


class SegmentationKFold(BaseCrossValidator):
    """K folds of images, each with its share of every class.

    For `cv=` of scikit-learn's searches and cross-validation. What is balanced are the pixels of
    each class, a rare class as much as a frequent one, and the number of images. Groups are dealt
    out rarest class first, in the manner of iterative stratification [1]_, and then exchanged
    between folds while that brings the shares nearer to each other.

    Without `groups`, the sizes of any two folds differ by at most one image. With them, sizes and
    shares are as equal as the search finds. That a class is in every fold, if it is in enough
    groups, comes before equal shares.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.
    shuffle : bool, default=True
        Whether to deal groups out in a random order, the best of several if there are few groups.
        Without, only the order of the images decides between groups that are alike.
    random_state : int, RandomState instance or None, default=None
        Seeds the order. Pass an int for the same folds across calls; successive halving needs
        one. Where there are few groups, several seeds may lead to the same folds.
    ignore_label : int or None, default=None
        Pixels with this label are not counted.

    See Also
    --------
    sklearn.model_selection.StratifiedGroupKFold : The same for one label for each sample.

    References
    ----------
    .. [1] Sechidis, K., Tsoumakas, G., Vlahavas, I. (2011). On the stratification of multi-label
       data. ECML PKDD, 145-158.

    Examples
    --------
    >>> import numpy as np
    >>> from skmars.model_selection import SegmentationKFold
    >>> X = np.zeros((6, 4, 4))
    >>> y = np.zeros((6, 4, 4), dtype=int)
    >>> y[:2, 0] = 1
    >>> scenes = ["a", "b", "b", "c", "c", "a"]
    >>> folds = SegmentationKFold(2, random_state=0)
    >>> for train, test in folds.split(X, y, groups=scenes):
    ...     print(sorted({scenes[i] for i in test}), "have class 1:", 1 in y[test])
    ['a', 'c'] have class 1: True
    ['b'] have class 1: True
    """

    # As scikit-learn's group splitters, this one takes groups unasked if metadata is routed.
    __metadata_request__split = {"groups": True}

    def __init__(self, n_splits=5, *, shuffle=True, random_state=None, ignore_label=None):
        if not _is_integer(n_splits) or n_splits < 2:
            raise ValueError(f"n_splits must be an integer of at least 2, got {n_splits!r}")
        if not isinstance(shuffle, bool | np.bool_):
            raise TypeError(f"shuffle must be True or False, got {shuffle!r}")
        if not shuffle and random_state is not None:
            raise ValueError("random_state has no effect with shuffle=False; leave it None")
        self.n_splits = n_splits
        self.shuffle = shuffle
        self.random_state = random_state
        self.ignore_label = ignore_label

    def split(self, X, y, groups=None) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Give the indices of the images of each split.

        Parameters
        ----------
        X : array-like of length n
            Images. Only their number is used.
        y : array-like of shape (n, H, W), or list of (H, W) arrays
            Masks of integer labels.
        groups : array-like of shape (n,), default=None
            Images of one group, such as tiles of one scene, are in one fold; by default each
            image is a group of its own.

        Yields
        ------
        train, test : ndarray of int
            Sorted indices. Each image is in `test` once.

        Raises
        ------
        TypeError, ValueError
            If masks or groups are not as described, or there are fewer groups than folds.
        """
        yield from super().split(X, y, groups)

    def get_n_splits(self, X=None, y=None, groups=None) -> int:
        """Number of folds; all arguments are ignored."""
        return self.n_splits

    def _iter_test_masks(self, X=None, y=None, groups=None) -> Iterator[NDArray[np.bool_]]:
        group_of, amounts = _tally(y, groups, self.ignore_label)
        if len(amounts) < self.n_splits:
            raise ValueError(
                f"cannot make n_splits={self.n_splits} folds of {len(group_of)} images in "
                f"{len(amounts)} groups: at least as many groups as folds are needed"
            )
        sizes = np.full(self.n_splits, len(group_of) // self.n_splits)
        sizes[: len(group_of) % self.n_splits] += 1
        rng = check.random_generator(self.random_state if self.shuffle else 0)
        fold_of = share_out(amounts, sizes, rng, shuffle=bool(self.shuffle))[group_of]
        for fold in range(self.n_splits):
            yield fold_of == fold


def train_val_test_split(
    X,
    y,
    *arrays,
    val_size=0.1,
    test_size=0.1,
    groups=None,
    ignore_label=None,
    random_state=None,
) -> list[Any]:
    """Split images and masks into training, validation and test set.

    As :func:`sklearn.model_selection.train_test_split`, but in three, and each part has its share
    of the pixels of every class, balanced as by `SegmentationKFold`. A class that is in too few
    groups for three parts is in the training set first, then in the test set.

    Parameters
    ----------
    X : array-like of length n
        Images.
    y : array-like of shape (n, H, W), or list of (H, W) arrays
        Masks of integer labels.
    *arrays : array-likes of length n
        What else is to be split, such as weights or the groups.
    val_size, test_size : float or int, default=0.1
        Fraction of the images, in (0, 1), or their number, at least 1. What they leave is for
        training. With `groups`, as near to it as the balance of the classes allows.
    groups : array-like of shape (n,), default=None
        Images of one group, such as tiles of one scene, are in one part; by default each image
        is a group of its own.
    ignore_label : int or None, default=None
        Pixels with this label are not counted.
    random_state : int, RandomState instance or None, default=None
        Seeds the split. Pass an int for the same one across calls.

    Returns
    -------
    parts : list of length 3 * (2 + number of arrays)
        `X_train, X_val, X_test, y_train, y_val, y_test`, then the same of each further array.
        Images keep their order within a part. Lists and tuples give lists, memory maps arrays in
        memory.

    Raises
    ------
    TypeError, ValueError
        If lengths differ, masks, groups or sizes are not as described, or there are fewer than
        three groups.

    Examples
    --------
    >>> from skmars.datasets import make_terrain
    >>> from skmars.model_selection import train_val_test_split
    >>> X, y = make_terrain(20, random_state=0)
    >>> parts = train_val_test_split(X, y, random_state=0)
    >>> X_train, X_val, X_test, y_train, y_val, y_test = parts
    >>> len(X_train), len(X_val), len(X_test)
    (16, 2, 2)

    Groups that are needed later are split as well:

    >>> scenes = [i // 2 for i in range(20)]
    >>> *_, scenes_train, scenes_val, scenes_test = train_val_test_split(
    ...     X, y, scenes, groups=scenes, random_state=0
    ... )
    >>> set(scenes_train) & set(scenes_test)
    set()
    """
    check_consistent_length(X, y, *arrays)
    group_of, amounts = _tally(y, groups, ignore_label)
    n = len(group_of)
    if len(amounts) < 3:
        raise ValueError(
            f"cannot make three parts of {n} images in {len(amounts)} groups: "
            "at least 3 groups are needed"
        )
    n_val, n_test = _part_size("val_size", val_size, n), _part_size("test_size", test_size, n)
    if n_val + n_test >= n:
        raise ValueError(
            f"val_size={val_size!r} and test_size={test_size!r} leave none of {n} images "
            "for training"
        )
    sizes = np.array([n - n_val - n_test, n_val, n_test])
    # Each number is above the sum of those that it comes before.
    priority = np.array([4.0, 1.0, 2.0])
    rng = check.random_generator(random_state)
    part_of = share_out(amounts, sizes, rng, priority=priority)[group_of]
    parts = [np.flatnonzero(part_of == part) for part in range(3)]
    return [_take(array, rows) for array in indexable(X, y, *arrays) for rows in parts]


def class_counts(
    y: np.ndarray, classes: np.ndarray, sample_weight: np.ndarray | None = None
) -> np.ndarray:
    """Count the pixels of each class in each mask.

    Parameters
    ----------
    y : ndarray of shape (n, H, W), or list of (H, W) arrays
        Labels; those that are not in `classes` are not counted.
    classes : ndarray of shape (n_classes,)
        Sorted labels.
    sample_weight : ndarray of shape (n,) or (n, H, W) or None, default=None
        Pixels whose own weight is 0 are not counted; weights of images change nothing.

    Returns
    -------
    counts : ndarray of shape (n, n_classes) of int64
    """
    classes = np.asarray(classes)
    counts = np.zeros((len(y), len(classes)), dtype=np.int64)
    is_byte = (classes >= 0) & (classes < 256)
    places = classes[is_byte].astype(np.intp)
    for number, (mask, row) in enumerate(zip(y, counts, strict=True)):
        if sample_weight is not None and sample_weight.ndim == 3:
            mask = mask[sample_weight[number] > 0]
        if mask.dtype == np.uint8:
            row[is_byte] = np.bincount(mask.ravel(), minlength=256)[places]
        else:
            row[:] = [np.count_nonzero(mask == label) for label in classes]
    return counts


def holdout_split(
    counts: np.ndarray,
    fraction: float,
    *,
    groups: np.ndarray | None = None,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Split images in two so that the smaller part has its share of every class.

    Of a hundred random splits along the groups, the one is taken whose held-out part comes
    nearest to `fraction` of the images and of the pixels of each class.

    Parameters
    ----------
    counts : ndarray of shape (n, n_classes)
        Pixels of each class in each image.
    fraction : float
        Fraction of the images to hold out, in (0, 1).
    groups : array of shape (n,) or None
        Images of one group stay in one part; by default each image is a group of its own.
    rng : numpy.random.Generator
        Draws the candidates.

    Returns
    -------
    kept, held_out : ndarray of int
        Sorted indices; neither is empty.

    Raises
    ------
    ValueError
        If there are fewer than two groups.

    Examples
    --------
    >>> import numpy as np
    >>> from skmars.model_selection import holdout_split
    >>> counts = np.ones((6, 2))
    >>> rng = np.random.default_rng(0)
    >>> kept, held_out = holdout_split(counts, 0.3, groups=[0, 0, 1, 1, 2, 2], rng=rng)
    >>> len(kept), len(held_out)
    (4, 2)
    """
    n = len(counts)
    group_of = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_groups = int(group_of.max()) + 1
    if n_groups < 2:
        raise ValueError(
            f"cannot hold out {fraction:.0%} of {n} images in {n_groups} group: "
            "at least 2 groups with pixels that count are needed"
        )
    # What has to be shared out: the images, and the pixels of each class that there is.
    amounts = np.column_stack([np.ones(n), counts])
    amounts = amounts[:, amounts.sum(axis=0) > 0]
    shares = np.zeros((n_groups, amounts.shape[1]))
    np.add.at(shares, group_of, amounts / amounts.sum(axis=0))

    best, best_cost = np.empty(0, dtype=int), np.inf
    for _ in range(N_CANDIDATES):
        order = rng.permutation(n_groups)
        cumulative = np.cumsum(shares[order], axis=0)[:-1]
        cut = np.argmin(np.abs(cumulative[:, 0] - fraction))
        held_out = cumulative[cut]
        # A class that is not left to learn from is worse than any imbalance.
        cost = np.abs(held_out - fraction).sum() + 100 * np.count_nonzero(held_out > 1 - 1e-9)
        if cost < best_cost:
            best, best_cost = order[: cut + 1], cost
    is_held_out = np.isin(group_of, best)
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def _tally(y, groups, ignore_label) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Group of each image; and the images and the pixels of each class in each group."""
    if ignore_label is not None and not _is_integer(ignore_label):
        raise TypeError(f"ignore_label must be None or an integer, got {ignore_label!r}")
    masks = _check_masks(y)
    labels = check.unique_labels(masks)
    counts = class_counts(masks, labels[labels != ignore_label])
    n = len(masks)
    groups = check.check_groups(groups, n)
    group_of = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    amounts = np.zeros((int(group_of.max()) + 1, 1 + counts.shape[1]), dtype=np.int64)
    np.add.at(amounts, group_of, np.column_stack([np.ones(n, dtype=np.int64), counts]))
    return group_of, amounts


def _check_masks(y) -> Any:
    """Masks as an array, or as a list of arrays if they come so."""
    if y is None:
        raise ValueError("y must be masks of shape (n, H, W), got None: classes are balanced")
    if check.is_image_list(y):
        masks = [np.asanyarray(mask) for mask in y]
        for mask in masks:
            if mask.ndim != 2:
                raise ValueError(f"y must hold masks of shape (H, W), got {mask.shape}")
        return [check.check_masks(mask[None])[0] for mask in masks]
    y = np.asanyarray(y)
    if y.ndim != 3 or len(y) == 0:
        raise ValueError(f"y must be masks of shape (n, H, W), got shape {y.shape}")
    return check.check_masks(y)


def _is_integer(value) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _part_size(name: str, size, n: int) -> int:
    """Number of images, from their number or their share."""
    if _is_integer(size) and size >= 1:
        return int(size)
    if isinstance(size, float | np.floating) and 0 < size < 1:
        return max(1, round(size * n))
    raise ValueError(f"{name} must be a share in (0, 1) or a number of at least 1, got {size!r}")


def _take(array, rows: NDArray[np.intp]):
    if isinstance(array, list | tuple):
        return [array[row] for row in rows]
    return array.iloc[rows] if hasattr(array, "iloc") else array[rows]
