"""From images to labels or probabilities, a batch at a time."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skmars import _validation as check
from skmars.batches import channels_first
from skmars.device import compute_settings
from skmars.prediction.windows import Windows, blend, check_window, equal_batches
from skmars.training.net import SegmentationNet

__all__ = [
    "PredictionMixin",
    "Settings",
    "coarsest_grid",
    "most_probable",
    "probability_predictor",
    "sample_pixels",
    "warn_of_other_scale",
]

# Images `(n, C, h, w)` to logits.
Infer = Callable[[Tensor], Tensor]

# Images of 8 bits instead of fractions vary 255 times as much; scenes differ by far less.
OTHER_SCALE = 50.0

# So many images are looked at for their scale.
N_SAMPLES = 8

EVERYWHERE = (slice(None), slice(None))


class Settings(NamedTuple):
    """How images are predicted."""

    batch_size: int
    """Images or windows at once, fewer if they are large."""
    tta: bool
    """Whether to take the mean over an image and its mirror image."""
    window: Sequence[int] | None
    """Height and width of the windows, or None for whole images."""
    overlap: float
    """Fraction of a window's sides that it has in common with the next."""


class PredictionMixin:
    """Prediction of images in memory, for an estimator with a net and a segmenter's parameters."""

    batch_size: int
    classes_: np.ndarray
    n_threads: int | str
    net_: SegmentationNet
    overlap: float
    tta: bool
    window: Sequence[int] | None
    _checked: Callable[..., Any]
    _place_net: Callable[[], None]

    def predict(self, X):
        """Label each pixel with its most probable class.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C), or list of (H, W) or (H, W, C) arrays
            Images of any size, which may differ within a list.

        Returns
        -------
        y : ndarray of shape (n, H, W), or list of (H, W) arrays
            Labels as in `classes_`.

        Raises
        ------
        TypeError, ValueError
            If the images are not as described, or have intensities so far from those of the
            training that the net gives no finite numbers.

        Warns
        -----
        UserWarning
            If the images vary 50 times as much as those of the training, or a fiftieth with no
            intensity above 1: they are on another scale then. Looked at are eight of them or all,
            but for constant ones.
        """
        check_is_fitted(self)
        images = self._checked(X)
        with compute_settings(self.n_threads):
            labels = _allocate(images, (), self.classes_.dtype)
            for places, region, scores in _scores(self.net_, images, self._settings()):
                for place, mask in zip(places, most_probable(scores, self.classes_), strict=True):
                    labels[place][region] = mask
        return labels

    def predict_proba(self, X):
        """Probability of each class at each pixel.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C), or list of (H, W) or (H, W, C) arrays
            Images of any size, which may differ within a list.

        Returns
        -------
        p : ndarray of shape (n, n_classes, H, W), or list of (n_classes, H, W) arrays
            float32, in the order of `classes_`; they sum to 1 over the classes.

        Warns
        -----
        UserWarning
            As `predict` does.
        """
        check_is_fitted(self)
        images = self._checked(X)
        with compute_settings(self.n_threads):
            p = _allocate(images, (len(self.classes_),), np.dtype(np.float32))
            parts = _scores(self.net_, images, self._settings(), normalised=True)
            for places, region, scores in parts:
                for place, values in zip(places, scores.cpu().numpy(), strict=True):
                    p[place][:, *region] = values
        return p

    def _settings(self) -> Settings:
        """How the parameters say to predict; the net is where they say then."""
        self._place_net()
        return Settings(self.batch_size, self.tta, self.window, self.overlap)


def most_probable(scores: Tensor, classes: np.ndarray) -> np.ndarray:
    """Labels `(n, H, W)` of logits or probabilities `(n, n_classes, H, W)`."""
    # Many times faster where a pixel's scores lie side by side, even if they have to be moved.
    scores = scores.contiguous(memory_format=torch.channels_last)
    return classes[scores.argmax(dim=1).cpu().numpy()]


def coarsest_grid(net: SegmentationNet) -> int:
    """Pixels that one place of the net's bottleneck stands for, along either axis."""
    return net.module_.patch_size * 2 ** len(net.module_.encoder)


def probability_predictor(infer: Infer, tta: bool) -> Callable[[np.ndarray], Tensor]:
    """The function of images `(n, h, w)` or `(n, h, w, C)` that gives their probabilities."""

    def predict(images: np.ndarray) -> Tensor:
        outputs = _outputs(infer, images, tta)
        return outputs if tta else outputs.softmax(dim=1)

    return predict


def _allocate(images: np.ndarray | list[np.ndarray], leading: tuple[int, ...], dtype: np.dtype):
    if isinstance(images, np.ndarray):
        return np.empty((len(images), *leading, *images.shape[1:3]), dtype)
    return [np.empty((*leading, *image.shape[:2]), dtype) for image in images]


def _scores(
    net: SegmentationNet,
    images: np.ndarray | list[np.ndarray],
    settings: Settings,
    *,
    normalised: bool = False,
) -> Iterator[tuple[Sequence[int], tuple[slice, slice], Tensor]]:
    """Indices of images, a region, and its logits or probabilities there, until all have come."""
    window, grid = settings.window, coarsest_grid(net)
    check_window(window, settings.overlap, grid)
    # The level of whoever has called the estimator's method.
    warn_of_other_scale(sample_pixels(images), net.scale, stacklevel=4)
    whole: dict[tuple, list[int]] = {}
    larger: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        size = image.shape[:2]
        if window is None or (size[0] <= window[0] and size[1] <= window[1]):
            whole.setdefault((image.shape, image.dtype), []).append(place)
        else:
            larger.setdefault(size, []).append(place)
    infer = net.predictor()
    predict = probability_predictor(infer, settings.tta)
    for places in whole.values():
        height, width = images[places[0]].shape[:2]
        for batch in equal_batches(places, settings.batch_size, height * width):
            stacked = np.stack([images[place] for place in batch])
            # The highest logit is the highest probability, and cheaper.
            outputs = predict(stacked) if normalised else _outputs(infer, stacked, settings.tta)
            yield batch, EVERYWHERE, outputs
    if window is None:
        return
    order = [place for places in larger.values() for place in places]
    covers = {size: Windows(size, window, settings.overlap, grid) for size in larger}
    for block in blend(
        [images[place] for place in order],
        [covers[images[place].shape[:2]] for place in order],
        predict,
        settings.batch_size,
    ):
        yield [order[block.image]], (block.rows, block.columns), block.probabilities[None]


def sample_pixels(images: np.ndarray | list[np.ndarray]) -> list[np.ndarray]:
    """Some pixels of some images, for `warn_of_other_scale`."""
    return [check.thinned(images[k]) for k in check.spread_out(len(images), N_SAMPLES)]


def warn_of_other_scale(
    samples: Iterable[np.ndarray], scale: np.ndarray, *, stacklevel: int
) -> None:
    """Warn if intensities are not of the units that the training had.

    Parameters
    ----------
    samples : iterable of ndarray
        Pixels of some images, with the channels last if there are several. Constant ones say
        nothing; all others have to be on another scale.
    scale : ndarray of shape (C,)
        Standard deviation of each channel of the training images.
    stacklevel : int
        As in `warnings.warn`.
    """
    spread = np.nan
    for sample in samples:
        if sample.size == 0 or sample.min() == sample.max():
            continue
        # Of numbers near the largest, the square is infinite.
        with np.errstate(over="ignore"):
            own = sample.reshape(-1, len(scale)).std(axis=0, dtype=np.float64)
        spread = float(np.median(own / scale))
        are_fractions = scale.max() > 1 and spread < 1 / OTHER_SCALE and np.abs(sample).max() <= 1
        if not are_fractions and spread <= OTHER_SCALE:
            return
    if not np.isnan(spread):
        # Without figures, which would tell the same anew for each part of the images.
        how = "over 50 times" if spread > 1 else "less than a fiftieth of"
        warnings.warn(
            f"the images have {how} the standard deviation of the training images: give "
            "intensities on the same scale",
            UserWarning,
            stacklevel=stacklevel,
        )


def _outputs(infer: Infer, images: np.ndarray, tta: bool) -> Tensor:
    """Logits of images, or mean probabilities over them and their mirror images."""
    with torch.inference_mode():
        outputs = infer(channels_first(images))
        if tta:
            # In numpy, since torch cannot flip every dtype that images may have.
            mirrored = infer(channels_first(np.flip(images, axis=2).copy()))
            outputs = (outputs.softmax(dim=1) + mirrored.softmax(dim=1).flip(3)) / 2
        # A sum takes one pass, and is as finite as its numbers.
        if not outputs.sum().isfinite():
            raise ValueError(
                "the net's outputs are not finite: some intensities are too far from those of the "
                "training images. Fill pixels without data with a value like the others', such as "
                "their median, or give predict_large their value as nodata"
            )
        return outputs
