"""Outliers, their scores and the reasons, collected from several methods."""

from collections.abc import Callable

import numpy as np

__all__ = ["Findings", "count"]

# Images that an error tells of.
N_NAMED = 10


class Findings:
    """What the methods have found so far, image by image."""

    def __init__(self, n: int):
        self.outliers = np.zeros(n, dtype=bool)
        self.scores = np.full(n, -np.inf)
        self.reasons: list[list[str]] = [[] for _ in range(n)]

    def add(self, outliers: np.ndarray, scores: np.ndarray, explain: Callable[[int], str]) -> None:
        """Add what a method has found, and how it explains a row."""
        self.outliers |= outliers
        self.scores = np.maximum(self.scores, scores)
        for row in np.flatnonzero(outliers).tolist():
            self.reasons[row].append(explain(row))

    def complete_scores(self) -> np.ndarray:
        """Scores, the lowest for images that no method has anything to say of."""
        known = np.isfinite(self.scores)
        return np.where(known, self.scores, self.scores[known].min(initial=0))

    def check_what_is_left(self, y: np.ndarray, ignore_label: int | None) -> None:
        """Raise a ValueError if no image, or no pixel of one of the labels, would be left."""
        if self.outliers.all():
            raise ValueError(
                f"all {len(y)} images would be outliers; the first one {self.reasons[0][0]}"
            )
        if not self.outliers.any():
            return
        labels = [set(np.unique(mask).tolist()) for mask in y]
        left = set().union(*(labels[row] for row in np.flatnonzero(~self.outliers)))
        lost = sorted(set().union(*labels) - left - {ignore_label})
        if lost:
            rows = np.flatnonzero(self.outliers)[:N_NAMED].tolist()
            named = "; ".join(f"image {row} {self.reasons[row][0]}" for row in rows)
            raise ValueError(
                f"taking {count(self.outliers.sum(), 'outlier')} of {len(y)} images would take "
                f"all pixels of the labels {lost}: {named}"
            )


def count(number: int, what: str) -> str:
    """Write a number of things, in the plural if there are several.

    Examples
    --------
    >>> from skmars.outliers.findings import count
    >>> count(2, "outlier")
    '2 outliers'
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
