"""The skorch net that is trained: batches of arrays in, losses and logits out."""

import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from torch import Tensor, nn

from skmars._loss_inputs import weights_of_pixels
from skmars.batches import Batches
from skmars.device import Arithmetic, choose_arithmetic, forward, set_layout
from skmars.losses import IGNORE_INDEX, make_loss
from skmars.nn import AttentionASPPUNet, fold_batch_norms
from skmars.parameters import ARCHITECTURE
from skmars.training.callbacks import Pace
from skmars.training.moving_average import MovingAverage
from skmars.transforms import Batch

__all__ = ["Criterion", "SegmentationNet", "StopPhase", "make_net"]


class StopPhase(Exception):
    """A callback has asked for the end of a phase."""


class Criterion(nn.Module):
    """A loss with its class weights.

    Parameters
    ----------
    loss : str or callable
        Names of `skmars.losses`, or a callable of `(logits, target)`, which gets no weights.
    params : dict
        Parameters of the named losses.
    class_weight : ndarray of shape (n_classes,)
        Weights of the classes.
    """

    class_weight: Tensor

    def __init__(self, loss: str | Callable, params: Mapping[str, Any], class_weight: np.ndarray):
        super().__init__()
        self.is_named = isinstance(loss, str)
        self.loss = make_loss(loss, **params) if isinstance(loss, str) else loss
        self.register_buffer("class_weight", torch.as_tensor(class_weight).float())

    def forward(
        self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Loss of logits `(n, K, H, W)` against class indices `(n, H, W)`."""
        if not self.is_named:
            # Of no pixel, means such as torch's have no value.
            has_labels = bool((target != IGNORE_INDEX).any())
            return self.loss(logits, target) if has_labels else logits.sum() * 0.0
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
        self.pace: Pace | None = None
        self.augment: Callable[[Batch], Batch] | None = None
        self.average: MovingAverage | None = None
        self.interrupted: threading.Event | None = None
        self.temperature = 1.0
        self.module_: AttentionASPPUNet
        self._compiled: Callable[[Tensor], Tensor] | None = None
        # The weights and the temperature that were folded, and the result.
        self._folded: tuple[list[Tensor], float, nn.Module] | None = None

    @property
    def _default_callbacks(self):
        return []

    def initialize_module(self):
        """Build the module in the memory layout that convolutions are computed in."""
        super().initialize_module()
        # Whatever torch's default dtype is.
        self.module_.float()
        set_layout(self.module_, self.arithmetic)
        return self

    def move(self, device: str, arithmetic: Arithmetic) -> None:
        """Compute on a device and in an arithmetic from now on; the optimizer goes along."""
        self.device, self.arithmetic, self._folded = device, arithmetic, None
        self.module_.to(device)
        self.criterion_.to(device)
        set_layout(self.module_, arithmetic)
        for group in self.optimizer_.param_groups:
            group["fused"] = _is_fused(device)
        _lay_out_moments(self.optimizer_)

    def use_compiler(self, wanted: bool) -> None:
        """Compile the forward pass for the rest of this process, or no longer do so."""
        if not wanted:
            self._compiled = None
        elif self._compiled is None:
            self._compiled = torch.compile(self.module_.forward)

    def infer(self, x: Tensor, **fit_params) -> Tensor:
        """Logits in float32 of images as given, `(n, C, H, W)` of any real dtype."""
        if self.module_.training:
            return self._logits(self._compiled or self.module_, x)
        return self._logits(self.module_to_keep, x)

    def predictor(self) -> Callable[[Tensor], Tensor]:
        """The function of images that gives their logits, for as long as the weights stay."""
        self.module_.eval()
        weights = [*self.module_.parameters(), *self.module_.buffers()]
        # Whoever has changed them, and however: the values are compared.
        kept = self._folded
        if (
            kept is None
            or kept[1] != self.temperature
            or not all(map(torch.equal, weights, kept[0]))
        ):
            # Plain tensors, whatever mode the caller is in: they serve later calls as well.
            with torch.inference_mode(False), torch.no_grad():
                folded = self.folded()
                if self.arithmetic.precision == "bfloat16":
                    folded = folded.bfloat16()
                copies = [weight.detach().clone() for weight in weights]
                self._folded = kept = copies, self.temperature, folded
        return functools.partial(self._logits, kept[-1])

    def folded(self) -> nn.Module:
        """Copy the module for prediction, with normalisation and temperature in its weights."""
        module = fold_batch_norms(self.module_)
        for values in module.get_submodule("head").parameters():
            values.data /= self.temperature
        return module

    def _logits(self, module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        x = self._as_float(x)
        shape = (-1, 1, 1)
        mean = torch.tensor(self.mean, dtype=x.dtype, device=x.device).reshape(shape)
        scale = torch.tensor(self.scale, dtype=x.dtype, device=x.device).reshape(shape)
        scaled = ((x - mean) / scale).float().to(self.device)
        return forward(module, scaled, self.arithmetic)

    def _as_float(self, images: Tensor) -> Tensor:
        """Images on the device in single precision, if that holds what they are."""
        if images.dtype.itemsize < 4 or images.dtype == torch.float32:
            return images.to(self.device).float()
        # They stay where they are until they are scaled: not every device has double precision.
        return images.double()

    @property
    def module_to_keep(self) -> nn.Module:
        """The module with the weights that training is for: their average, if one is taken."""
        return self.module_ if self.average is None else self.average.module

    def train_step(self, batch, **fit_params):
        """Take a step, and the new weights into their average."""
        step = super().train_step(batch, **fit_params)
        if self.average is not None:
            self.average.update()
        return step

    def train_step_single(self, batch, **fit_params):
        """Change the batch at random, if that is wanted, and take a step."""
        if self.augment is not None:
            images, (target, weight) = batch
            images = self._as_float(images)
            target, weight = _moved((target, weight), images.device)
            changed = self.augment(Batch(images, target, weight))
            batch = changed.images, (changed.target, changed.weight)
        return super().train_step_single(batch, **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False) -> Tensor:
        """Loss of a batch whose `y_true` is a pair of target and weights."""
        target, weight = _moved(y_true, y_pred.device)
        loss = self.criterion_(y_pred, target, weight)
        if weight is None:
            return loss
        # A loss is a mean over its batch: batches count for as much as their weights do.
        counted = weights_of_pixels(weight, target)[target != IGNORE_INDEX]
        counted = counted[counted > 0]
        return loss * counted.mean() if len(counted) else loss

    def get_iterator(self, dataset, training=False) -> Batches:
        """Slice the data set; training batches are shuffled and end with the phase."""
        if not training:
            return Batches(dataset, self.batch_size)
        is_over = None if self.pace is None else self.pace.is_over
        return Batches(dataset, self.batch_size, self.batch_order, is_over)

    def notify(self, method_name, **cb_kwargs):
        """Call a method of all callbacks; each may stop the phase the way skorch's own do."""
        try:
            super().notify(method_name, **cb_kwargs)
        except KeyboardInterrupt as interrupt:
            if self.interrupted is not None and self.interrupted.is_set():
                # It was Ctrl-C, and no callback.
                raise
            raise StopPhase from interrupt

    def __getstate__(self):
        # Compiled code cannot be pickled; the module it was made from is, and what is folded can
        # be made from it.
        return super().__getstate__() | {"_compiled": None, "_folded": None}


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
        Weights of the classes in the loss.

    Returns
    -------
    net : SegmentationNet
        Initialised.
    """
    return SegmentationNet(
        Criterion(params["loss"], params["loss_params"] or {}, class_weight),
        arithmetic=choose_arithmetic(device, params["precision"]),
        mean=mean,
        scale=scale,
        device=device,
        lr=params["learning_rate"],
        batch_size=params["batch_size"],
        optimizer__weight_decay=params["weight_decay"],
        optimizer__fused=_is_fused(device),
        module__in_channels=n_channels,
        module__n_classes=len(class_weight),
        **{f"module__{name}": params[name] for name in ARCHITECTURE},
    ).initialize()


def _moved(tensors: Iterable[Tensor | None], device: torch.device) -> list[Any]:
    """Tensors on a device, and None where there is none."""
    return [None if tensor is None else tensor.to(device) for tensor in tensors]


def _is_fused(device: str) -> bool:
    """Whether AdamW passes over all weights at once; the other devices have no such kernel."""
    return torch.device(device).type in {"cpu", "cuda"}


def _lay_out_moments(optimizer: torch.optim.Optimizer) -> None:
    """Place and lay out what an optimizer remembers of each weight as the weight itself is."""
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                moved = value.to(weight.device)
                is_moment = value.shape == weight.shape
                state[name] = torch.empty_like(weight).copy_(moved) if is_moment else moved
