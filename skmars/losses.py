"""Losses for semantic segmentation, as plain functions of logits and target.

Each takes `(logits, target, *, weight=None, ignore_index=None, sample_weight=None)` and its own
parameters, and returns a scalar:

- `logits`: `(n, K, H, W)`, any floating dtype; computed in float32 at least.
- `target`: `(n, H, W)` int64, values `0..K-1` or `ignore_index`.
- `weight`: `(K,)`, one weight for each class.
- `ignore_index`: pixels with this target get no gradient and nothing that is predicted there,
  not even an infinite logit, has any effect.
- `sample_weight`: `(n,)` for images or `(n, H, W)` for pixels, not negative.

A batch without a labelled pixel has the loss 0 and the gradient 0. `LOSSES` holds the functions
by name; to add a loss is to write one function and to enter it there.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from skmars._distances import signed_distances
from skmars._loss_inputs import prepare_inputs

__all__ = [
    "IGNORE_INDEX",
    "LOSSES",
    "CombinedLoss",
    "boundary_loss",
    "cross_entropy",
    "dice_loss",
    "focal_loss",
    "make_loss",
]

IGNORE_INDEX = -100


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Cross entropy, weighted by class and divided by the number of labelled pixels.

    .. math:: L = \frac{\sum_i s_i\, w_{y_i} (-\log p_{i, y_i})}{\sum_i s_i}

    over the labelled pixels i, with s the sample weights (1 if there are none). The divisor does
    not hold the class weights, unlike that of :class:`torch.nn.CrossEntropyLoss`: a batch rich
    in a heavy class counts more than one without it.

    Parameters
    ----------
    logits : Tensor of shape (n, K, H, W)
    target : int64 Tensor of shape (n, H, W)
    weight : Tensor of shape (K,), default=None
    ignore_index : int, default=None
    sample_weight : Tensor of shape (n,) or (n, H, W), default=None

    Returns
    -------
    Tensor
        A scalar, at least 0.

    Raises
    ------
    ValueError
        If shapes or values are other than described.

    Examples
    --------
    >>> import torch
    >>> from skmars.losses import cross_entropy
    >>> logits = torch.tensor([2.0, 0.0]).reshape(1, 2, 1, 1)
    >>> cross_entropy(logits, torch.tensor([[[0]]]), weight=torch.tensor([3.0, 1.0]))
    tensor(0.3808)
    """
    batch = prepare_inputs(logits, target, weight, ignore_index, sample_weight)
    nll = F.cross_entropy(batch.logits, batch.target, batch.weight, reduction="none")
    return _mean(nll, batch.pixel_weight)


def focal_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    sample_weight: Tensor | None = None,
    gamma: float = 2.0,
) -> Tensor:
    r"""Focal loss [1]_: cross entropy in which well classified pixels count less.

    .. math:: L = \frac{\sum_i s_i\, w_{y_i} (1 - p_{i, y_i})^\gamma (-\log p_{i, y_i})}
              {\sum_i s_i}

    The class weights are the alpha of the paper. With `gamma=0` it is `cross_entropy`.

    Parameters
    ----------
    logits : Tensor of shape (n, K, H, W)
    target : int64 Tensor of shape (n, H, W)
    weight : Tensor of shape (K,), default=None
    ignore_index : int, default=None
    sample_weight : Tensor of shape (n,) or (n, H, W), default=None
    gamma : float in [0, inf), default=2.0
        How strongly the loss turns to the pixels that are hard to classify.

    Returns
    -------
    Tensor
        A scalar, at least 0.

    Raises
    ------
    ValueError
        If shapes or values are other than described.

    References
    ----------
    .. [1] Lin, T.-Y., Goyal, P., Girshick, R., He, K., Dollár, P. (2017). Focal loss for dense
       object detection. ICCV, 2980-2988.

    Examples
    --------
    >>> import torch
    >>> from skmars.losses import focal_loss
    >>> logits = torch.tensor([2.0, 0.0]).reshape(1, 2, 1, 1)
    >>> focal_loss(logits, torch.tensor([[[0]]]), gamma=2.0)
    tensor(0.0018)
    """
    _check_not_negative("gamma", gamma)
    batch = prepare_inputs(logits, target, weight, ignore_index, sample_weight)
    nll = F.cross_entropy(batch.logits, batch.target, reduction="none")
    # Kept off 0, where the derivative of a power below 1 is infinite.
    p_wrong = (-torch.expm1(-nll)).clamp_min(torch.finfo(nll.dtype).tiny)
    return _mean(batch.weight[batch.target] * p_wrong**gamma * nll, batch.pixel_weight)


def dice_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    sample_weight: Tensor | None = None,
    smooth: float = 1.0,
) -> Tensor:
    r"""Soft Dice loss of each class over the whole batch, averaged over classes.

    As in V-Net [1]_, but without squares in the denominator; the generalised Dice loss [2]_ takes
    one ratio of weighted sums over the classes instead of their mean.

    .. math:: D_c = \frac{2 \sum_i s_i\, p_{ic}\, g_{ic} + \epsilon}
              {\sum_i s_i\, p_{ic} + \sum_i s_i\, g_{ic} + \epsilon}, \qquad
              L = \frac{\sum_c w_c (1 - D_c)}{\sum_c w_c}

    over the labelled pixels i; g is 1 for the true class and 0 for the others, and
    :math:`\epsilon` is `smooth`. A class that no pixel of the batch has is not left out: what is
    predicted of it costs. A class neither true nor predicted has D = 1.

    Parameters
    ----------
    logits : Tensor of shape (n, K, H, W)
    target : int64 Tensor of shape (n, H, W)
    weight : Tensor of shape (K,), default=None
    ignore_index : int, default=None
    sample_weight : Tensor of shape (n,) or (n, H, W), default=None
    smooth : float in [0, inf), default=1.0
        In pixels. With 0, a class absent from the batch costs as much however little of it is
        predicted, and so gives no gradient.

    Returns
    -------
    Tensor
        A scalar in [0, 1].

    Raises
    ------
    ValueError
        If shapes or values are other than described.

    References
    ----------
    .. [1] Milletari, F., Navab, N., Ahmadi, S.-A. (2016). V-Net: Fully convolutional neural
       networks for volumetric medical image segmentation. 3DV, 565-571.
    .. [2] Sudre, C. H., Li, W., Vercauteren, T., Ourselin, S., Cardoso, M. J. (2017). Generalised
       Dice overlap as a deep learning loss function for highly unbalanced segmentations. DLMIA,
       240-248.

    Examples
    --------
    >>> import torch
    >>> from skmars.losses import dice_loss
    >>> dice_loss(torch.zeros(1, 2, 1, 1), torch.tensor([[[0]]]), smooth=0.0)
    tensor(0.6667)
    """
    _check_not_negative("smooth", smooth)
    batch = prepare_inputs(logits, target, weight, ignore_index, sample_weight)
    pixel_weight = batch.pixel_weight.unsqueeze(1)
    predicted = pixel_weight * batch.logits.softmax(1)
    classes = torch.arange(logits.shape[1], device=logits.device).view(1, -1, 1, 1)
    truth = batch.target.unsqueeze(1) == classes
    pixels = (0, 2, 3)
    overlap = 2 * (predicted * truth).sum(pixels)
    total = predicted.sum(pixels) + (pixel_weight * truth).sum(pixels)
    # 1 - D, in a form that is 0 and not 0/0 where a class is neither true nor predicted.
    divisor = total + smooth
    is_absent = divisor < torch.finfo(divisor.dtype).tiny
    loss = (total - overlap) / divisor.masked_fill(is_absent, 1)
    loss = loss.masked_fill(is_absent, 0)
    return (batch.weight * loss).sum() / _nonzero(batch.weight.sum())


def boundary_loss(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int | None = None,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Boundary loss [1]_: probability times signed distance to the true region, for K classes.

    .. math:: L = \frac{\sum_i s_i \sum_c w_c\, \phi_c(i)\, p_{ic}}{\sum_i s_i}

    over the labelled pixels i. :math:`\phi_c` is the Euclidean distance to the region of class
    c, divided by the image's diagonal: outside of the region the distance to its nearest pixel,
    inside minus the distance to the nearest labelled pixel of another class. It is 1 everywhere
    if the image has no pixel of class c, and -1 if all of its labelled pixels are of class c.
    Unlabelled pixels belong to no region.

    The farther a pixel is from the boundary that should separate it from the class predicted,
    the more it costs. Close to the boundary the gradient is small, so the loss is meant to be
    added to another, as in "focal+boundary".

    Parameters
    ----------
    logits : Tensor of shape (n, K, H, W)
    target : int64 Tensor of shape (n, H, W)
    weight : Tensor of shape (K,), default=None
    ignore_index : int, default=None
    sample_weight : Tensor of shape (n,) or (n, H, W), default=None

    Returns
    -------
    Tensor
        A scalar, in [-1, 1] without class weights.

    Raises
    ------
    ValueError
        If shapes or values are other than described.

    References
    ----------
    .. [1] Kervadec, H., Bouchtiba, J., Desrosiers, C., Granger, E., Dolz, J., Ben Ayed, I.
       (2019). Boundary loss for highly unbalanced segmentation. MIDL, PMLR 102, 285-296.

    Examples
    --------
    >>> import torch
    >>> from skmars.losses import boundary_loss
    >>> target = torch.tensor([[[0, 0, 1, 1]]])
    >>> right = 20 * torch.stack([1 - target, target], dim=1).float()
    >>> boundary_loss(right, target) < boundary_loss(-right, target)
    tensor(True)
    """
    batch = prepare_inputs(logits, target, weight, ignore_index, sample_weight)
    maps = signed_distances(target.cpu().numpy(), logits.shape[1], ignore_index)
    weighted = batch.weight.view(1, -1, 1, 1) * torch.from_numpy(maps).to(batch.logits)
    terms = weighted * batch.logits.softmax(1)
    return _mean(terms.sum(1), batch.pixel_weight)


Loss = Callable[..., Tensor]

LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "focal": focal_loss,
    "dice": dice_loss,
    "boundary": boundary_loss,
}


@dataclass(frozen=True)
class _Term:
    weight: float
    function: Loss
    params: dict[str, Any]


@dataclass(frozen=True)
class CombinedLoss:
    """A weighted sum of losses, called as each of them is; made by `make_loss`."""

    terms: tuple[_Term, ...]

    def __call__(
        self,
        logits: Tensor,
        target: Tensor,
        *,
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """Return the sum over the terms, each times its weight."""
        values = [
            term.weight
            * term.function(
                logits,
                target,
                weight=weight,
                ignore_index=ignore_index,
                sample_weight=sample_weight,
                **term.params,
            )
            for term in self.terms
        ]
        return torch.stack(values).sum()


def make_loss(loss: str, **params: Any) -> CombinedLoss:
    """Build a loss from a name, or from several joined by "+".

    Parameters
    ----------
    loss : str
        Names from `LOSSES`, as "focal" or "cross_entropy+dice+boundary".
    **params
        Parameters of the losses by keyword (`gamma`, `smooth`), and `<name>_weight` (by
        default 1.0, in [0, inf)) for the weight of a term in the sum.

    Returns
    -------
    CombinedLoss
        Called as the losses themselves are. Can be pickled.

    Raises
    ------
    ValueError
        If a name is unknown or comes twice, a parameter belongs to no term, or a value is out of
        its range.

    Examples
    --------
    >>> import torch
    >>> from skmars.losses import make_loss
    >>> loss = make_loss("focal+dice", gamma=1.0, dice_weight=0.5)
    >>> loss(torch.zeros(1, 2, 1, 1), torch.tensor([[[0]]]))
    tensor(0.4799)
    """
    names = _parse(loss)
    term_weights = {f"{name}_weight" for name in names}
    own = {name: _own_parameters(LOSSES[name]) for name in names}
    accepted = term_weights.union(*own.values())
    if unknown := sorted(set(params) - accepted):
        raise ValueError(f"loss {loss!r} takes the parameters {sorted(accepted)}; got {unknown}")

    terms = []
    for name in names:
        term_weight = params.get(f"{name}_weight", 1.0)
        _check_not_negative(f"{name}_weight", term_weight)
        values = {key: params[key] for key in own[name] if key in params}
        terms.append(_Term(float(term_weight), LOSSES[name], values))
    combined = CombinedLoss(tuple(terms))
    # Each loss checks its own parameters; one pixel has them checked here, not in training.
    combined(
        torch.zeros(1, 2, 1, 1, device="cpu"),
        torch.zeros(1, 1, 1, dtype=torch.int64, device="cpu"),
    )
    return combined


def _parse(loss: str) -> list[str]:
    names = [name.strip() for name in loss.split("+")] if isinstance(loss, str) else [loss]
    if unknown := [name for name in names if name not in LOSSES]:
        raise ValueError(
            f"loss must be one of {list(LOSSES)}, or several joined by '+'; "
            f"got {unknown[0]!r} in {loss!r}"
        )
    if len(set(names)) < len(names):
        raise ValueError(
            f"each loss can be named once; got {loss!r}. Use <name>_weight to weight a term."
        )
    return names


def _own_parameters(function: Loss) -> set[str]:
    """Return what a loss takes besides what every loss takes."""
    parameters = inspect.signature(function).parameters.values()
    keywords = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    return keywords - {"weight", "ignore_index", "sample_weight"}


def _check_not_negative(name: str, value: Any) -> None:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0 <= float(value) < math.inf:
        raise ValueError(f"{name} must be a finite number of at least 0; got {value!r}")


def _mean(values: Tensor, pixel_weight: Tensor) -> Tensor:
    return (values * pixel_weight).sum() / _nonzero(pixel_weight.sum())


def _nonzero(divisor: Tensor) -> Tensor:
    return torch.where(divisor == 0, torch.ones_like(divisor), divisor)
