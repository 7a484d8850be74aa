"""One training run, through the phases of a plan."""

import contextlib
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback, EpochTimer, PassthroughScoring, PrintLog, ProgressBar
from skorch.helper import predefined_split

from skmars._interrupts import noting_interrupts
from skmars.batches import SegmentationDataset
from skmars.training.callbacks import BestWeights, LearningRate, Pace, ValidationScore
from skmars.training.history import drop_unfinished_epoch
from skmars.training.moving_average import MovingAverage
from skmars.training.net import SegmentationNet, StopPhase
from skmars.training.plan import Plan
from skmars.training.temperature import TemperatureScaling
from skmars.transforms import Batch

__all__ = ["train"]


def train(
    net: SegmentationNet,
    train_set: SegmentationDataset,
    valid_set: SegmentationDataset | None,
    plan: Plan,
    *,
    rng: np.random.Generator,
    augment: Callable[[Batch], Batch] | None = None,
    callbacks: Sequence[Any] = (),
    verbose: int = 0,
) -> int:
    """Train an initialised net through the phases of a plan.

    Parameters
    ----------
    net : SegmentationNet
        Initialised; its history and its optimizer's state go on.
    train_set, valid_set : SegmentationDataset
        What is trained and validated on; None for no validation.
    plan : Plan
        Phases, rates and limits.
    rng : numpy.random.Generator
        Shuffles the images.
    augment : callable or None
        Changes each training batch, with its images as given but floating.
    callbacks : sequence
        More skorch callbacks.
    verbose : int
        0 is silent, 1 prints a row an epoch, 2 shows a bar over the batches as well.

    Returns
    -------
    best_epoch : int
        Index of the row in the net's history whose weights the net has now.

    Raises
    ------
    FloatingPointError
        If losses, weights or predictions are no longer finite.
    KeyboardInterrupt
        If a callback stops the training before there is an epoch.
    """
    pace = Pace(0 if valid_set is None else len(valid_set) * valid_set.masks[0].size)
    rate, best = LearningRate(pace), BestWeights()
    net.verbose = verbose
    net.max_epochs = sum(phase.max_epochs for phase in plan.phases)
    own = [
        *_measurements(calibrate=plan.calibrate),
        ("pace", pace),
        ("learning_rate", rate),
        *([("best_weights", best)] if plan.keep_best else []),
    ]
    callbacks = [*own, *callbacks, *_reports(verbose)]
    with (
        noting_interrupts() as net.interrupted,
        _lent_to(net, pace, rng, augment, valid_set, callbacks),
    ):
        try:
            net.notify("on_train_begin", X=train_set, y=None)
        except StopPhase:
            raise KeyboardInterrupt("stopped before the first epoch") from None
        for number, phase in enumerate(plan.phases):
            n_batches = phase.max_epochs * len(net.get_iterator(train_set, training=True))
            pace.begin_phase(phase.name, phase.max_epochs, n_batches, plan.deadline(number))
            rate.begin_phase(phase.learning_rate, plan.schedule())
            best.begin_phase()
            net.module_.freeze(phase.freeze)
            if number:
                net.initialize_optimizer()
            if plan.ema_decay is not None:
                net.average = MovingAverage(net.module_, plan.ema_decay)
            # However short the time, there has to be a net that was trained.
            if number == 0 or not pace.is_over():
                _run_phase(net, train_set, pace, best, phase.max_epochs, plan.patience)
            if plan.keep_best:
                best.restore(net)
            elif net.average is not None:
                net.module_.load_state_dict(net.average.module.state_dict())
        if valid_set is None:
            _check_prediction(net, train_set)
        with contextlib.suppress(StopPhase):
            net.notify("on_train_end", X=train_set, y=None)
    return best.epoch_ if plan.keep_best else len(net.history) - 1


@contextlib.contextmanager
def _lent_to(
    net: SegmentationNet,
    pace: Pace,
    rng: np.random.Generator,
    augment: Callable[[Batch], Batch] | None,
    valid_set: SegmentationDataset | None,
    callbacks: Sequence[Any],
) -> Iterator[None]:
    """Give a net what it needs for a run; it outlives the run, and these do not."""
    try:
        net.pace, net.batch_order, net.augment = pace, rng, augment
        net.train_split = None if valid_set is None else predefined_split(valid_set)
        net.callbacks = callbacks
        net.initialize_callbacks()
        yield
    finally:
        drop_unfinished_epoch(net)
        net.module_.freeze(None)
        net.pace = net.batch_order = net.augment = net.average = net.interrupted = None
        net.train_split = net.callbacks = None
        net.callbacks_ = []


def _measurements(*, calibrate: bool) -> list[tuple[str, Callback]]:
    """Callbacks for the columns of the history, which come before the pace is measured."""
    return [
        ("epoch_timer", EpochTimer()),
        ("train_loss", PassthroughScoring("train_loss", on_train=True)),
        ("valid_loss", PassthroughScoring("valid_loss")),
        ("valid_mean_iou", ValidationScore()),
        *([("temperature", TemperatureScaling())] if calibrate else []),
    ]


def _reports(verbose: int) -> list[tuple[str, Callback]]:
    """Callbacks that tell the user how far it is, after all others."""
    row = PrintLog(sink=_print_row, floatfmt=".4g")
    return [("progress_bar", ProgressBar())] * (verbose > 1) + [("print_log", row)] * (verbose > 0)


def _run_phase(
    net: SegmentationNet,
    train_set: SegmentationDataset,
    pace: Pace,
    best: BestWeights,
    max_epochs: int,
    patience: int | None,
) -> None:
    for n_done in itertools.count(1):
        try:
            net.fit_loop(train_set, epochs=1)
        except StopPhase:
            drop_unfinished_epoch(net)
            if not net.history:
                raise KeyboardInterrupt("stopped before the end of the first epoch") from None
            finished = True
        else:
            finished = n_done >= max_epochs if pace.deadline_ is None else pace.is_over()
        _check_finite(net)
        if finished or (patience is not None and best.n_worse_ >= patience):
            return


def _check_finite(net: SegmentationNet) -> None:
    """Raise if losses or weights are not finite after an epoch: the last step has no loss yet."""
    row = net.history[-1]
    losses = [row[name] for name in ("train_loss", "valid_loss") if name in row]
    weights = net.module_to_keep.parameters()
    if not all(map(math.isfinite, losses)) or not all(bool(w.isfinite().all()) for w in weights):
        raise _diverged(
            f"the training loss is {losses[0]} after epoch {len(net.history)}, or the weights are "
            "no longer finite"
        )


def _check_prediction(net: SegmentationNet, train_set: SegmentationDataset) -> None:
    """Raise if the net predicts nothing of an image, where no validation has shown it."""
    images, _ = train_set[np.arange(1)]
    with torch.no_grad():
        is_finite = bool(net.predictor()(images).isfinite().all())
    if not is_finite:
        raise _diverged("the net's predictions are not finite")


def _diverged(sign: str) -> FloatingPointError:
    return FloatingPointError(f"{sign}: training has diverged; a lower learning_rate may help")


def _print_row(text: str) -> None:
    """Print a row of skorch's table, in colour on terminals only."""
    print(text if sys.stdout.isatty() else re.sub(r"\x1b\[\d+m", "", text), flush=True)
