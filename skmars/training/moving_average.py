"""Exponential moving average of a net's weights."""

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["MovingAverage"]


class MovingAverage:
    """Average of a module's weights and running statistics over the steps of its training [1]_.

    The first steps have less inertia, so that the initial weights are soon forgotten.

    Parameters
    ----------
    module : Module
        What is trained.
    decay : float
        Share that the former average has in the next one, in [0, 1).

    Attributes
    ----------
    module : Module
        A copy with the average, in evaluation mode.

    References
    ----------
    .. [1] Polyak, B. T., Juditsky, A. B. (1992). Acceleration of stochastic approximation by
       averaging. SIAM Journal on Control and Optimization, 30(4), 838-855.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.module: nn.Module = copy.deepcopy(module).eval()
        self._n_updates = 0
        # AveragedModel walks through both modules at each step, which takes longer than averaging.
        self._averages, self._averaged_counters = _floating_and_counters(self.module)
        self._weights, self._counters = _floating_and_counters(module)

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights after one more step into the average."""
        n = self._n_updates
        decay = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        get_ema_multi_avg_fn(decay)(self._averages, self._weights, n)
        for average, counter in zip(self._averaged_counters, self._counters, strict=True):
            average.copy_(counter)
        self._n_updates += 1


def _floating_and_counters(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and running statistics of a module, and its buffers of integers."""
    values = [value.detach() for value in (*module.parameters(), *module.buffers())]
    floating = [value for value in values if value.is_floating_point()]
    return floating, [value for value in values if not value.is_floating_point()]
