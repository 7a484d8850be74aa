"""How long, at which rates and in which phases a net is trained."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from skmars.schedules import SCHEDULERS, ConstantRate, Schedule, make_schedule

__all__ = ["Epochs", "Phase", "Plan", "choose_epochs", "make_plan"]

# What "auto" is for many images, and how many images those are.
FEWEST_EPOCHS = 40
MANY_IMAGES = 1600
SHORTEST_QUARTER = 10


@dataclass(frozen=True)
class Phase:
    """A part of the training at one learning rate, with a part of the net frozen or none."""

    name: str
    max_epochs: int
    learning_rate: float
    freeze: str | None = None


@dataclass(frozen=True)
class Plan:
    """Everything that says how long and at which rate a net is trained."""

    phases: Sequence[Phase]
    schedule: Callable[[], Schedule] = ConstantRate
    keep_best: bool = False
    patience: int | None = None
    time_limit: float | None = None
    ema_decay: float | None = None
    calibrate: bool = False
    started: float = field(default_factory=time.perf_counter)

    def deadline(self, number: int) -> float | None:
        """When a phase has to be over: phases share the time as they share the epochs."""
        if self.time_limit is None:
            return None
        epochs = [phase.max_epochs for phase in self.phases]
        return self.started + self.time_limit * sum(epochs[: number + 1]) / sum(epochs)


class Epochs(NamedTuple):
    """Largest number of epochs of each phase, and the patience."""

    train: int
    fine_tune: int
    patience: int


def choose_epochs(params: Mapping[str, Any], n_images: int) -> Epochs:
    """Resolve "auto" in the parameters that count epochs.

    Fewer images make fewer steps an epoch, so the number of epochs grows with the square root of
    1600 / n.

    Parameters
    ----------
    params : dict
        Hyperparameters of the segmenter.
    n_images : int
        To train on, at least 1.

    Returns
    -------
    epochs : Epochs

    Examples
    --------
    >>> auto = dict.fromkeys(["max_epochs", "fine_tune_epochs", "patience"], "auto")
    >>> choose_epochs(auto, 2000)
    Epochs(train=40, fine_tune=10, patience=10)
    >>> choose_epochs(auto, 100)
    Epochs(train=160, fine_tune=40, patience=40)
    """
    train, fine_tune, patience = (
        params[name] for name in ("max_epochs", "fine_tune_epochs", "patience")
    )
    if train == "auto":
        train = math.ceil(FEWEST_EPOCHS * max(1, MANY_IMAGES / n_images) ** 0.5)
    quarter = max(SHORTEST_QUARTER, train // 4)
    return Epochs(
        train,
        quarter if fine_tune == "auto" else fine_tune,
        quarter if patience == "auto" else patience,
    )


def make_plan(params: Mapping[str, Any], n_images: int, started: float) -> Plan:
    """Make the plan of a fit: its phases, rates and limits.

    Parameters
    ----------
    params : dict
        Hyperparameters of the segmenter.
    n_images : int
        To train on.
    started : float
        Value of `time.perf_counter()` from which a time limit counts.

    Returns
    -------
    plan : Plan
    """
    epochs = choose_epochs(params, n_images)
    phases = [Phase("train", epochs.train, params["learning_rate"])]
    if params["freeze"] is not None:
        rate = params["fine_tune_learning_rate"]
        phases.append(Phase("fine_tune", epochs.fine_tune, rate, params["freeze"]))
    # Half a cosine decay is worth little: with a time limit it is always completed.
    completed = params["time_limit"] is not None and SCHEDULERS[params["scheduler"]].needs_its_end
    stops_early = params["early_stopping"] and not completed
    return Plan(
        phases,
        schedule=make_schedule(params["scheduler"], params["scheduler_params"]),
        keep_best=params["early_stopping"],
        patience=epochs.patience if stops_early else None,
        time_limit=params["time_limit"],
        ema_decay=params["ema_decay"],
        calibrate=params["calibration"] is not None,
        started=started,
    )
