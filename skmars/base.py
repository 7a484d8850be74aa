"""What every estimator that labels the pixels of images has in common."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from skmars import _validation as check
from skmars._tags import ImageInputMixin
from skmars.metrics import mean_iou_score

__all__ = ["BaseSegmenter"]


class BaseSegmenter(ImageInputMixin, BaseEstimator):
    """Scoring by mean IoU, lists of images, and tags.

    An estimator that inherits it has `predict` and the attributes `classes_`, `n_channels_in_` and
    `ignore_label`.
    """

    classes_: np.ndarray
    n_channels_in_: int
    predict: Callable[..., Any]

    def set_params(self, **params):
        """Set parameters, also of an object that is one, such as `augmentation__brightness`.

        Parameters
        ----------
        **params : dict
            Parameters by their names.

        Returns
        -------
        self : estimator

        Raises
        ------
        ValueError
            If there is no parameter of a name; or if it is one of a parameter that is no object
            with parameters of its own, such as `augmentation="auto"`.
        """
        # Some may be set together with the objects that they belong to.
        values = {**self.get_params(deep=False), **params}
        for name in params:
            owner, nested, _ = name.partition("__")
            if nested and owner in values and not hasattr(values[owner], "set_params"):
                way_out = f"{name} cannot be set"
                if owner == "augmentation":
                    way_out = "set augmentation=Augmenter(...) first"
                raise ValueError(
                    f"{owner}={values[owner]!r} has no parameters of its own: {way_out}"
                )
        return super().set_params(**params)

    def score(self, X, y, sample_weight=None) -> float:
        """Mean IoU over the classes, from one confusion matrix of all images.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C), or list of (H, W) or (H, W, C) arrays
            Images.
        y : array-like of shape (n, H, W), or list of (H, W) arrays
            Masks; pixels with the `ignore_label` are left out.
        sample_weight : array-like of shape (n,) or (n, H, W), default=None
            Weights of images or pixels.

        Returns
        -------
        score : float
            In [0, 1]. A class that is neither in `y` nor predicted is left out of the mean, see
            `skmars.metrics.mean_iou_score`; NaN, with a warning, if no pixel is left.

        Raises
        ------
        TypeError, ValueError
            If images and masks are not as described, or a label is not among the classes.
        """
        check_is_fitted(self)
        ignored = getattr(self, "ignore_label", None)
        if check.is_image_list(X):
            if len(X) != len(y):
                raise ValueError(f"got {len(X)} images in X and {len(y)} masks in y")
            pairs = [
                (image[None], np.asanyarray(mask)[None]) for image, mask in zip(X, y, strict=True)
            ]
        else:
            pairs = [(X, y)]
        for images, masks in pairs:
            images = check.check_images(images, n_channels=self.n_channels_in_)
            masks = check.check_masks(masks, images)
            check.check_labels(masks, self.classes_, ignored)
        return mean_iou_score(
            y,
            self.predict(X),
            labels=self.classes_,
            ignore_label=ignored,
            sample_weight=sample_weight,
        )

    def _checked(self, X) -> np.ndarray | list[np.ndarray]:
        """Images as an array, or as a list of arrays if that is what they came as."""
        if not check.is_image_list(X):
            return check.check_images(X, n_channels=self.n_channels_in_)
        return [
            check.check_images(np.asanyarray(image)[None], n_channels=self.n_channels_in_)[0]
            for image in X
        ]
