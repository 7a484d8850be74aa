"""One number from those of several classes, with a warning where there is none."""

import math
import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import UndefinedMetricWarning

__all__ = [
    "Absent",
    "absent_value",
    "accuracy_from_counts",
    "frequency_weighted",
    "mean_of_present",
]

Absent = Literal["exclude"] | float


def absent_value(absent: Absent) -> float:
    """Score of a class that is absent; NaN for one to be left out."""
    if isinstance(absent, str) and absent == "exclude":
        return math.nan
    if not isinstance(absent, str) and absent in (0, 1):
        return float(absent)
    raise ValueError(f"absent must be 'exclude', 0.0 or 1.0; got {absent!r}")


def mean_of_present(values: NDArray[np.float64], name: str) -> float:
    """Mean of what is not NaN."""
    present = values[~np.isnan(values)]
    if len(present) == 0:
        return _undefined(name, "no class is present")
    return float(present.mean())


def frequency_weighted(values: NDArray[np.float64], counts: NDArray, name: str) -> float:
    """Mean weighted by how many pixels are truly of each class, the rows of `counts`."""
    frequency = counts.sum(axis=1)
    if frequency.sum() == 0:
        return _undefined(name, "no pixel is of a class")
    occurs = frequency > 0
    return float(np.average(values[occurs], weights=frequency[occurs]))


def accuracy_from_counts(counts: NDArray, name: str) -> float:
    """Fraction of the diagonal, without its last cell, in all counts."""
    total = counts.sum()
    if total == 0:
        return _undefined(name, "no pixel is labelled")
    return float(counts[:-1, :-1].trace() / total)


def _undefined(name: str, reason: str) -> float:
    message = f"{name} is undefined and set to nan: {reason}."
    warnings.warn(message, UndefinedMetricWarning, stacklevel=4)
    return math.nan
