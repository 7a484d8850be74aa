"""Files that say how far the labels of a mosaic are, so that a run can go on."""

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skmars._files import replacing
from skmars.prediction.arrays import Source
from skmars.prediction.predict import Settings
from skmars.prediction.windows import Windows
from skmars.training.net import SegmentationNet

__all__ = ["Checkpoint", "describe_arrays", "describe_net"]

FORMAT = 1


class Checkpoint:
    """A file that says which strips of a run are done, with a checksum of each.

    Parameters
    ----------
    path : path-like
        The file; read if there is one, and made otherwise.
    run : dict
        What tells this run from others, as JSON can hold it.

    Raises
    ------
    ValueError
        If the file is that of another run, or none that this class wrote.
    """

    def __init__(self, path: str | os.PathLike, run: Mapping[str, Any]):
        self.path = Path(path)
        self.run = json.loads(json.dumps(run))
        self.strips: list[int] = []
        if self.path.exists():
            self.strips = self._read()
        # Whether it can be written should show now, not after the first strip.
        self._write()

    def _read(self) -> list[int]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            version, run, strips = content["format"], dict(content["run"]), content["strips"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{os.fspath(self.path)!r} is not a checkpoint") from error
        if version != FORMAT:
            raise ValueError(
                f"checkpoint {os.fspath(self.path)!r} has format {version}, this version reads "
                f"{FORMAT}"
            )
        others = [name for name in self.run if run.get(name) != self.run[name]]
        if others:
            raise ValueError(
                f"checkpoint {os.fspath(self.path)!r} is that of another run, with another "
                f"{', '.join(others)}; give another path, or delete it to begin anew"
            )
        return strips

    def _write(self) -> None:
        content = {"format": FORMAT, "run": self.run, "strips": self.strips}
        with replacing(self.path, "w", encoding="utf-8") as file:
            json.dump(content, file)

    def restore(self, targets: Sequence[Any], windows: Windows) -> int:
        """Number of strips that all targets hold as they were written, counted from the top.

        Raises
        ------
        ValueError
            If they hold not even the first of those that are done.
        """
        n_done = 0
        for i, checksum in enumerate(self.strips):
            rows = windows.strip(i)
            held = [one[rows.start : rows.stop, 0 : one.shape[1]] for one in targets]
            if _checksum(held) != checksum:
                break
            n_done += 1
        if self.strips and not n_done:
            raise ValueError(
                f"the target does not hold what checkpoint {os.fspath(self.path)!r} tells of; "
                "give the arrays of that run, or delete the checkpoint to begin anew"
            )
        del self.strips[n_done:]
        return n_done

    def add(self, strips: Sequence[np.ndarray]) -> None:
        """Note that one more strip has been written, of each target."""
        self.strips.append(_checksum(strips))
        self._write()

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)


def _checksum(strips: Iterable[Any]) -> int:
    checksum = 0
    for strip in strips:
        checksum = zlib.crc32(np.asarray(strip).tobytes(), checksum)
    return checksum


def describe_net(
    net: SegmentationNet, classes: np.ndarray, precision: str, settings: Settings
) -> dict[str, Any]:
    """What labels depend on, besides the image and the windows over it."""
    model = hashlib.sha256()
    for name, tensor in sorted(net.module_.state_dict().items()):
        model.update(name.encode())
        model.update(tensor.cpu().numpy().tobytes())
    for values in (net.mean, net.scale, classes):
        model.update(np.asarray(values).tobytes())
    return {
        "model": model.hexdigest(),
        "temperature": float(net.temperature),
        "precision": precision,
        # Of numpy's types, which JSON does not know, some are allowed as parameters.
        "tta": bool(settings.tta),
        "batch_size": int(settings.batch_size),
    }


def describe_arrays(
    image: Source, patches: Sequence[np.ndarray], target, uncertainty, nodata_label: int | None
) -> dict[str, Any]:
    """What tells a source, of whose pixels there are patches, and its targets from others."""
    pixels = hashlib.sha256()
    for patch in patches:
        pixels.update(np.asarray(patch).tobytes())
    # In words, for NaN is not equal to itself.
    nodata = None if nodata_label is None else [str(image.nodata), int(nodata_label)]
    return {
        "source": [list(image.shape), image.dtype.str, pixels.hexdigest()],
        "target": [list(image.shape[:2]), np.dtype(target.dtype).str],
        "uncertainty": None if uncertainty is None else np.dtype(uncertainty.dtype).str,
        "nodata": nodata,
    }
