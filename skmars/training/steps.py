"""The steps of a fit, each of which leaves fitted attributes behind."""

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from skmars import _validation as check
from skmars.augmentation import choose_augmenter
from skmars.batches import SegmentationDataset, measure_scaling
from skmars.device import choose_arithmetic, choose_device, compute_settings, random_numbers
from skmars.model_selection import class_counts, holdout_split
from skmars.parameters import ARCHITECTURE, check_together
from skmars.training.history import history_rows, restore_history
from skmars.training.net import Criterion, SegmentationNet, make_net
from skmars.training.plan import Plan
from skmars.training.run import train
from skmars.weighting import class_weights

__all__ = ["TrainingMixin"]

# Nets move to another device or precision one at a time.
_moving = threading.Lock()


class TrainingMixin:
    """Build, resume, restore and train the net of an estimator with a segmenter's parameters."""

    augmentation: Any
    batch_size: int
    callbacks: Any
    compile: bool | str
    device: str
    get_params: Callable[..., dict[str, Any]]
    ignore_label: int | None
    loss: Any
    loss_params: dict[str, Any] | None
    max_class_weight: float | None
    n_threads: int | str
    precision: str
    validation_fraction: float | None
    verbose: int
    weight_decay: float
    _validate_params: Callable[[], None]

    @property
    def temperature_(self) -> float:
        """What the logits are divided by."""
        return self.history_[self.best_epoch_].get("temperature", 1.0)

    def _hold_out(self, counts, counted, groups, rng) -> tuple[np.ndarray, np.ndarray | None]:
        """Rows to train on, and those to validate on or None."""
        n = len(counts)
        if self.validation_fraction is None:
            return np.arange(n), None
        # An image whose pixels do not count has nothing to be validated by.
        rows = np.flatnonzero(counted)
        groups = np.arange(n) if groups is None else groups
        try:
            _, held_out = holdout_split(
                counts[rows], self.validation_fraction, groups=groups[rows], rng=rng
            )
        except ValueError as error:
            way_out = "set validation_fraction=None or give validation_data"
            raise ValueError(f"{error}; {way_out}") from error
        is_held_out = np.isin(groups, groups[rows[held_out]])
        return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)

    def _check_valid(
        self, validation_data, X, classes
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Images and masks that were given to validate on, and their weights or None."""
        n_channels = check.count_channels(X)
        X_valid, y_valid, weight = check.check_validation_data(
            validation_data, n_channels=n_channels
        )
        name = "validation_data[1]"
        check.check_labels(y_valid, classes, self.ignore_label, name=name, needs_one=True)
        if weight is not None:
            check_together(self.get_params(deep=False), weighted=True)
            counts = class_counts(y_valid, classes, weight)
            if not counts[weight.reshape(len(weight), -1).any(axis=1)].any():
                raise ValueError(f"validation_data[2] is 0 wherever {name} has labels")
        return X_valid, y_valid, weight

    def _dataset(
        self, X, y, sample_weight=None, rows=None, *, mean_weight=1.0
    ) -> SegmentationDataset:
        return SegmentationDataset(
            X,
            y,
            self.classes_,
            self.ignore_label,
            sample_weight=sample_weight,
            rows=rows,
            mean_weight=mean_weight,
        )

    @contextlib.contextmanager
    def _computing(self, rng: np.random.Generator) -> Iterator[None]:
        """Seed torch, set threads, denormals and gradients, and leave all of it as it was."""
        with (
            compute_settings(self.n_threads),
            random_numbers(int(rng.integers(2**31)), choose_device(self.device)),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield

    @contextlib.contextmanager
    def _unchanged_by_errors(self) -> Iterator[None]:
        """Leave all attributes as they were if something goes wrong."""
        before = dict(vars(self))
        with contextlib.ExitStack() as undo:
            undo.callback(vars(self).update, before)
            undo.callback(vars(self).clear)
            yield
            undo.pop_all()

    @contextlib.contextmanager
    def _undone_if_diverged(self, rng: np.random.Generator) -> Iterator[None]:
        """Give the net that there is its state back if its weights are no longer finite."""
        net, drawn = self.net_, rng.bit_generator.state
        weights = copy.deepcopy(net.module_.state_dict())
        moments = copy.deepcopy(net.optimizer_.state_dict())
        n_epochs = len(net.history)
        try:
            yield
        except FloatingPointError:
            net.module_.load_state_dict(weights)
            net.optimizer_.load_state_dict(moments)
            del net.history[n_epochs:]
            rng.bit_generator.state = drawn
            raise

    def _earlier_net(self, X, classes) -> SegmentationNet | None:
        """The net to go on from, if it fits what it is to be trained on now."""
        if not hasattr(self, "net_"):
            return None
        self._check_same_net("warm_start=True")
        if self.n_channels_in_ != check.count_channels(X) or not np.array_equal(
            self.classes_, classes
        ):
            raise ValueError(
                "warm_start=True needs the classes and the channels of the fit before: "
                f"classes {self.classes_.tolist()}, {self.n_channels_in_} channels"
            )
        return self.net_

    def _check_same_net(self, what: str) -> None:
        """Refuse to go on with a net that the parameters no longer describe."""
        for name in ARCHITECTURE:
            built, asked = getattr(self.net_, f"module__{name}"), getattr(self, name)
            if not np.array_equal(built, asked):
                raise ValueError(
                    f"{what} goes on with the net that there is, which has {name}={built!r}, not "
                    f"{asked!r}"
                )

    def _start(self, X, rows, classes, frequencies, class_weight) -> None:
        """Set the attributes that training needs, with a net that has not been trained."""
        self.device_ = choose_device(self.device)
        weights = class_weights(class_weight, classes, frequencies, self.max_class_weight)
        self.classes_, self.class_frequencies_, self.class_weight_ = classes, frequencies, weights
        self.n_channels_in_ = check.count_channels(X)
        self.mean_, self.scale_ = measure_scaling(X, rows)
        self.net_ = self._build_net()

    def _go_on_from(self, before: SegmentationNet) -> None:
        # Weights mean something only with the scaling that they were trained with.
        self.mean_ = self.net_.mean = before.mean
        self.scale_ = self.net_.scale = before.scale
        self.net_.module_.load_state_dict(before.module_.state_dict())
        self.net_.history = copy.copy(before.history)

    def _take_over_settings(self) -> None:
        """Train the net that there is as the parameters say now."""
        net = self.net_
        criterion = Criterion(self.loss, self.loss_params or {}, self.class_weight_)
        net.batch_size, net.criterion_ = self.batch_size, criterion.to(net.device)
        for group in net.optimizer_.param_groups:
            group["weight_decay"] = self.weight_decay

    def _move_net(self) -> None:
        """Let the net compute on the device and in the precision that the parameters name now."""
        net = self.net_
        with compute_settings(self.n_threads), torch.inference_mode(False), torch.enable_grad():
            device = choose_device(self.device)
            arithmetic = choose_arithmetic(device, self.precision)
            if (device, arithmetic) != (self.device_, net.arithmetic):
                net.move(device, arithmetic)
        self.device_, self.precision_ = device, arithmetic.precision

    def _place_net(self) -> None:
        """Move the net if the parameters name another device or precision than it has."""
        if self._is_placed():
            return
        # Threads that predict at the same time all come here.
        with _moving:
            if not self._is_placed():
                self._validate_params()
                self._move_net()

    def _is_placed(self) -> bool:
        is_there = choose_device(self.device) == self.device_
        # "auto" keeps to what it has chosen: with another number of threads it might differ.
        return is_there and self.precision in ("auto", self.precision_)

    def _build_net(self) -> SegmentationNet:
        net = make_net(
            self.get_params(deep=False),
            device=self.device_,
            mean=self.mean_,
            scale=self.scale_,
            n_channels=self.n_channels_in_,
            class_weight=self.class_weight_,
        )
        self.precision_ = net.arithmetic.precision
        self.n_parameters_ = sum(weight.numel() for weight in net.module_.parameters())
        return net

    def _restore_net(self, weights: dict[str, torch.Tensor]) -> None:
        """Build the net from the fitted attributes and give it its weights."""
        self.device_ = choose_device(self.device)
        with self._computing(np.random.default_rng()):
            self.net_ = self._build_net()
        self.net_.module_.load_state_dict(weights)
        self.net_.temperature = self.temperature_
        restore_history(self.net_, self.history_)

    def _train(self, train_set, valid_set, plan: Plan, rng: np.random.Generator) -> None:
        self.net_.use_compiler(self.compile != "auto" and bool(self.compile))
        augmenter = choose_augmenter(self.augmentation)
        augment = augmenter and augmenter.prepare(
            train_set, self.mean_, self.scale_, rng, n_earlier=len(self.net_.history)
        )
        self.best_epoch_ = train(
            self.net_,
            train_set,
            valid_set,
            plan,
            rng=rng,
            augment=augment,
            callbacks=self.callbacks or (),
            verbose=int(self.verbose),
        )
        self.history_ = history_rows(self.net_)
        self.net_.temperature = self.temperature_
        self.n_iter_ = len(self.history_)
