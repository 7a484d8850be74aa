"""Seeds for all parts of an estimator."""

import numpy as np
from sklearn.base import BaseEstimator, clone

__all__ = ["seeded"]


def seeded(estimator, rng: np.random.Generator, *, anew: bool) -> BaseEstimator:
    """Clone an estimator and seed its parts, such as the steps of a Pipeline.

    Parameters
    ----------
    estimator : estimator
        Every parameter called `random_state`, of any part, is a seed.
    rng : numpy.random.Generator
        Draws the seeds.
    anew : bool
        Whether parts that have a seed get another one.

    Returns
    -------
    estimator : estimator
        The clone.
    """
    copy = clone(estimator)
    names = sorted(
        name
        for name, value in copy.get_params().items()
        if name.rpartition("__")[2] == "random_state" and (anew or value is None)
    )
    copy.set_params(**{name: int(rng.integers(2**31)) for name in names})
    return copy
