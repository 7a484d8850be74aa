"""How far out numbers lie, measured by the tails of the numbers themselves.

Features of natural images have tails that no Gaussian describes: long on one side, short on the
other. Beyond a high quantile most tails fall off about exponentially, and the distance between
two quantiles tells how fast. In units of that an observation is as surprising as an exponential
variable of the same size, whatever the feature was measured in.
"""

import numpy as np

__all__ = ["find_cut", "robust_deviations", "separate", "tail_scores", "tail_units"]

# The tail starts at the first quantile; above the second may be outliers, which must not count.
_TAIL = (0.7, 0.9)
_SCORE_TAIL = (0.5, 0.8)
_N_FEATURES_COUNTED = 5
_SMALLEST_SCALE = 1e-4
# Fewer observations do not tell where a tail ends.
_FEWEST = 20
_SIGNIFICANCE = 0.005
# In one feature, outliers are by a factor e more surprising than anything else.
_SMALLEST_GAP = 1.0
# More than this part of the observations are no outliers but a kind of their own.
_LARGEST_SHARE = 0.15
_MOST_ROUNDS = 10


def tail_units(values: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Signed distance of features from their bulk, in units of the tail on that side.

    Parameters
    ----------
    values : ndarray of shape (n, n_features)
        Features.
    normal : ndarray of shape (n,) of bool
        Observations that tell what is normal.

    Returns
    -------
    units : ndarray of shape (n, n_features)
        0 within the 70 % around the bulk of each side. Of an exponential tail the part `exp(-u)`
        lies beyond `u`. 0 for a feature that hardly varies.
    """
    upper = _one_tail(values, normal, _TAIL)
    lower = _one_tail(-values, normal, _TAIL)
    return np.where(upper >= lower, upper, -lower)


def tail_scores(units: np.ndarray) -> np.ndarray:
    """One number for each observation: the mean of its five most surprising features.

    The largest alone would be led by chance, the mean of all by features that have no part in
    what is unusual.
    """
    size = np.abs(units)
    count = min(_N_FEATURES_COUNTED, size.shape[1])
    return np.sort(size, axis=1)[:, -count:].mean(axis=1)


def find_cut(
    scores: np.ndarray,
    *,
    scale: float | None = None,
    n_tests: int = 1,
    smallest_gap: float = 0.0,
) -> float:
    """Find a gap in the upper tail that is too wide for chance, and cut there.

    In an exponential tail the distances between neighbouring order statistics, the i-th of which
    is multiplied by i, are independent and exponential as well (Rényi). The largest of them is
    tested; outliers stand beyond a gap whether they are one or many of a kind, and there are none
    if no gap is significant.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        The higher, the more unusual.
    scale : float, default=None
        Scale of the tail; by default from two quantiles.
    n_tests : int, default=1
        Scores among which this one is tested: the level of 0.5 % is for all of them together.
    smallest_gap : float, default=0.0
        In units of the scale; narrower ones do not count. Numbers that come from integers have
        gaps all over.

    Returns
    -------
    cut : float
        Outliers have a higher score; infinite if there are none.
    """
    n_tested = int(_LARGEST_SHARE * len(scores))
    if len(scores) < _FEWEST:
        return np.inf
    if scale is None:
        low, high = np.quantile(scores, _SCORE_TAIL)
        scale = float(_tail_scale(low, high, _SCORE_TAIL))
    if scale < _SMALLEST_SCALE:
        return np.inf
    highest = np.sort(scores)[::-1][: n_tested + 1]
    gaps = (highest[:-1] - highest[1:]) / scale
    surprise = np.where(gaps >= smallest_gap, gaps, 0) * np.arange(1, n_tested + 1)
    place = int(surprise.argmax())
    if surprise[place] < np.log(n_tested * n_tests / _SIGNIFICANCE):
        return np.inf
    return float(highest[place] + highest[place + 1]) / 2


def separate(features: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Set outliers aside until what is left has no gap, as they widen the tails they are in.

    Gaps are looked for in the mean of the most surprising features, where images stand out that
    are unusual in many ways, and on both sides of each feature, where they do that are unusual
    in one.

    Parameters
    ----------
    features : ndarray of shape (n, n_features)
        Features.
    normal : ndarray of shape (n,) of bool
        Observations that are not known as outliers already.

    Returns
    -------
    scores : ndarray of shape (n,)
        By how many units the observation is beyond all that is left, in the mean or the feature
        where it is by most; at most 0 for what is left.
    normal : ndarray of shape (n,) of bool
        What is left.
    """
    normal = normal.copy()
    for _ in range(_MOST_ROUNDS):
        values = _statistics(features, normal)
        considered = values[normal]
        cuts = [find_cut(considered[:, 0])]
        n_tests = considered.shape[1] - 1
        cuts += [
            find_cut(column, scale=1.0, n_tests=n_tests, smallest_gap=_SMALLEST_GAP)
            for column in considered.T[1:]
        ]
        if np.isinf(cuts).all():
            break
        normal &= (values <= cuts).all(axis=1)
    values = _statistics(features, normal)
    return (values - values[normal].max(axis=0)).max(axis=1), normal


def _statistics(features: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """What may have a gap: the mean score, and each feature upwards and downwards."""
    units = tail_units(features, normal)
    mean = tail_scores(units)[:, None]
    return np.concatenate([mean, np.maximum(units, 0), np.maximum(-units, 0)], axis=1)


def robust_deviations(features: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Distance of features `(n, n_features)` from the median, in robust standard deviations."""
    center = np.median(features[normal], axis=0)
    # Of a Gaussian, the median absolute deviation is 0.6745 standard deviations.
    spread = np.median(np.abs(features[normal] - center), axis=0) / 0.6745
    return (features - center) / np.where(spread > 0, spread, 1.0)


def _one_tail(values: np.ndarray, normal: np.ndarray, tail: tuple[float, float]) -> np.ndarray:
    low, high = np.quantile(values[normal], tail, axis=0)
    scale = _tail_scale(low, high, tail)
    units = (values - low) / np.maximum(scale, _SMALLEST_SCALE) - np.log(1 - tail[0])
    return np.where((scale > _SMALLEST_SCALE) & (values > low), units, 0.0)


def _tail_scale(low, high, tail: tuple[float, float]):
    return (high - low) / np.log((1 - tail[0]) / (1 - tail[1]))
