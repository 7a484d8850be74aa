"""What each hyperparameter of the segmenter may be, alone and together with others."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from sklearn.utils._param_validation import Interval, Options, StrOptions
from skorch.callbacks import Callback, LRScheduler

from skmars.augmentation import Augmenter
from skmars.losses import make_loss
from skmars.nn import BLOCKS, FREEZABLE, PATCH_SIZES, SKIPS
from skmars.prediction.windows import check_window
from skmars.schedules import SCHEDULERS, make_schedule

__all__ = ["ARCHITECTURE", "CONSTRAINTS", "check_together"]

# Those that the net is built from.
ARCHITECTURE = (
    "depth",
    "base_channels",
    "patch_size",
    "block",
    "skip",
    "attention",
    "aspp",
    "dilation_rates",
    "dropout",
)

CONSTRAINTS: dict[str, list] = {
    "depth": [Interval(Integral, 2, 5, closed="both")],
    "base_channels": [Interval(Integral, 1, None, closed="left")],
    "patch_size": [Options(Integral, set(PATCH_SIZES))],
    "block": [StrOptions(set(BLOCKS))],
    "skip": [StrOptions(set(SKIPS))],
    "attention": ["boolean"],
    "aspp": ["boolean"],
    "dilation_rates": [tuple, list],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "loss": [str, callable],
    "loss_params": [dict, None],
    "class_weight": [StrOptions({"auto", "balanced", "sqrt"}), dict, None],
    "max_class_weight": [Interval(Real, 0, None, closed="neither"), None],
    "ignore_label": [Integral, None],
    "learning_rate": [Interval(Real, 0, None, closed="neither")],
    "weight_decay": [Interval(Real, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "max_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "ema_decay": [Interval(Real, 0, 1, closed="left"), None],
    "scheduler": [StrOptions({name for name in SCHEDULERS if name}), None],
    "scheduler_params": [dict, None],
    "time_limit": [Interval(Real, 0, None, closed="neither"), None],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
    "early_stopping": ["boolean"],
    "patience": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "augmentation": [StrOptions({"auto"}), Augmenter, None],
    "calibration": [StrOptions({"temperature"}), None],
    "freeze": [StrOptions(set(FREEZABLE)), None],
    "fine_tune_epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "fine_tune_learning_rate": [Interval(Real, 0, None, closed="neither")],
    "tta": ["boolean"],
    "window": [tuple, list, None],
    "overlap": [Interval(Real, 0, 1, closed="left")],
    "device": [str],
    "precision": [StrOptions({"auto", "float32", "bfloat16"})],
    "compile": ["boolean", StrOptions({"auto"})],
    "n_threads": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "warm_start": ["boolean"],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
    "callbacks": [list, tuple, None],
}


def check_together(params: Mapping[str, Any], *, weighted: bool) -> None:
    """Check what the constraints of single parameters cannot say.

    Parameters
    ----------
    params : dict
        All hyperparameters, each valid by itself.
    weighted : bool
        Whether sample weights are given.

    Raises
    ------
    ValueError
        If dilation rates, windows, loss, schedule or augmentation do not exist with their
        parameters, or the loss cannot take weights that it is asked to.
    TypeError
        If a callback is none.
    """
    rates = tuple(params["dilation_rates"])
    if not rates or not all(isinstance(rate, Integral) and int(rate) >= 1 for rate in rates):
        raise ValueError(
            f"dilation_rates must hold at least one integer, each at least 1; got {rates}"
        )
    check_window(params["window"], params["overlap"], 2 ** params["depth"])
    make_schedule(params["scheduler"], params["scheduler_params"])
    if isinstance(params["augmentation"], Augmenter):
        params["augmentation"]._validate_params()
    if any(_sets_learning_rate(callback) for callback in params["callbacks"] or ()):
        raise ValueError("callbacks cannot set the learning rate: use scheduler, not LRScheduler")
    loss, loss_params = params["loss"], params["loss_params"]
    if isinstance(loss, type):
        raise TypeError(
            f"loss must be a function or an instance: {loss.__name__}(), not the class"
        )
    if isinstance(loss, str):
        make_loss(loss, **(loss_params or {}))
    elif weighted or loss_params or params["class_weight"] not in ("auto", None):
        raise ValueError(
            "a callable loss takes (logits, target) only: sample_weight, class_weight and "
            "loss_params cannot be used with it"
        )


def _sets_learning_rate(callback) -> bool:
    # skorch takes pairs of a name and a callback as well, and classes.
    callback = callback[1] if isinstance(callback, tuple) else callback
    kind = callback if isinstance(callback, type) else type(callback)
    if not issubclass(kind, Callback):
        raise TypeError(f"callbacks must be skorch callbacks, got {callback!r}")
    return issubclass(kind, LRScheduler)
