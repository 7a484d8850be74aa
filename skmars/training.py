"""One training run: the skorch net, the phases it goes through, and their time."""

import functools
import itertools
import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import EpochTimer, PassthroughScoring, PrintLog, ProgressBar
from skorch.helper import predefined_split
from skorch.history import History
from torch import Tensor, nn

from skmars.batches import Batches, SegmentationDataset
from skmars.callbacks import BestWeights, LearningRate, Pace, ValidationScore
from skmars.device import Arithmetic, forward, set_layout
from skmars.losses import IGNORE_INDEX, make_loss
from skmars.moving_average import MovingAverage
from skmars.nn import AttentionASPPUNet, fold_batch_norms
from skmars.schedules import ConstantRate
from skmars.temperature import TemperatureScaling
from skmars.transforms import Batch

__all__ = [
    "Criterion",
    "Phase",
    "Plan",
    "SegmentationNet",
    "history_rows",
    "restore_history",
    "train",
]

# Names of ours and of skorch.
HISTORY_COLUMNS = {
    "epoch": "epoch",
    "phase": "phase",
    "train_loss": "train_loss",
    "valid_loss": "valid_loss",
    "valid_mean_iou": "valid_mean_iou",
    "learning_rate": "learning_rate",
    "temperature": "temperature",
    "seconds": "dur",
}

# Share of the time of a training step that the forward pass takes.
FORWARD_SHARE = 0.35


class Criterion(nn.Module):
    """A loss with its class weights.

    Parameters
    ----------
    loss : str or callable
        Names of `skmars.losses`, or a callable of `(logits, target)`, which gets no weights.
    params : dict
        Parameters of the named losses.
    class_weight : ndarray of shape (n_classes,) or None
        Weights of the classes.
    """

    class_weight: Tensor | None

    def __init__(
        self, loss: str | Callable, params: Mapping[str, Any], class_weight: np.ndarray | None
    ):
        super().__init__()
        self.is_named = isinstance(loss, str)
        self.loss = make_loss(loss, **params) if isinstance(loss, str) else loss
        weight = None if class_weight is None else torch.as_tensor(class_weight).float()
        self.register_buffer("class_weight", weight)

    def forward(
        self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Loss of logits `(n, K, H, W)` against class indices `(n, H, W)`."""
        if not self.is_named:
            return self.loss(logits, target)
        return self.loss(
            logits,
            target,
            weight=self.class_weight,
            ignore_index=IGNORE_INDEX,
            sample_weight=sample_weight,
        )


class SegmentationNet(NeuralNet):
    """skorch's net for arrays of images: sliced batches, scaling, precision and layout.

    Parameters
    ----------
    criterion : Criterion
        The loss.
    arithmetic : Arithmetic
        Precision and memory layout.
    mean, scale : ndarray of shape (n_channels,)
        Subtracted from each channel of the images, and divided by.
    **kwargs
        As in `skorch.NeuralNet`, `module__...` among them.
    """

    def __init__(self, criterion, *, arithmetic: Arithmetic, mean, scale, **kwargs):
        super().__init__(
            AttentionASPPUNet, criterion, optimizer=torch.optim.AdamW, train_split=None, **kwargs
        )
        self.arithmetic = arithmetic
        self.mean = mean
        self.scale = scale
        self.batch_order: np.random.Generator | None = None
        self.is_over: Callable[[], bool] | None = None
        self.augment: Callable[[Batch], Batch] | None = None
        self.average: MovingAverage | None = None
        self.temperature = 1.0
        self.module_: AttentionASPPUNet
        # The weights and the temperature that were folded, and the result.
        self._folded: tuple[list[Tensor], float, nn.Module] | None = None

    @property
    def _default_callbacks(self):
        return []

    def initialize_module(self):
        """Build the module in the memory layout that convolutions are computed in."""
        super().initialize_module()
        set_layout(self.module_, self.arithmetic)
        return self

    def use_compiler(self) -> None:
        """Compile the forward pass for the rest of this process."""
        self._forward = torch.compile(self.module_.forward)

    def infer(self, x: Tensor, **fit_params) -> Tensor:
        """Logits in float32 of images as given, `(n, C, H, W)` of any real dtype."""
        if self.module_.training:
            return self._logits(self.__dict__.get("_forward", self.module_), x)
        return self._logits(self.module_to_keep, x)

    def predictor(self) -> Callable[[Tensor], Tensor]:
        """The function of images that gives their logits, for as long as the weights stay."""
        self.module_.eval()
        weights = [*self.module_.parameters(), *self.module_.buffers()]
        # Whoever has changed them, and however: the values are compared.
        if (
            self._folded is None
            or self._folded[1] != self.temperature
            or not all(map(torch.equal, weights, self._folded[0]))
        ):
            # Plain tensors, whatever mode the caller is in: they serve later calls as well.
            with torch.inference_mode(False), torch.no_grad():
                folded = self.folded()
                if self.arithmetic.precision == "bfloat16":
                    folded = folded.bfloat16()
                copies = [weight.detach().clone() for weight in weights]
                self._folded = copies, self.temperature, folded
        return functools.partial(self._logits, self._folded[-1])

    def folded(self) -> nn.Module:
        """Copy the module for prediction, with normalisation and temperature in its weights."""
        module = fold_batch_norms(self.module_)
        for values in module.get_submodule("head").parameters():
            values.data /= self.temperature
        return module

    def _logits(self, module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        x = x.to(self.device)
        if x.dtype != torch.float64:
            x = x.float()
        shape = (-1, 1, 1)
        mean = torch.tensor(self.mean, dtype=x.dtype, device=x.device).reshape(shape)
        scale = torch.tensor(self.scale, dtype=x.dtype, device=x.device).reshape(shape)
        return forward(module, ((x - mean) / scale).float(), self.arithmetic)

    @property
    def module_to_keep(self) -> nn.Module:
        """The module with the weights that training is for: their average, if one is taken."""
        return self.module_ if self.average is None else self.average.module

    def train_step(self, batch, **fit_params):
        """Take a step, and the new weights into their average."""
        step = super().train_step(batch, **fit_params)
        if self.average is not None:
            self.average.update(self.module_)
        return step

    def train_step_single(self, batch, **fit_params):
        """Change the batch at random, if that is wanted, and take a step."""
        if self.augment is not None:
            images, (target, weight) = batch
            images = images.to(self.device)
            if images.dtype != torch.float64:
                images = images.float()
            changed = self.augment(Batch(images, target.to(self.device), weight))
            batch = changed.images, (changed.target, changed.weight)
        return super().train_step_single(batch, **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False) -> Tensor:
        """Loss of a batch whose `y_true` is a pair of target and weights."""
        target, weight = (None if part is None else part.to(y_pred.device) for part in y_true)
        return self.criterion_(y_pred, target, weight)

    def get_iterator(self, dataset, training=False) -> Batches:
        """Slice the data set; training batches are shuffled and end with the phase."""
        if not training:
            return Batches(dataset, self.batch_size)
        return Batches(dataset, self.batch_size, self.batch_order, self.is_over)

    def notify(self, method_name, **cb_kwargs):
        """Call a method of all callbacks; each may stop the phase the way skorch's own do."""
        try:
            super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt as interrupt:
            raise _StopPhase from interrupt

    def __getstate__(self):
        state = super().__getstate__()
        # Compiled code cannot be pickled; the module it was made from is, and what is folded can
        # be made from it.
        state.pop("_forward", None)
        return state | {"_folded": None}


class _StopPhase(Exception):
    """A callback has asked for the end of a phase."""


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
    schedule: Callable[[], ConstantRate] = ConstantRate
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
        If the loss is no longer finite.
    """
    n_valid = 0 if valid_set is None else len(valid_set)
    pace = Pace(FORWARD_SHARE * n_valid / net.batch_size)
    rate, best = LearningRate(pace), BestWeights()
    net.verbose = verbose
    net.max_epochs = sum(phase.max_epochs for phase in plan.phases)
    net.train_split = None if valid_set is None else predefined_split(valid_set)
    net.callbacks = [
        ("epoch_timer", EpochTimer()),
        ("train_loss", PassthroughScoring("train_loss", on_train=True)),
        ("valid_loss", PassthroughScoring("valid_loss")),
        ("valid_mean_iou", ValidationScore()),
        ("pace", pace),
        ("learning_rate", rate),
        *([("temperature", TemperatureScaling())] if plan.calibrate else []),
        *([("best_weights", best)] if plan.keep_best else []),
        *callbacks,
        *([("progress_bar", ProgressBar())] if verbose > 1 else []),
        *([("print_log", PrintLog(sink=_print_row))] if verbose else []),
    ]
    net.initialize_callbacks()
    net.batch_order, net.is_over, net.augment = rng, pace.is_over, augment
    try:
        net.notify("on_train_begin", X=train_set)
        for number, phase in enumerate(plan.phases):
            n_batches = phase.max_epochs * len(net.get_iterator(train_set, training=True))
            pace.begin_phase(phase.name, n_batches, plan.deadline(number))
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
        net.notify("on_train_end", X=train_set)
    finally:
        # The net outlives the run; the data, the best weights' copy and the clock do not.
        net.module_.freeze(None)
        net.train_split = net.callbacks = None
        net.batch_order = net.is_over = net.augment = net.average = None
        net.callbacks_ = []
    return best.epoch_ if plan.keep_best else len(net.history) - 1


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
        except _StopPhase:
            if net.history and "learning_rate" not in net.history[-1]:
                # Stopped within the epoch: a row without its figures helps nobody.
                del net.history[-1]
            return
        loss = net.history[-1, "train_loss"]
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss is {loss} after epoch {len(net.history)}: "
                "training has diverged; a lower learning_rate may help"
            )
        finished = n_done >= max_epochs if pace.deadline_ is None else pace.is_over()
        if finished or (patience is not None and best.n_worse_ >= patience):
            return


def _print_row(text: str) -> None:
    """Print a row of skorch's table, in colour on terminals only."""
    print(text if sys.stdout.isatty() else re.sub(r"\x1b\[\d+m", "", text), flush=True)


def history_rows(net: SegmentationNet) -> list[dict[str, Any]]:
    """The net's history as a row an epoch, without its batches."""
    return [
        {
            name: row[key] if isinstance(row[key], str | int) else float(row[key])
            for name, key in HISTORY_COLUMNS.items()
            if key in row
        }
        for row in net.history
    ]


def restore_history(net: SegmentationNet, rows: Sequence[Mapping[str, Any]]) -> None:
    """Give a net the history that `history_rows` has told, to go on from."""
    net.history = History()
    for row in rows:
        net.history.new_epoch()
        for name, value in row.items():
            net.history.record(HISTORY_COLUMNS[name], value)
