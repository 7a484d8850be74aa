"""Temperature scaling: one number that calibrates a net's probabilities."""

import math

import torch
from scipy.optimize import minimize_scalar
from skorch.callbacks import Callback
from torch import Tensor
from torch.nn import functional as F

from skmars._loss_inputs import weights_of_pixels
from skmars.losses import IGNORE_INDEX

__all__ = ["TemperatureScaling", "best_temperature"]

# A temperature outside of these says that there was nothing to learn it from.
LOWEST, HIGHEST = 0.05, 20.0
# Neighbouring pixels say the same: so many of an image tell as much as all of them.
PIXELS_AN_IMAGE = 1024


def best_temperature(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> float:
    """Temperature by which logits are divided for the lowest cross entropy [1]_.

    The order of the classes stays as it is, and so does every label that is predicted.

    Parameters
    ----------
    logits : Tensor of shape (n, K)
    target : int64 Tensor of shape (n,)
        True classes, of images that the net was not trained on.
    weight : Tensor of shape (n,), default=None
        Weights, at least 0.

    Returns
    -------
    temperature : float
        In [0.05, 20]; 1.0 if there is no pixel with a weight.

    References
    ----------
    .. [1] Guo, C., Pleiss, G., Sun, Y., Weinberger, K. Q. (2017). On calibration of modern neural
       networks. ICML, PMLR 70, 1321-1330.

    Examples
    --------
    >>> import torch
    >>> from skmars.training.temperature import best_temperature
    >>> logits = torch.tensor([[4.0, 0.0]]).repeat(4, 1)
    >>> round(best_temperature(logits, torch.tensor([0, 0, 0, 1])), 2)  # 4 / log(3)
    3.64
    """
    weight = torch.ones(len(target)) if weight is None else weight.float().cpu()
    total = float(weight.sum())
    if total == 0:
        return 1.0
    logits, target = logits.float().cpu(), target.cpu()

    def cross_entropy(log_temperature: float) -> float:
        losses = F.cross_entropy(logits * math.exp(-log_temperature), target, reduction="none")
        return float(losses @ weight) / total

    bounds = (math.log(LOWEST), math.log(HIGHEST))
    found = minimize_scalar(cross_entropy, bounds=bounds, options={"xatol": 1e-3})
    return math.exp(found.x)


class TemperatureScaling(Callback):
    """Record the best temperature of each epoch, from the logits that it is validated on."""

    def on_epoch_begin(self, net, **kwargs):
        """Start without a pixel."""
        self.parts_ = []

    def on_batch_end(self, net, batch=None, training=False, y_pred=None, **kwargs):
        """Take some pixels of a validation batch."""
        if training:
            return
        target, weight = batch[1]
        chosen = (target != IGNORE_INDEX).flatten().nonzero()[:, 0]
        # Of a pixel that stands for others.
        counts_for = max(1.0, len(chosen) / (PIXELS_AN_IMAGE * len(target)))
        if counts_for > 1:
            # By chance, as equal steps can keep to a few columns of the image; the same each time.
            draws = torch.Generator().manual_seed(0)
            n = PIXELS_AN_IMAGE * len(target)
            chosen = chosen[torch.randint(len(chosen), (n,), generator=draws)]
        pixels = y_pred.movedim(1, -1).flatten(0, -2)[chosen.to(y_pred.device)].cpu()
        weights = torch.full((len(chosen),), counts_for)
        if weight is not None:
            weights *= weights_of_pixels(weight, target).flatten()[chosen].cpu()
        self.parts_.append((pixels, target.flatten()[chosen], weights))

    def on_epoch_end(self, net, **kwargs):
        """Record the temperature of the epoch."""
        logits, target, weights = map(torch.cat, zip(*self.parts_, strict=True))
        temperature = best_temperature(logits, target, weights)
        net.history.record("temperature", temperature)
        self.parts_ = []
