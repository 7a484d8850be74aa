"""What labels the windows of a mosaic: a net, or several whose probabilities are averaged."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skmars.prediction.predict import Settings

__all__ = ["Model", "average"]


class Model(NamedTuple):
    """Everything that the labels of a mosaic depend on, besides the mosaic."""

    predict: Callable[[np.ndarray], Tensor]
    """Maps windows `(n, h, w)` or `(n, h, w, C)` to probabilities `(n, n_classes, h, w)`."""
    settings: Settings
    """How many windows are predicted at once, and where they lie."""
    grid: int
    """Pixels to a place of the net's coarsest level."""
    mean: np.ndarray
    """Of each channel of the training images."""
    scale: np.ndarray
    """Standard deviation of each channel of the training images."""
    n_threads: int | str
    """Of torch, or "auto"."""
    describe: Callable[[], dict[str, Any]]
    """Gives what tells this model from others, as JSON can hold it."""


def average(models: Sequence[Model], places: Sequence[list[int]], n_classes: int) -> Model:
    """Make the model whose probabilities are the mean over several.

    Parameters
    ----------
    models : sequence of Model
        At least one.
    places : sequence of list of int
        Where the classes of each model are among all; it gives all others a probability of 0.
    n_classes : int
        Number of classes of all together.

    Returns
    -------
    model : Model
        Its windows begin where those of each model may begin.

    Raises
    ------
    ValueError
        If the models have different windows.
    """
    windows = {
        one.settings.window and (tuple(one.settings.window), float(one.settings.overlap))
        for one in models
    }
    if len(windows) > 1:
        raise ValueError(
            "the members of an ensemble must have one window and overlap, got different ones: "
            + ", ".join(map(str, windows))
        )

    def predict(images: np.ndarray) -> Tensor:
        total = torch.zeros(len(images), n_classes, *images.shape[1:3], dtype=torch.float32)
        for model, own in zip(models, places, strict=True):
            total[:, own] += model.predict(images).cpu()
        return total / len(models)

    first = models[0]
    return first._replace(
        predict=predict,
        settings=first.settings._replace(
            batch_size=min(one.settings.batch_size for one in models)
        ),
        grid=math.lcm(*(one.grid for one in models)),
        mean=np.mean([one.mean for one in models], axis=0),
        scale=np.mean([one.scale for one in models], axis=0),
        describe=lambda: {"ensemble": [one.describe() for one in models]},
    )
