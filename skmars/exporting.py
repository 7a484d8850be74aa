"""Trained segmenters as ONNX files, for programs without Python."""

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skmars import __version__
from skmars._files import replacing
from skmars.training.net import SegmentationNet

__all__ = ["OnnxMixin"]


class OnnxMixin:
    """Export of a trained segmenter."""

    classes_: np.ndarray
    mean_: np.ndarray
    n_channels_in_: int
    net_: SegmentationNet
    scale_: np.ndarray
    tta: bool

    def export_onnx(self, path: str | os.PathLike) -> None:
        """Write the trained net as an ONNX file, with everything from pixels to labels in it.

        The graph's input is "images", float32 of shape (n, H, W), or (n, H, W, C) for images of
        more than one channel, in the units of the images that the segmenter was trained on. Its
        outputs are "labels", int64 of shape (n, H, W), and "probabilities", float32 of shape
        (n, n_classes, H, W), with the classes in the order of `classes_`. n, H and W are free.

        It computes in float32; its labels are those of `predict` but where rounding decides, more
        often so if the segmenter predicts in bfloat16. `tta` is part of it, `window` is not.
        Labels of the classes are in the file's metadata as well.

        Parameters
        ----------
        path : path-like
            The file. What stood there before stays whole until the new one is complete.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it has not been fitted.
        ImportError
            If onnx and onnxscript, which the extra `onnx` brings, are not installed.

        Examples
        --------
        >>> from skmars import MarsSegmenter
        >>> from skmars.datasets import make_terrain
        >>> X, y = make_terrain(8, shape=(32, 48), random_state=0)
        >>> segmenter = MarsSegmenter(depth=2, base_channels=4, max_epochs=1).fit(X, y)
        >>> segmenter.export_onnx("model.onnx")  # doctest: +SKIP
        """
        check_is_fitted(self)
        _check_installed()
        n_channels = self.n_channels_in_
        labeller = _Labeller(
            self.net_.folded(), self.mean_, self.scale_, self.classes_, tta=self.tta
        )
        # Neither sizes that are equal nor sizes of 1, which would be taken for fixed.
        shape = (2, 40, 56) if n_channels == 1 else (2, 40, 56, n_channels)
        images = torch.zeros(shape, device="cpu")
        facts = {"skmars": __version__, "classes": ",".join(map(str, labeller.classes.tolist()))}
        # Opened first: a path that cannot be written to is an error before the work, not after it.
        with replacing(path) as file, _quiet():
            program = torch.onnx.export(
                labeller,
                (images,),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=["labels", "probabilities"],
                dynamic_shapes=({0: "n", 1: "height", 2: "width"},),
            )
            assert program is not None
            model = program.model_proto
            for name, value in facts.items():
                model.metadata_props.add(key=name, value=value)
            file.write(model.SerializeToString())


class _Labeller(nn.Module):
    """From images as the segmenter takes them to labels and probabilities."""

    mean: Tensor
    scale: Tensor
    classes: Tensor

    def __init__(
        self,
        net: nn.Module,
        mean: np.ndarray,
        scale: np.ndarray,
        classes: np.ndarray,
        *,
        tta: bool,
    ):
        super().__init__()
        self.net = net.cpu()
        self.tta = tta
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("classes", torch.from_numpy(classes.astype(np.int64)))
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Labels and probabilities of images `(n, H, W)` or `(n, H, W, C)`."""
        x = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        x = (x - self.mean) / self.scale
        if self.tta:
            # Not `len(x)`, which would make a constant of it.
            n = x.shape[0]
            both = self.net(torch.cat([x, x.flip(3)])).softmax(1)
            probabilities = (both[:n] + both[n:].flip(3)) / 2
        else:
            probabilities = self.net(x).softmax(1)
        return self.classes[probabilities.argmax(1)], probabilities


def _check_installed() -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"export_onnx needs {' and '.join(missing)}, which the extra 'onnx' of skmars installs"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter tells about packages and calls of its own."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
