"""Clocks that tests turn by hand."""

import time

from skorch.callbacks import Callback

from skmars.device import choose_arithmetic, choose_device, compute_settings


class Clock:
    """Stands still until it is advanced; takes the place of such as `time.perf_counter`."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


class Duration(Callback):
    """Let each batch of a fit take its time by a clock."""

    def __init__(self, clock, training, validation=0.0):
        self.clock = clock
        self.training = training
        self.validation = validation

    def __sklearn_clone__(self):
        # Clones of a segmenter share the clock.
        return self

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        self.clock.advance(self.training if training else self.validation)


def take_over_time(monkeypatch):
    """A clock in place of `time.perf_counter`, by which time limits of trainings count."""
    with compute_settings(1):
        # By the true clock, since the process remembers what it has measured.
        choose_arithmetic(choose_device("auto"), "float32")
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock
