"""What happens around the batches of a training run: pace, rate, score and best weights."""

import math
import time

import numpy as np
import torch
from skorch.callbacks import Callback

from skmars._loss_inputs import weights_of_pixels
from skmars.metrics import iou_from_counts
from skmars.schedules import Schedule

__all__ = ["BestWeights", "LearningRate", "Pace", "ValidationScore"]

# Fraction of the time of a training step that the forward pass takes, for as many pixels.
FORWARD_SHARE = 0.35


class Pace(Callback):
    """Know how much of a phase is done, and when it has to end.

    Parameters
    ----------
    validation_pixels : int
        Of all images to validate on: they tell how long that takes, until it has been timed.
    """

    def __init__(self, validation_pixels: int):
        self.validation_pixels = validation_pixels

    def initialize(self):
        """Forget how long steps and validations take; a new phase does not."""
        self.step_seconds_ = 0.0
        self.step_pixels_ = 0
        self.n_timed_ = 0
        self.validation_seconds_: float | None = None
        self.earlier_epochs_ = self.n_epochs_ = 0
        return self

    def begin_phase(
        self, name: str, n_epochs: int, n_batches: int, deadline: float | None
    ) -> None:
        """Start to count.

        Parameters
        ----------
        name : str
            Recorded in the history.
        n_epochs, n_batches : int
            Epochs and training batches of the whole phase, if no deadline ends it.
        deadline : float or None
            Value of `time.perf_counter()` at which the phase has to be over, with its last
            validation.
        """
        self.name_ = name
        self.earlier_epochs_ += self.n_epochs_
        self.n_epochs_ = n_epochs
        self.n_batches_ = n_batches
        self.deadline_ = deadline
        self.n_done_ = 0
        self.started_ = time.perf_counter()

    def progress(self) -> float:
        """Fraction of the phase that is done, in [0, 1]: of its time if that is limited."""
        if self.deadline_ is None:
            return min(self.n_done_ / self.n_batches_, 1.0)
        available = self.deadline_ - self._reserve() - self.started_
        elapsed = time.perf_counter() - self.started_
        return min(elapsed / available, 1.0) if available > 0 else 1.0

    def epochs_done(self) -> float:
        """How many of all phases' planned epochs are done, by the clock if time is limited."""
        return self.earlier_epochs_ + self.progress() * self.n_epochs_

    def is_over(self) -> bool:
        """Whether one more batch and a validation would end too late."""
        if self.deadline_ is None:
            return False
        left = self.deadline_ - time.perf_counter()
        return left < self._reserve() + self.step_seconds_ / 2

    def _reserve(self) -> float:
        if self.validation_seconds_ is not None:
            return self.validation_seconds_
        # The first batch of all warms up: a validation guessed from it may seem to fill the phase.
        if self.n_timed_ < 2:
            return 0.0
        # Steps may see windows of the images, and validation sees them whole.
        n_steps = self.validation_pixels / self.step_pixels_
        return FORWARD_SHARE * self.step_seconds_ * n_steps

    def on_epoch_begin(self, net, **kwargs):
        """Start the clock of the first batch."""
        self.step_started_ = time.perf_counter()

    def on_batch_end(self, net, training=False, y_pred=None, **kwargs):
        """Time and count a training batch."""
        if not training:
            return
        now = time.perf_counter()
        seconds = now - self.step_started_
        # The fastest speaks for the others.
        self.step_seconds_ = min(seconds, self.step_seconds_ or seconds)
        # All steps have nearly as many: of images as they are after augmentation.
        self.step_pixels_ = y_pred[:, 0].numel()
        self.n_timed_ += 1
        self.step_started_ = now
        self.n_done_ += 1

    def on_epoch_end(self, net, **kwargs):
        """Time the validation, which began where the last training batch ended."""
        self.validation_seconds_ = time.perf_counter() - self.step_started_
        net.history.record("phase", self.name_)


class LearningRate(Callback):
    """Set the learning rate before each batch as a schedule says.

    Parameters
    ----------
    pace : Pace
        Tells the progress of the phase.
    """

    def __init__(self, pace: Pace):
        self.pace = pace

    def begin_phase(self, rate: float, schedule: Schedule) -> None:
        """Start a schedule from its beginning, with `rate` as the full learning rate."""
        self.full_rate_ = rate
        self.schedule_ = schedule

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Set the rate of the coming training step."""
        if training:
            self.rate_ = self.full_rate_ * self.schedule_.factor(self.pace.progress())
            for group in net.optimizer_.param_groups:
                group["lr"] = self.rate_

    def on_epoch_end(self, net, **kwargs):
        """Record the rate of the epoch's last batch and show the schedule its loss."""
        row = net.history[-1]
        self.schedule_.update(row.get("valid_loss", row["train_loss"]))
        net.history.record("learning_rate", self.rate_)


class ValidationScore(Callback):
    """Mean IoU of one confusion matrix, added up over the validation batches."""

    def on_epoch_begin(self, net, **kwargs):
        """Start from an empty matrix."""
        self.counts_ = None

    def on_batch_end(self, net, batch=None, training=False, y_pred=None, **kwargs):
        """Add a validation batch to the matrix."""
        if training:
            return
        target, weight = batch[1]
        target = target.to(y_pred.device)
        n_classes = y_pred.shape[1]
        labelled = target >= 0
        pairs = (target * n_classes + y_pred.argmax(dim=1))[labelled]
        if weight is not None:
            weight = weights_of_pixels(weight.to(y_pred.device), target)[labelled]
            # In double precision, which not every device has, or a large sum would stop growing.
            pairs, weight = pairs.cpu(), weight.cpu().double()
        counts = torch.bincount(pairs, weight, minlength=n_classes**2).view(n_classes, n_classes)
        self.counts_ = counts if self.counts_ is None else self.counts_ + counts

    def on_epoch_end(self, net, **kwargs):
        """Record the mean IoU of the epoch; NaN where no pixel is labelled."""
        if self.counts_ is None:
            return
        iou = iou_from_counts(self.counts_.cpu().numpy())
        present = iou[~np.isnan(iou)]
        score = float(present.mean()) if len(present) else math.nan
        net.history.record("valid_mean_iou", score)


class BestWeights(Callback):
    """Keep the weights of the best epoch in memory.

    The best epoch has the highest `valid_mean_iou`, or the lowest `train_loss` where nothing is
    held out for validation.
    """

    def initialize(self):
        """Forget what was best."""
        self.score_ = -math.inf
        self.epoch_ = -1
        self.weights_ = None
        self.begin_phase()
        return self

    def begin_phase(self) -> None:
        """Let patience begin anew; the best weights so far stay."""
        self.n_worse_ = 0

    def on_epoch_end(self, net, **kwargs):
        """Copy the weights if they are the best so far."""
        row = net.history[-1]
        score = row.get("valid_mean_iou", -row["train_loss"])
        if self.weights_ is not None and not score > self.score_:
            self.n_worse_ += 1
            return
        self.n_worse_ = 0
        self.score_ = -math.inf if math.isnan(score) else score
        self.epoch_ = len(net.history) - 1
        self.weights_ = {
            name: value.detach().clone() for name, value in net.module_to_keep.state_dict().items()
        }

    def restore(self, net) -> None:
        """Give the net its best weights back, if an epoch was completed."""
        if self.weights_ is not None:
            net.module_.load_state_dict(self.weights_)
