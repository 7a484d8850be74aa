"""Random changes of a whole batch of images, their targets and weights at once."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skmars._loss_inputs import weights_of_pixels
from skmars.batches import SegmentationDataset
from skmars.losses import IGNORE_INDEX

__all__ = [
    "Batch",
    "Transform",
    "adjust_intensity",
    "crop",
    "crop_and_resize",
    "flip",
    "mix_rectangles",
    "paste_regions",
]

# Types of devices that cannot compute in double precision.
NO_DOUBLES = frozenset({"mps"})


class Batch(NamedTuple):
    """What a training step sees."""

    images: Tensor
    """Floating point, `(n, C, H, W)`, in the units of the images as given."""
    target: Tensor
    """Indices of classes, int64 `(n, H, W)`; `IGNORE_INDEX` where there is none."""
    weight: Tensor | None
    """Of images `(n,)`, of pixels `(n, H, W)`, or none."""


Transform = Callable[[Batch, torch.Generator], Batch]


def _for_each_image(values: Tensor, like: Tensor) -> Tensor:
    """Shape values `(n,)` so that they spread over images `(n, ...)`, on their device."""
    return values.to(like.device).reshape(-1, *(1,) * (like.ndim - 1))


def _move(weight: Tensor | None, apply: Callable[[Tensor], Tensor]) -> Tensor | None:
    """Change weights of pixels as their pixels are; those of images stay."""
    return apply(weight) if weight is not None and weight.ndim == 3 else weight


def flip(dim: int) -> Transform:
    """Turn about half of the images over.

    Parameters
    ----------
    dim : {-1, -2}
        -1 swaps left and right, -2 top and bottom.
    """

    def turn(batch: Batch, generator: torch.Generator) -> Batch:
        chosen = torch.rand(len(batch.images), generator=generator) < 0.5

        def apply(tensor: Tensor) -> Tensor:
            return torch.where(_for_each_image(chosen, tensor), tensor.flip(dim), tensor)

        return Batch(apply(batch.images), apply(batch.target), _move(batch.weight, apply))

    return turn


def _draws(n: int, images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw some numbers in [0, 1) for each image, the same ones whatever the images' dtype is."""
    draws = torch.rand(n, len(images), generator=generator, dtype=torch.float64)
    return draws.to(images.dtype)


def adjust_intensity(
    brightness: float, contrast: tuple[float, float], scale: np.ndarray
) -> Transform:
    """Shift each image's intensity and stretch it around its mean.

    Parameters
    ----------
    brightness : float
        Largest shift, as a multiple of `scale`.
    contrast : tuple of two floats
        Ends of the range of factors that deviations from an image's mean are multiplied by.
    scale : ndarray of shape (n_channels,)
        Standard deviation of the images.
    """
    middle, half = (contrast[0] + contrast[1]) / 2, (contrast[1] - contrast[0]) / 2

    def adjust(batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.images
        draws = _draws(2, images, generator) * 2 - 1
        factor = _for_each_image(middle + half * draws[0], images)
        shift = _for_each_image(brightness * draws[1], images)
        unit = torch.as_tensor(scale, dtype=images.dtype, device=images.device).reshape(-1, 1, 1)
        # In one step over the pixels: factor * (image - mean) + mean + shift * unit.
        # The mean in double precision, so that it is the same in any memory layout.
        double = images.dtype if images.device.type in NO_DOUBLES else torch.float64
        mean = images.mean(dim=(2, 3), keepdim=True, dtype=double).to(images.dtype)
        offset = (1 - factor) * mean + shift * unit
        return batch._replace(images=torch.addcmul(offset, images, factor))

    return adjust


def crop(share: float) -> Transform:
    """Keep a random window of each image, all of one size.

    Parameters
    ----------
    share : float
        The window's sides, as a fraction of the image's, in (0, 1].
    """

    def cut(batch: Batch, generator: torch.Generator) -> Batch:
        sides = torch.tensor(batch.target.shape[1:])
        kept = (sides * share).round().int().clamp(min=1)
        draws = torch.rand(len(batch.target), 2, generator=generator, dtype=torch.float64)
        windows = [
            (..., slice(top, top + int(kept[0])), slice(left, left + int(kept[1])))
            for top, left in (draws * (sides - kept + 1)).int().tolist()
        ]

        def apply(tensor: Tensor) -> Tensor:
            parts = [values[window] for values, window in zip(tensor, windows, strict=True)]
            return torch.stack(parts)

        return Batch(apply(batch.images), apply(batch.target), _move(batch.weight, apply))

    return cut


def crop_and_resize(low: float, high: float, fill: np.ndarray) -> Transform:
    """Show a random window of each image at the size of the whole.

    Images are interpolated bilinearly, targets and weights by the nearest neighbour.

    Parameters
    ----------
    low, high : float
        Range of the window's sides, as a fraction of the image's. Beyond 1 the image shrinks; what
        it leaves is filled, and ignored in the target.
    fill : ndarray of shape (n_channels,)
        Intensity where there is no image.
    """

    def show(batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.images
        draws = _draws(3, images, generator)
        side = low + (high - low) * draws[0]
        centre = (1 - side).abs() * (2 * draws[1:] - 1)
        window = torch.zeros(len(images), 2, 3, dtype=images.dtype)
        window[:, 0, 0] = window[:, 1, 1] = side
        window[:, :, 2] = centre.T
        size = [len(images), 1, *images.shape[2:]]
        grid = F.affine_grid(window, size, align_corners=False).to(images.device)

        def sample(tensor: Tensor, mode: str) -> Tensor:
            return F.grid_sample(
                tensor, grid, mode=mode, padding_mode="border", align_corners=False
            )

        def nearest(tensor: Tensor) -> Tensor:
            picked = sample(tensor[:, None].to(images.dtype), "nearest")
            return picked[:, 0].to(tensor.dtype)

        shown, target = sample(images, "bilinear"), nearest(batch.target)
        if high > 1:
            outside = (grid.abs() > 1).any(dim=-1)
            empty = torch.as_tensor(fill, dtype=images.dtype, device=images.device)
            shown = torch.where(outside[:, None], empty.reshape(-1, 1, 1), shown)
            target = target.masked_fill(outside, IGNORE_INDEX)
        return Batch(shown, target, _move(batch.weight, nearest))

    return show


def mix_rectangles(probability: float) -> Transform:
    """Replace a rectangle of an image by what another image of the batch shows there.

    Its sides are a quarter to three quarters of the image's.

    Parameters
    ----------
    probability : float
        Of an image to get a rectangle.
    """

    def mix(batch: Batch, generator: torch.Generator) -> Batch:
        n, device = len(batch.target), batch.target.device
        draws = torch.rand(5, n, generator=generator, dtype=torch.float64)
        order = torch.randperm(n, generator=generator)
        # Each has the one before it in a random order: never itself, but in a batch of one.
        others = torch.empty_like(order)
        others[order] = order.roll(1)
        others = others.to(device)
        chosen = draws[0] < probability
        rows, columns = (
            _random_part(size, *draws[start : start + 2]).to(device)
            for size, start in zip(batch.target.shape[1:], (1, 3), strict=True)
        )
        inside = chosen.to(device)[:, None, None] & rows[:, :, None] & columns[:, None, :]

        def apply(tensor: Tensor) -> Tensor:
            mask = inside if tensor.ndim == 3 else inside[:, None]
            return torch.where(mask, tensor[others], tensor)

        images, target, weight = apply(batch.images), apply(batch.target), batch.weight
        if weight is not None:
            # An image's weight goes with its pixels.
            weight = apply(weights_of_pixels(weight, batch.target))
            # What was a whole image's weight may be 0 for a part of another now.
            target = target.masked_fill(weight == 0, IGNORE_INDEX)
        return Batch(images, target, weight)

    return mix


def _random_part(size: int, length: Tensor, place: Tensor) -> Tensor:
    """Mark, for draws in [0, 1) of `n` images, the pixels `(n, size)` of a part of an axis."""
    lengths = ((0.25 + 0.5 * length) * size).long()
    starts = (place * (size - lengths + 1)).long()
    pixels = torch.arange(size)
    return (pixels >= starts[:, None]) & (pixels < (starts + lengths)[:, None])


def paste_regions(probability: float, donors: SegmentationDataset, label: int) -> Transform:
    """Paste the regions of one class from other images.

    A region keeps its rows, since perspective ties size to height in the image, and moves
    sideways at random.

    Parameters
    ----------
    probability : float
        Of an image to get regions.
    donors : SegmentationDataset
        Images that show the class.
    label : int
        Index of the class.
    """

    def paste(batch: Batch, generator: torch.Generator) -> Batch:
        n, width = len(batch.images), batch.images.shape[-1]
        chosen = torch.nonzero(torch.rand(n, generator=generator) < probability)[:, 0]
        picks = torch.randint(len(donors), (n,), generator=generator)[chosen]
        shifts = torch.randint(width, (n, 1), generator=generator)[chosen]
        if not len(chosen):
            return batch
        images, (target, given) = donors[picks.numpy()]
        columns = (torch.arange(width) + shifts) % width
        images = images.to(batch.images.dtype)
        images = images.gather(3, columns[:, None, None].expand_as(images))
        places = columns[:, None].expand_as(target)
        region = target.gather(2, places) == label
        device = batch.images.device
        chosen, images, region = chosen.to(device), images.to(device), region.to(device)
        pasted, relabelled = batch.images.clone(), batch.target.clone()
        pasted[chosen] = torch.where(region[:, None], images, pasted[chosen])
        relabelled[chosen] = relabelled[chosen].masked_fill(region, label)
        weight = batch.weight
        if weight is not None and given is not None:
            # As in mixing, weights go with their pixels.
            given = weights_of_pixels(given, target).gather(2, places).to(device)
            weight = weights_of_pixels(weight, batch.target).clone()
            weight[chosen] = torch.where(region, given, weight[chosen])
            relabelled = relabelled.masked_fill(weight == 0, IGNORE_INDEX)
        return Batch(pasted, relabelled, weight)

    return paste
