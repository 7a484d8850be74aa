"""Learning-rate schedules: which fraction of the rate holds at which point of the training."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "SCHEDULERS",
    "ConstantRate",
    "CosineDecay",
    "ReduceOnPlateau",
    "Schedule",
    "make_schedule",
]


class Schedule:
    """Which fraction of the learning rate holds at which point of the training.

    `factor(progress)` is called before each batch, `update(loss)` after each epoch.
    """

    # Whether a training that ends before its time loses what the schedule is for.
    needs_its_end = False

    def factor(self, progress: float) -> float:
        """Fraction of the learning rate when a share `progress` in [0, 1] of training is done."""
        return 1.0

    def update(self, loss: float) -> None:
        """Take note of an epoch's validation loss."""


class ConstantRate(Schedule):
    """The full learning rate from the first batch to the last."""


class CosineDecay(Schedule):
    """A short linear warm-up, then half a cosine down to a small fraction of the rate [1]_.

    Parameters
    ----------
    warmup : float, default=0.05
        Fraction of the training in which the rate rises, in [0, 1).
    final : float, default=0.01
        Fraction of the rate that is left at the end, in [0, 1].

    References
    ----------
    .. [1] Loshchilov, I., Hutter, F. (2017). SGDR: Stochastic gradient descent with warm
       restarts. ICLR.

    Examples
    --------
    >>> from skmars.schedules import CosineDecay
    >>> schedule = CosineDecay(warmup=0.1, final=0.0)
    >>> [round(schedule.factor(progress), 3) for progress in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """

    needs_its_end = True

    def __init__(self, warmup: float = 0.05, final: float = 0.01):
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup must be in [0, 1), got {warmup!r}")
        if not 0 <= final <= 1:
            raise ValueError(f"final must be in [0, 1], got {final!r}")
        self.warmup = warmup
        self.final = final

    def factor(self, progress: float) -> float:
        """Fraction of the learning rate when a share `progress` in [0, 1] of training is done."""
        progress = min(max(progress, 0.0), 1.0)
        if progress < self.warmup:
            # Not from zero, which would waste the first batch.
            return max(progress / self.warmup, 0.01)
        decay = (progress - self.warmup) / (1 - self.warmup)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * decay))


class ReduceOnPlateau(Schedule):
    """Lower the rate whenever the validation loss has not improved for some epochs.

    Without validation data the training loss is watched.

    Parameters
    ----------
    factor : float, default=0.5
        What the rate is multiplied with, in (0, 1).
    patience : int, default=3
        Epochs without an improvement that are tolerated, at least 0.
    threshold : float, default=1e-3
        Relative decrease of the loss that counts as an improvement, in [0, 1).
    final : float, default=0.01
        The rate never falls below this fraction of itself, in [0, 1].

    Examples
    --------
    >>> from skmars.schedules import ReduceOnPlateau
    >>> schedule = ReduceOnPlateau(factor=0.1, patience=1)
    >>> for loss in (1.0, 1.0, 1.0):
    ...     schedule.update(loss)
    >>> schedule.factor(0.3)
    0.1
    """

    def __init__(
        self,
        factor: float = 0.5,
        patience: int = 3,
        threshold: float = 1e-3,
        final: float = 0.01,
    ):
        if not 0 < factor < 1:
            raise ValueError(f"factor must be in (0, 1), got {factor!r}")
        if not patience >= 0:
            raise ValueError(f"patience must be at least 0, got {patience!r}")
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), got {threshold!r}")
        if not 0 <= final <= 1:
            raise ValueError(f"final must be in [0, 1], got {final!r}")
        self.reduction = factor
        self.patience = patience
        self.threshold = threshold
        self.final = final
        self._current = 1.0
        self._best = math.inf
        self._n_bad = 0

    def factor(self, progress: float) -> float:
        """Fraction of the learning rate that holds since the last reduction."""
        return self._current

    def update(self, loss: float) -> None:
        """Take note of an epoch's loss, and reduce the rate if the patience is over."""
        # Losses may be negative, and an improvement is one all the same.
        margin = self.threshold * abs(self._best) if math.isfinite(self._best) else 0.0
        if loss < self._best - margin:
            self._best, self._n_bad = loss, 0
            return
        self._n_bad += 1
        if self._n_bad > self.patience:
            self._current, self._n_bad = max(self._current * self.reduction, self.final), 0


SCHEDULERS: dict[str | None, type[Schedule]] = {
    None: ConstantRate,
    "cosine": CosineDecay,
    "plateau": ReduceOnPlateau,
}


def make_schedule(
    scheduler: str | None, params: Mapping[str, Any] | None
) -> Callable[[], Schedule]:
    """Bind a schedule's parameters, checked, so that each phase can start it anew.

    Parameters
    ----------
    scheduler : str or None
        A name in `SCHEDULERS`.
    params : dict or None
        Its parameters.

    Returns
    -------
    schedule : callable
        Without arguments; returns the schedule at its beginning.

    Raises
    ------
    ValueError
        If the name or a parameter is unknown, or a parameter out of range.
    """
    if scheduler not in SCHEDULERS:
        raise ValueError(f"scheduler must be among {list(SCHEDULERS)}, got {scheduler!r}")
    schedule = functools.partial(SCHEDULERS[scheduler], **(params or {}))
    try:
        schedule()
    except TypeError as error:
        raise ValueError(
            f"scheduler_params do not fit scheduler={scheduler!r}: {error}"
        ) from error
    return schedule
