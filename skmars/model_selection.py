"""Splits of images that keep groups together and spread rare classes."""

import numpy as np

__all__ = ["class_counts", "holdout_split"]

N_CANDIDATES = 100


def class_counts(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Count the pixels of each class in each mask.

    Parameters
    ----------
    y : ndarray of shape (n, H, W)
        Labels; those that are not in `classes` are not counted.
    classes : ndarray of shape (n_classes,)
        Sorted labels.

    Returns
    -------
    counts : ndarray of shape (n, n_classes) of int64
    """
    counts = [np.count_nonzero(y == label, axis=(1, 2)) for label in classes]
    return np.stack(counts, axis=1)


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
        Share of the images to hold out, in (0, 1).
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
            "at least 2 groups are needed"
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
