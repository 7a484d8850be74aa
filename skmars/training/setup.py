"""From hyperparameters to what a training run is made of: the net and the plan."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from skmars.device import choose_arithmetic
from skmars.parameters import ARCHITECTURE
from skmars.schedules import SCHEDULERS, make_schedule
from skmars.training.net import Criterion, SegmentationNet
from skmars.training.run import Phase, Plan

__all__ = ["Epochs", "choose_epochs", "make_net", "make_plan"]

# What "auto" is for many images, and how many images those are.
FEWEST_EPOCHS = 40
MANY_IMAGES = 1600
SHORTEST_QUARTER = 10


class Epochs(NamedTuple):
    """Largest number of epochs of each phase, and the patience."""

    train: int
    fine_tune: int
    patience: int


def make_net(
    params: Mapping[str, Any],
    *,
    device: str,
    mean: np.ndarray,
    scale: np.ndarray,
    n_channels: int,
    class_weight: np.ndarray,
) -> SegmentationNet:
    """Make a net that has not been trained.

    Parameters
    ----------
    params : dict
        Hyperparameters of the segmenter.
    device : str
        A torch device.
    mean, scale : ndarray of shape (n_channels,)
        Of the training images.
    n_channels : int
        Channels of the images.
    class_weight : ndarray of shape (n_classes,)
        Weights of the classes in the loss; used if the parameter of this name asks for any.

    Returns
    -------
    net : SegmentationNet
        Initialised.
    """
    weight = None if params["class_weight"] is None else class_weight
    return SegmentationNet(
        Criterion(params["loss"], params["loss_params"] or {}, weight),
        arithmetic=choose_arithmetic(device, params["precision"]),
        mean=mean,
        scale=scale,
        device=device,
        lr=params["learning_rate"],
        batch_size=params["batch_size"],
        optimizer__weight_decay=params["weight_decay"],
        # One pass over all weights; the other devices have no such kernel.
        optimizer__fused=torch.device(device).type in {"cpu", "cuda"},
        module__in_channels=n_channels,
        module__n_classes=len(class_weight),
        **{f"module__{name}": params[name] for name in ARCHITECTURE},
    ).initialize()


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
