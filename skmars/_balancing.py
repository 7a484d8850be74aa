"""Share out indivisible groups of images among parts, each class in proportion.

A part is a fold of a cross-validation, or the training, validation or test set. What is shared
out are the columns of a table with one row for each group: in column 0 the number of images, in
the others the pixels of one class. Rare classes are dealt out first, as in iterative
stratification (Sechidis et al. 2011), there with labels of samples; then groups change places for
as long as that brings the parts nearer to their shares.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

__all__ = ["share_out"]

Array = NDArray[np.float64]

# A part without images, or without a class that it could have, is worse than any imbalance.
EMPTY = 1e9
MISSING = 1e6
# The search ends when shares are off by less than this on average, relative to the target, and
# no step gains less than its square: below it are the rounding errors of the penalties.
GOOD_ENOUGH = 1e-3
MAX_SEARCHES = 2000
# Groups of each of two parts that are tried for an exchange at a time.
MAX_CANDIDATES = 256
# Few groups are dealt out several times: those with most of a class first, then as they come.
N_STARTS, GROUPS_IN_ALL = 40, 4000


def share_out(
    amounts: NDArray,
    quotas: NDArray,
    rng: np.random.Generator,
    *,
    priority: NDArray | None = None,
    shuffle: bool = True,
) -> NDArray[np.intp]:
    """Choose a part for each group.

    The cost is the sum over parts and columns of the squared deviation from the part's share,
    relative to that share: a rare class counts as much as a frequent one and as the number of
    images. Before it comes the number of parts that lack a class.

    Parameters
    ----------
    amounts : ndarray of shape (n_groups, 1 + n_classes)
        Images and pixels of each class in each group.
    quotas : int ndarray of shape (n_parts,)
        Images that each part should get, at least 1; they add up to the images that there are.
        If each group is one image, the parts get exactly that many.
    rng : numpy.random.Generator
        Draws the order of groups, and candidates for exchanges.
    priority : ndarray of shape (n_parts,), default=None
        How much it matters that this part has a class, rather than another one; by default the
        same for each.
    shuffle : bool, default=True
        Whether groups are dealt out in a random order, or as they come where they are alike.

    Returns
    -------
    part : int ndarray of shape (n_groups,)
    """
    amounts = amounts[:, amounts.sum(axis=0) > 0].astype(np.float64)
    n_groups = len(amounts)
    n_starts = max(1, min(N_STARTS, GROUPS_IN_ALL // n_groups)) if shuffle else 1
    priority = np.ones(len(quotas)) if priority is None else priority
    best, best_cost = np.empty(0, dtype=np.intp), np.inf
    for start in range(n_starts):
        order = rng.permutation(n_groups) if shuffle else np.arange(n_groups)
        parts = _Parts(amounts[order], quotas, priority)
        parts.deal_out(largest_first=start == 0)
        parts.improve(rng)
        if parts.cost() < best_cost:
            best, best_cost = np.empty(n_groups, dtype=np.intp), parts.cost()
            best[order] = parts.part
    return best


class _Parts:
    """The parts while groups are dealt out and exchanged.

    Attributes
    ----------
    share : ndarray of shape (n_groups, n_columns)
        Fraction of each group in each column's total.
    has : ndarray of shape (n_groups, n_columns)
        1.0 where the share is not 0.
    part : int ndarray of shape (n_groups,)
        -1 for groups not dealt out yet.
    filled, holders : ndarray of shape (n_parts, n_columns)
        Share that each part has, and how many groups give it.
    """

    def __init__(self, amounts: Array, quotas: NDArray, priority: NDArray):
        n_columns = amounts.shape[1]
        self.quotas = quotas
        self.one_by_one = bool(np.all(amounts[:, 0] == 1))
        self.share = amounts / amounts.sum(axis=0)
        self.has = (amounts > 0).astype(np.float64)
        self.target = (quotas / quotas.sum())[:, np.newaxis]
        self.weight = np.ones(n_columns) / self.target**2
        self.penalty = np.full((len(quotas), n_columns), MISSING) * priority[:, np.newaxis]
        self.penalty[:, 0] = EMPTY
        self.part = np.full(len(amounts), -1, dtype=np.intp)
        self.filled = np.zeros((len(quotas), n_columns))
        self.holders = np.zeros((len(quotas), n_columns))

    def cost(self) -> float:
        deviation = (self.weight * (self.filled - self.target) ** 2).sum()
        return float(deviation + self.penalty[self.holders == 0].sum())

    def deal_out(self, *, largest_first: bool) -> None:
        """Give each group to the part that has least of the group's rarest class."""
        by_rarity = 1 + np.argsort(self.has[:, 1:].sum(axis=0), kind="stable")
        target = self.target[:, 0]
        # Last, by the number of images, come those without a pixel of any class.
        for column in [*by_rarity, 0]:
            groups = np.flatnonzero((self.part < 0) & (self.has[:, column] > 0))
            if largest_first:
                groups = groups[np.argsort(-self.share[groups, column], kind="stable")]
            for group in groups:
                level = self.filled[:, column] / target
                if self.one_by_one:
                    level[self.holders[:, 0] >= self.quotas] = np.inf
                self._put(group, np.lexsort((self.filled[:, 0] / target, level))[0])

    def improve(self, rng: np.random.Generator) -> None:
        """Move and exchange groups for as long as it helps."""
        good_enough = GOOD_ENOUGH**2 * self.weight.size
        pairs = list(itertools.combinations(range(len(self.quotas)), 2))
        n_searches = 0
        changed = True
        while changed and n_searches < MAX_SEARCHES and self.cost() > good_enough:
            # Moves would change the number of images of parts that have the right one.
            changed = not self.one_by_one and self._move_best()
            rng.shuffle(pairs)
            for one, other in pairs:
                changed |= self._exchange_best(one, other, rng)
            n_searches += len(pairs)

    def _put(self, group: int | np.integer, part: int | np.integer) -> None:
        before = self.part[group]
        if before >= 0:
            self.filled[before] -= self.share[group]
            self.holders[before] -= self.has[group]
        self.part[group] = part
        self.filled[part] += self.share[group]
        self.holders[part] += self.has[group]

    def _move_best(self) -> bool:
        """Move the group whose move lowers the cost most; whether there is one."""
        pull = self.share @ (2 * self.weight * (self.filled - self.target)).T
        spread = self.share**2 @ self.weight.T
        enter = pull + spread - self.has @ (self.penalty * (self.holders == 0)).T
        leave = spread - pull + self.has @ (self.penalty * (self.holders == 1)).T
        own = (np.arange(len(self.part)), self.part)
        change = enter + leave[own][:, np.newaxis]
        change[own] = 0.0
        group, part = np.unravel_index(np.argmin(change), change.shape)
        if change[group, part] > -(GOOD_ENOUGH**2):
            return False
        self._put(group, part)
        return True

    def _exchange_best(self, one: int, other: int, rng: np.random.Generator) -> bool:
        """Exchange the two groups of two parts that lower the cost most; whether there are any."""
        a, b = (self._candidates(part, rng) for part in (one, other))
        if len(a) == 0 or len(b) == 0:
            return False
        pull = 2 * self.weight * (self.filled - self.target)
        force, weight = pull[one] - pull[other], self.weight[one] + self.weight[other]
        last, first = self.penalty * (self.holders == 1), self.penalty * (self.holders == 0)
        last[:, 0] = 0.0  # no exchange makes a part empty
        # What each of the two adds by itself, and then what depends on both: the product of their
        # shares, and that a class is not lost if the other group has it too.
        alone_a = self.share[a] ** 2 @ weight - self.share[a] @ force
        alone_a += self.has[a] @ (last[one] - first[other])
        alone_b = self.share[b] ** 2 @ weight + self.share[b] @ force
        alone_b += self.has[b] @ (last[other] - first[one])
        left = np.hstack([-2 * weight * self.share[a], -(last[one] + last[other]) * self.has[a]])
        change = left @ np.hstack([self.share[b], self.has[b]]).T
        change += alone_a[:, np.newaxis] + alone_b
        i, j = np.unravel_index(np.argmin(change), change.shape)
        if change[i, j] > -(GOOD_ENOUGH**2):
            return False
        self._put(a[i], other)
        self._put(b[j], one)
        return True

    def _candidates(self, part: int, rng: np.random.Generator) -> NDArray[np.intp]:
        groups = np.flatnonzero(self.part == part)
        if len(groups) <= MAX_CANDIDATES:
            return groups
        return rng.choice(groups, MAX_CANDIDATES, replace=False)
