"""Save and load without pickle: one file with JSON and safetensors in it.

The file is a zip archive, not compressed, of `config.json` and `model.safetensors`. Nothing in
it is executed when it is read.
"""

import contextlib
import io
import json
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skmars import __version__
from skmars._files import replacing
from skmars.augmentation import Augmenter
from skmars.device import choose_device
from skmars.parameters import ARCHITECTURE
from skmars.training.net import SegmentationNet

__all__ = [
    "PersistenceMixin",
    "describe",
    "read_archive",
    "reading",
    "restore",
    "savable",
    "write_archive",
]

FORMAT = 1

FITTED = (
    "classes_",
    "n_channels_in_",
    "class_frequencies_",
    "class_weight_",
    "mean_",
    "scale_",
    "history_",
    "best_epoch_",
    "n_iter_",
)


class PersistenceMixin:
    """Save and load for an estimator whose net `_restore_net` builds from its attributes."""

    device_: str
    net_: SegmentationNet
    _move_net: Any

    def __setstate__(self, state):
        """Take up a pickled state; where its device is missing, the net is on the CPU."""
        super().__setstate__(state)  # type: ignore[misc]
        if hasattr(self, "net_") and str(self.net_.device) != self.device_:
            _drop_missing_device(self, stacklevel=3)
            self._move_net()

    def save(self, path: str | os.PathLike) -> None:
        """Write parameters and weights to one file, without pickle.

        What stood at `path` before stays whole until the new file is complete. The optimizer's
        state is not kept. Parameters that JSON cannot hold (a callable `loss`, `callbacks`, a
        RandomState) are replaced by their defaults, with a warning.

        Parameters
        ----------
        path : path-like
            The file: a zip archive of `config.json` and `model.safetensors`.
        """
        check_is_fitted(self)
        write_archive(path, describe(self), self.net_.module_.state_dict())

    @classmethod
    def load(cls, path: str | os.PathLike):
        """Read what `save` wrote; what is "auto" of device and precision is chosen anew.

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        segmenter : MarsSegmenter
            Fitted. Where its `device` is missing, that is "auto", with a warning.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not a saved segmenter, is damaged, or of a later format.
        """
        config, weights = read_archive(path)
        if "members" in config:
            raise ValueError(f"{os.fspath(path)!r} is an ensemble: read it with Ensemble.load")
        with reading(path):
            return restore(cls, config, weights)


def describe(segmenter) -> dict[str, Any]:
    """Parameters and fitted attributes of a segmenter, as JSON can hold them."""
    # The net is what the fit has made of them, whatever was set since.
    net = {name: getattr(segmenter.net_, f"module__{name}") for name in ARCHITECTURE}
    params = {**segmenter.get_params(deep=False), **net}
    if isinstance(weight := params["class_weight"], dict):
        # The keys of a JSON object are strings, labels are not.
        params["class_weight"] = {"labels": list(weight), "weights": list(weight.values())}
    fitted = {name: getattr(segmenter, name) for name in FITTED}
    return {"params": savable(params), "fitted": fitted}


def savable(params: dict[str, Any], *, stacklevel: int = 4) -> dict[str, Any]:
    """Those of the parameters that JSON can hold; a warning names each of the others."""
    kept = {}
    for name, value in params.items():
        try:
            json.dumps(value, default=_to_json)
        except TypeError:
            warnings.warn(f"{name} cannot be saved, and is left out", stacklevel=stacklevel)
        else:
            kept[name] = value
    return kept


def restore(cls, description: dict[str, Any], weights: dict[str, Tensor]):
    """Make a segmenter of what `describe` told, and its weights."""
    segmenter = cls(**_params_from_json(description["params"]))
    _drop_missing_device(segmenter, stacklevel=4)
    for name in FITTED:
        setattr(segmenter, name, description["fitted"][name])
    segmenter._restore_net(weights)
    return segmenter


def _drop_missing_device(segmenter, *, stacklevel: int) -> None:
    """Set `device` to "auto", with a warning, if torch does not have what it names."""
    try:
        choose_device(segmenter.device)
    except ValueError as error:
        warnings.warn(f"{error}; loaded with device='auto'", stacklevel=stacklevel)
        segmenter.set_params(device="auto")


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Turn what goes wrong with the content of a file into a ValueError that names it."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        message = f"{os.fspath(path)!r} is not a saved segmenter: {error!r}"
        raise ValueError(message) from error


def write_archive(path: str | os.PathLike, config: dict, tensors: dict[str, Tensor]) -> None:
    """Write an archive; what stood at `path` before stays whole until the new one is complete.

    Parameters
    ----------
    path : path-like
        The file.
    config : dict
        What JSON can hold.
    tensors : dict of str to Tensor
        On any device, in any layout.
    """
    text = json.dumps({"format": FORMAT, "skmars": __version__, **config}, default=_to_json)
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("config.json", text)
        archive.writestr("model.safetensors", safetensors.torch.save(dense))


def read_archive(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `write_archive` wrote.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    config : dict
    tensors : dict of str to Tensor
        On the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not such an archive, is damaged, or of a later format.
    """
    content = io.BytesIO(Path(path).read_bytes())
    try:
        with zipfile.ZipFile(content) as archive:
            config = dict(json.loads(archive.read("config.json"), object_hook=_from_json))
            tensors = safetensors.torch.load(archive.read("model.safetensors"))
    except Exception as error:  # Damage can surface anywhere in the three formats.
        message = f"{os.fspath(path)!r} is not a saved segmenter: {error!r}"
        raise ValueError(message) from error
    if config.get("format") != FORMAT:
        raise ValueError(
            f"file {os.fspath(path)!r} has format {config.get('format')}, this version reads "
            f"{FORMAT}"
        )
    return config, tensors


def _params_from_json(params: dict[str, Any]) -> dict[str, Any]:
    params = _with_tuples(params)
    if isinstance(params.get("class_weight"), dict):
        params["class_weight"] = dict(zip(*params["class_weight"].values(), strict=True))
    return params


def _with_tuples(params: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in params.items()
    }


def _to_json(value: Any) -> Any:
    # What a subclass does more is not known where the file is loaded.
    if type(value) is Augmenter:
        return {"Augmenter": value.get_params()}
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "values": value.tolist()}
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _from_json(value: dict) -> Any:
    if value.keys() == {"dtype", "values"}:
        return np.array(value["values"], dtype=value["dtype"])
    if value.keys() == {"Augmenter"}:
        return Augmenter(**_with_tuples(value["Augmenter"]))
    return value
