"""Random changes of the training images: on every batch anew, or as copies in a Pipeline."""

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval
from torch import Tensor

from skmars import _validation as check
from skmars._tags import ImageInputMixin
from skmars.batches import SegmentationDataset, measure_scaling
from skmars.losses import IGNORE_INDEX
from skmars.model_selection import class_counts
from skmars.transforms import (
    Batch,
    Transform,
    adjust_intensity,
    crop,
    crop_and_resize,
    flip,
    mix_rectangles,
    paste_regions,
)

__all__ = ["Augmentation", "Augmenter", "choose_augmenter"]

# Copies are made of so many numbers at a time: 64 grey images of 64x128.
NUMBERS_AT_ONCE = 2**19


class Augmenter(ImageInputMixin, BaseEstimator):
    """Random flips, intensity, crops, pasted and mixed regions, for images and masks together.

    Given to `MarsSegmenter(augmentation=...)` it changes every training batch anew. As a step of
    an `imblearn.pipeline.Pipeline` it appends changed copies to the training data, and is
    skipped at prediction. Masks are changed with their images, by the nearest neighbour, so
    that no label appears that was not there, but `ignore_label` where a copy shows nothing.

    Parameters
    ----------
    horizontal_flip : bool, default=True
        Whether to swap left and right in half of the images.
    vertical_flip : bool, default=False
        Whether to swap top and bottom in half of the images.
    brightness : float, default=0.0
        Largest shift of an image's intensity, up or down, in standard deviations of the
        training images; at least 0.
    contrast : float or tuple of two floats, default=0.0
        Range of a factor of the deviations from an image's mean, at least 0; a single number in
        [0, 1] stands for (1 - `contrast`, 1 + `contrast`).
    crop_scale : float or tuple of two floats, default=1.0
        Range of the sides of a random window, as a fraction of the image's sides, that is resized
        to the whole; a single number is the end of a range that begins at 1. Above 0. A window
        beyond the image (above 1) shows the image smaller; what it leaves has the mean
        intensity and no label.
    random_crop : float, default=1.0
        Sides of a random window, as a fraction of the image's sides, in (0, 1]: all that a
        training step sees of an image, at its own size. A step then takes less time. Only within
        training.
    paste_rare_class : float, default=0.0
        Probability, in [0, 1], that an image gets regions of the rarest class from another image
        of the training set, with their rows kept and moved sideways (as in the simple copy-paste
        of [1]_). The rarest class is the one with the fewest pixels.
    cutmix : float, default=0.0
        Probability, in [0, 1], that a rectangle of an image, with a quarter to three quarters of
        its sides, shows what another image of the batch has there (as CutMix [2]_,
        with the mask instead of mixed labels).
    n_copies : int, default=1
        Changed copies of each image that `fit_resample` appends, at least 0. Has no meaning
        within training.
    ignore_label : int or None, default=None
        Label that is no class: never pasted, and given to pixels of a copy that show nothing.
        `fit_resample` needs it if `crop_scale` exceeds 1, and the segmenter that is trained on the
        copies needs the same; within training it is the segmenter's.
    random_state : int, RandomState instance or None, default=None
        Seeds the changes. Within training None follows the segmenter's `random_state`.

    Attributes
    ----------
    n_channels_in_ : int
        Channels of the images.
    mean_, scale_ : ndarray of shape (n_channels,)
        Mean and standard deviation of the images.
    sample_indices_ : ndarray of shape (n_resampled,)
        For each image that `fit_resample` returned, the index of the one it is or comes from.

    References
    ----------
    .. [1] Ghiasi, G., et al. (2021). Simple copy-paste is a strong data augmentation method for
       instance segmentation. CVPR.
    .. [2] Yun, S., et al. (2019). CutMix: Regularization strategy to train strong classifiers
       with localizable features. ICCV.

    Examples
    --------
    >>> from skmars import Augmenter
    >>> from skmars.datasets import make_terrain
    >>> X, y = make_terrain(10, random_state=0)
    >>> augmenter = Augmenter(brightness=0.2, crop_scale=0.8, random_state=0)
    >>> X_more, y_more = augmenter.fit_resample(X, y)
    >>> X_more.shape, X_more.dtype, y_more.shape
    ((20, 64, 128), dtype('uint8'), (20, 64, 128))
    """

    _parameter_constraints: dict = {
        "horizontal_flip": ["boolean"],
        "vertical_flip": ["boolean"],
        "brightness": [Interval(Real, 0, None, closed="left")],
        "contrast": [Interval(Real, 0, 1, closed="both"), tuple, list],
        "crop_scale": [Interval(Real, 0, None, closed="neither"), tuple, list],
        "random_crop": [Interval(Real, 0, 1, closed="right")],
        "paste_rare_class": [Interval(Real, 0, 1, closed="both")],
        "cutmix": [Interval(Real, 0, 1, closed="both")],
        "n_copies": [Interval(Integral, 0, None, closed="left")],
        "ignore_label": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        horizontal_flip=True,
        vertical_flip=False,
        brightness=0.0,
        contrast=0.0,
        crop_scale=1.0,
        random_crop=1.0,
        paste_rare_class=0.0,
        cutmix=0.0,
        n_copies=1,
        ignore_label=None,
        random_state=None,
    ):
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.brightness = brightness
        self.contrast = contrast
        self.crop_scale = crop_scale
        self.random_crop = random_crop
        self.paste_rare_class = paste_rare_class
        self.cutmix = cutmix
        self.n_copies = n_copies
        self.ignore_label = ignore_label
        self.random_state = random_state

    def fit(self, X, y):
        """Learn the images' scale and the rarest class.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C)
            Images of any integer or floating dtype.
        y : array-like of shape (n, H, W)
            Masks of integer labels.

        Returns
        -------
        self : Augmenter

        Raises
        ------
        TypeError, ValueError
            If a parameter, the images or the masks are not as described.
        """
        self._learn(X, y)
        return self

    def fit_resample(self, X, y):
        """Append changed copies of the images and their masks.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C)
            Images of any integer or floating dtype. Integers are rounded and kept in the
            dtype's range.
        y : array-like of shape (n, H, W)
            Masks of integer labels.

        Returns
        -------
        X_resampled : ndarray of shape (n * (1 + n_copies), H, W) or (..., H, W, C)
            The images as they are, then each set of copies in the same order, of the same
            dtype. X itself if `n_copies` is 0.
        y_resampled : ndarray of shape (n * (1 + n_copies), H, W)
            Their masks.

        Raises
        ------
        TypeError, ValueError
            If a parameter, the images or the masks are not as described.
        """
        X, y, dataset = self._learn(X, y)
        n = len(X)
        self.sample_indices_ = np.tile(np.arange(n), 1 + self.n_copies)
        if self.n_copies == 0:
            return X, y
        if self.random_crop != 1:
            raise ValueError(
                f"random_crop={self.random_crop} makes smaller images, which fit_resample cannot "
                "append; use it as MarsSegmenter(augmentation=...)"
            )
        if self._crop_range()[1] > 1:
            self._check_ignore_label(y.dtype)
        augment = self.prepare(dataset, self.mean_, self.scale_, self._rng)
        X_more = np.empty((len(self.sample_indices_), *X.shape[1:]), X.dtype)
        y_more = np.empty((len(self.sample_indices_), *y.shape[1:]), y.dtype)
        X_more[:n], y_more[:n] = X, y
        # At least two, if there are, of which one can be mixed into the other.
        at_once = max(2, NUMBERS_AT_ONCE // X[0].size)
        n_parts = max(1, (len(X_more) - n) // at_once)
        for part in np.array_split(np.arange(n, len(X_more)), n_parts):
            images, (target, _) = dataset[self.sample_indices_[part]]
            # In double precision, in which every pixel of the usual dtypes is exact.
            batch = augment(Batch(images.double(), target, None))
            X_more[part] = _as_images(batch.images, X)
            y_more[part] = dataset.classes[np.maximum(batch.target.numpy(), 0)]
            ignored = batch.target.numpy() == IGNORE_INDEX
            if ignored.any():
                y_more[part] = np.where(ignored, self.ignore_label, y_more[part])
        return X_more, y_more

    def prepare(
        self,
        dataset: SegmentationDataset,
        mean: np.ndarray,
        scale: np.ndarray,
        rng: np.random.Generator,
        *,
        n_earlier: int = 0,
    ) -> "Augmentation":
        """Make the function that changes batches of a data set.

        Parameters
        ----------
        dataset : SegmentationDataset
            What is trained on; regions are pasted from it.
        mean, scale : ndarray of shape (n_channels,)
            Mean and standard deviation of its images.
        rng : numpy.random.Generator
            Seeds the changes if `random_state` is None.
        n_earlier : int, default=0
            Epochs of earlier fits that this one goes on from, so that an integer `random_state`
            does not make the same changes again.

        Returns
        -------
        augment : Augmentation
            A function of a `Batch`, which gives another.

        """
        low, high = self._crop_range()
        transforms: list[Transform] = []
        # Pasting comes first, so that what is pasted is changed with the rest.
        if self.paste_rare_class:
            transforms.append(_paste_rarest(self.paste_rare_class, dataset))
        if self.horizontal_flip:
            transforms.append(flip(-1))
        if self.vertical_flip:
            transforms.append(flip(-2))
        if low != 1 or high != 1:
            transforms.append(crop_and_resize(low, high, mean))
        factors = self._contrast_range()
        if self.brightness or factors != (1, 1):
            transforms.append(adjust_intensity(self.brightness, factors, scale))
        if self.random_crop != 1:
            transforms.append(crop(self.random_crop))
        if self.cutmix:
            transforms.append(mix_rectangles(self.cutmix))
        if self.random_state is not None:
            rng = check.random_generator(self.random_state)
        return Augmentation(transforms, seed=int(rng.integers(2**62)) + n_earlier)

    def _learn(self, X, y) -> tuple[np.ndarray, np.ndarray, SegmentationDataset]:
        """Check everything, and set the attributes that `fit` promises."""
        self._validate_params()
        X, y, _ = check.check_training_data(X, y, None)
        classes = check.labelled_classes(y, self.ignore_label)
        self._rng = check.random_generator(self.random_state)
        self.n_channels_in_ = check.count_channels(X)
        self.mean_, self.scale_ = measure_scaling(X, np.arange(len(X)))
        return X, y, SegmentationDataset(X, y, classes, self.ignore_label)

    def _validate_params(self) -> None:
        """Check what scikit-learn's constraints cannot say as well."""
        super()._validate_params()
        self._crop_range()
        self._contrast_range()

    def _check_ignore_label(self, dtype: np.dtype) -> None:
        label = self.ignore_label
        if label is None or np.array(label).astype(dtype) != label:
            raise ValueError(
                f"crop_scale={self.crop_scale} shows pixels without a label: fit_resample needs "
                f"an ignore_label that {dtype} can hold to mark them with, got {label}; the "
                "segmenter needs the same one"
            )

    def _crop_range(self) -> tuple[float, float]:
        if isinstance(self.crop_scale, Real):
            return min(float(self.crop_scale), 1.0), max(float(self.crop_scale), 1.0)
        low, high = _as_pair("crop_scale", self.crop_scale)
        if low == 0:
            raise ValueError(f"crop_scale must be above 0, got {self.crop_scale!r}")
        return low, high

    def _contrast_range(self) -> tuple[float, float]:
        if isinstance(self.contrast, Real):
            return 1 - float(self.contrast), 1 + float(self.contrast)
        return _as_pair("contrast", self.contrast)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "scale_")


def choose_augmenter(augmentation: Augmenter | str | None) -> Augmenter | None:
    """Tell what a segmenter's parameter `augmentation` stands for.

    Parameters
    ----------
    augmentation : Augmenter, "auto" or None
        Valid. "auto" changes what differs most from scene to scene, the light, shows a part of
        each image at a time, and mixes them, which delays overfitting.

    Returns
    -------
    augmenter : Augmenter or None
        None for no changes.
    """
    if isinstance(augmentation, str):
        return Augmenter(
            horizontal_flip=False, brightness=0.3, contrast=0.3, random_crop=0.75, cutmix=0.5
        )
    return augmentation


def _as_pair(name: str, ends: Sequence[float]) -> tuple[float, float]:
    """The ends of a range of numbers that are not negative."""
    if len(ends) != 2 or not all(isinstance(end, Real) for end in ends):
        raise ValueError(f"{name} must be a number or a pair of them, got {ends!r}")
    low, high = map(float, ends)
    if not 0 <= low <= high < np.inf:
        raise ValueError(f"{name} must be (low, high) with 0 <= low <= high, got {ends!r}")
    return low, high


class Augmentation:
    """A chain of transforms with random numbers of its own.

    Parameters
    ----------
    transforms : sequence of callables
        Applied one after another, each to a `Batch`.
    seed : int
        Of the random numbers; torch's global ones are not used.
    """

    def __init__(self, transforms: Sequence[Transform], *, seed: int):
        self.transforms = transforms
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, batch: Batch) -> Batch:
        """Change a batch; the tensors given stay as they are."""
        for transform in self.transforms:
            batch = transform(batch, self.generator)
        return batch


def _paste_rarest(probability: float, dataset: SegmentationDataset) -> Transform:
    counts = class_counts(dataset.masks, dataset.classes, dataset.sample_weight)[dataset.rows]
    totals = counts.sum(axis=0)
    # A class that only the images held out for validation show cannot be pasted.
    rarest = int(np.where(totals, totals, np.iinfo(np.int64).max).argmin())
    shows = counts[:, rarest] > 0
    if dataset.sample_weight is not None:
        # What does not count in training must not come back by another image.
        weight = dataset.sample_weight[dataset.rows]
        shows &= weight.reshape(len(weight), -1).any(axis=1)
    if not shows.any():
        return _unchanged
    return paste_regions(probability, dataset.subset(shows), rarest)


def _unchanged(batch: Batch, generator: torch.Generator) -> Batch:
    return batch


def _as_images(images: Tensor, like: np.ndarray) -> np.ndarray:
    """Turn `(n, C, H, W)` into images of the layout and dtype of others."""
    array = images.permute(0, 2, 3, 1).numpy() if like.ndim == 4 else images[:, 0].numpy()
    if like.dtype.kind == "f":
        return array.astype(like.dtype)
    limits = (0, 1) if like.dtype == bool else (np.iinfo(like.dtype).min, np.iinfo(like.dtype).max)
    return np.clip(np.rint(array), *limits).astype(like.dtype)
