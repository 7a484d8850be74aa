"""Exponential moving average of a net's weights."""

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

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
        self._average = AveragedModel(module, multi_avg_fn=self._blend, use_buffers=True)
        self.module: nn.Module = self._average.module.eval()

    def update(self, module: nn.Module) -> None:
        """Take the weights after one more step into the average."""
        self._average.update_parameters(module)

    def _blend(self, average, weights, n_averaged) -> None:
        decay = min(self.decay, float((1 + n_averaged) / (10 + n_averaged)))
        get_ema_multi_avg_fn(decay)(average, weights, n_averaged)
