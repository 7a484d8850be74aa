"""From hyperparameters to what a training run is made of: the net and the plan."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from skmars.device import choose_arithmetic
from skmars.parameters import ARCHITECTURE
from skmars.schedules import make_schedule
from skmars.training.net import Criterion, SegmentationNet
from skmars.training.run import Phase, Plan

__all__ = ["make_net", "make_plan"]


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


def make_plan(params: Mapping[str, Any], started: float) -> Plan:
    """Make the plan of a fit: its phases, rates and limits.

    Parameters
    ----------
    params : dict
        Hyperparameters of the segmenter.
    started : float
        Value of `time.perf_counter()` from which a time limit counts.

    Returns
    -------
    plan : Plan
    """
    phases = [Phase("train", params["max_epochs"], params["learning_rate"])]
    if params["freeze"] is not None:
        rate = params["fine_tune_learning_rate"]
        phases.append(Phase("fine_tune", params["fine_tune_epochs"], rate, params["freeze"]))
    # Half a cosine decay is worth little: with a time limit it is always completed.
    completed = params["time_limit"] is not None and params["scheduler"] == "cosine"
    stops_early = params["early_stopping"] and not completed
    return Plan(
        phases,
        schedule=make_schedule(params["scheduler"], params["scheduler_params"]),
        keep_best=params["early_stopping"],
        patience=params["patience"] if stops_early else None,
        time_limit=params["time_limit"],
        ema_decay=params["ema_decay"],
        calibrate=params["calibration"] is not None,
        started=started,
    )
