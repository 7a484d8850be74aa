"""The MarsScapes panoramas of the Curiosity rover, cut to labelled tiles."""

import hashlib
import json
import os
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from importlib import resources
from numbers import Integral, Real
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from sklearn.utils import Bunch

from skmars._files import replacing
from skmars.datasets._an2dl import TARGET_NAMES
from skmars.datasets._download import RemoteFile
from skmars.datasets._tiles import TileGrid, cut_tiles

# To be raised when the same arguments give other tiles: it is part of the name of the cache.
_FORMAT = 1
_SUBSETS = ("all", "train", "test")
_VOID = -1
_LABELS = {
    "soil": 1,
    "gravel": 1,
    "bedrock": 2,
    "sand": 3,
    "big rock": 4,
    "steep slope": 0,
    "sky": 0,
    "far relief": 0,
    "unknown": 0,
    "void": _VOID,
}

_DESCR = """\
Grey tiles cut from the MarsScapes panoramas, which were stitched from images of the Mastcam of the
Curiosity rover, with a label for every pixel. Images courtesy of NASA/JPL-Caltech; panoramas and
annotation by Liu et al., IEEE Transactions on Geoscience and Remote Sensing, 2023.

Labels: 0 background (sky, far relief, steep slope, unknown, black border), 1 soil (also with
gravel), 2 bedrock, 3 sand, 4 big rock. Groups are Martian days (sols): tiles of one day show one
scene. No day is in both the training and the test set.

{n} tiles of {height} x {width} pixels ({subset}), of {n_panoramas} panoramas of {n_sols} sols,
{scale}x downscaled, overlap {overlap:g}, at most {max_void:.0%} of a tile void.
"""


def fetch_marsscapes(
    *,
    data_home: str | os.PathLike | None = None,
    subset: str = "all",
    tile: tuple[int, int] = (64, 128),
    scale: int = 3,
    overlap: float = 0.0,
    max_void: float = 0.25,
    download_if_missing: bool = True,
    n_retries: int = 3,
    delay: float = 1.0,
    return_X_y: bool = False,
    base_url: str | None = None,
) -> Bunch | tuple[np.ndarray, np.ndarray]:
    """Load tiles of the MarsScapes panoramas; download the panoramas if necessary.

    MarsScapes [1]_ are panoramas of the surface of Mars, stitched from images of the Curiosity
    rover, with a label for every pixel. 84 of them, 190 MB, of 69 Martian days (sols) are
    downloaded, one by one, from where its authors published them, and checked by size and
    SHA-256. They are turned grey, downscaled and cut to tiles, and the tiles are kept as well,
    so that a second call with the same parameters takes a moment.

    Parameters
    ----------
    data_home : str or path-like, default=None
        The folder for data sets; the files are put in its sub-folder `marsscapes`. None stands
        for that of scikit-learn, see :func:`sklearn.datasets.get_data_home`.
    subset : {"all", "train", "test"}, default="all"
        Which panoramas: 56 of 49 sols to train, 28 of 20 other sols to test, or both.
    tile : tuple of int, default=(64, 128)
        Height and width of a tile in downscaled pixels.
    scale : int, default=3
        Side of the blocks of pixels that become one, by their mean grey and most frequent label.
    overlap : float in [0, 1), default=0.0
        Fraction of a tile's height and width that its neighbour shows again.
    max_void : float in [0, 1], default=0.25
        Tiles with a greater fraction of void, the black border of the panoramas, are left out.
    download_if_missing : bool, default=True
        If False, raise an OSError instead of downloading.
    n_retries : int, default=3
        Further attempts at a file whose download fails. They go on where the last one ended.
    delay : float, default=1.0
        Seconds before the second attempt; they double with each further one, up to a minute.
    return_X_y : bool, default=False
        If True, return `(images, target)` instead of a Bunch.
    base_url : str, default=None
        A mirror, by http or https, with the folders `image` and `annotation` of the original.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        images : ndarray of shape (n, height, width)
            Grey tiles, uint8.
        target : ndarray of shape (n, height, width)
            Their masks, uint8, labels 0 to 4.
        groups : ndarray of shape (n,)
            The sol of each tile. Tiles of one sol show one scene.
        subsets : ndarray of shape (n,)
            "train" or "test" for each tile.
        panoramas : ndarray of shape (n,)
            Name of the panorama of each tile.
        positions : ndarray of shape (n, 2)
            Row and column of each tile's upper left pixel in its downscaled panorama.
        target_names : list of str
            Names of labels 0 to 4.
        DESCR : str
            Description of the data set.
    (images, target) : tuple if `return_X_y` is True

    Raises
    ------
    ValueError
        If a parameter is out of its range, or no panorama is large enough for one tile.
    OSError
        If files are missing and `download_if_missing` is False, a download failed in all
        attempts, or the disk is full. What has come is kept: another call goes on from there.

    Warns
    -----
    RuntimeWarning
        If the tiles cannot be kept for the next call, as in a folder that is read-only.

    See Also
    --------
    load_an2dl : Load a file of tiles.
    make_terrain : Generate tiles; needs no download.

    Notes
    -----
    Grey is `0.299 R + 0.587 G + 0.114 B`. Gravel counts as soil; sky, far relief, steep slope,
    what the annotators did not know, and void are background. A row or column of tiles that the
    border would cut is left out.

    Several processes may call it at the same time, also for the same folder. Memory holds the
    tiles and one panorama.

    References
    ----------
    .. [1] H. Liu et al., "MarsScapes and UDAFormer: A panorama dataset and a transformer-based
       unsupervised domain adaptation framework for Martian terrain segmentation", IEEE
       Transactions on Geoscience and Remote Sensing, 2023, doi:10.1109/TGRS.2023.3343109.
       Images: NASA/JPL-Caltech.

    Examples
    --------
    >>> from skmars.datasets import fetch_marsscapes
    >>> train = fetch_marsscapes(subset="train", overlap=0.5)  # doctest: +SKIP
    >>> test = fetch_marsscapes(subset="test")  # doctest: +SKIP
    >>> train.images.shape[1:], train.target_names  # doctest: +SKIP
    ((64, 128), ['background', 'soil', 'bedrock', 'sand', 'big rock'])
    """
    # Imported late, since most who import the package download nothing.
    from sklearn.datasets import get_data_home

    grid = TileGrid(tile, scale, overlap, max_void)
    _check_options(subset, n_retries, delay, base_url)
    manifest = read_manifest()
    panoramas = [row for row in manifest["panoramas"] if subset in ("all", row["subset"])]
    folder = Path(get_data_home(data_home)) / "marsscapes"
    cache = folder / "tiles" / _cache_name(manifest, subset, grid)
    arrays = _load(cache)
    if arrays is None:
        files = _list_files(manifest, panoramas, folder, base_url)
        _download(files, download_if_missing, n_retries, delay)
        arrays = _cut(manifest, panoramas, [file.path for file in files], grid)
        _save(cache, arrays)
    if return_X_y:
        return arrays["images"], arrays["target"]
    return Bunch(
        **arrays,
        target_names=list(TARGET_NAMES),
        DESCR=_DESCR.format(
            n=len(arrays["images"]),
            height=grid.tile[0],
            width=grid.tile[1],
            subset=subset,
            n_panoramas=len(np.unique(arrays["panoramas"])),
            n_sols=len(np.unique(arrays["groups"])),
            scale=grid.scale,
            overlap=grid.overlap,
            max_void=grid.max_void,
        ),
    )


def read_manifest() -> dict[str, Any]:
    """Read what the files are: addresses, sizes and hashes, sols and subsets, label colours."""
    text = resources.files("skmars.datasets").joinpath("marsscapes.json").read_text("utf-8")
    return json.loads(text)


def _check_options(subset: str, n_retries: int, delay: float, base_url: str | None) -> None:
    if subset not in _SUBSETS:
        raise ValueError(f"subset must be one of {_SUBSETS}, got {subset!r}")
    if not isinstance(n_retries, Integral) or n_retries < 0:
        raise ValueError(f"n_retries must be an int >= 0, got {n_retries!r}")
    if not isinstance(delay, Real) or not 0 <= delay < float("inf"):
        raise ValueError(f"delay must be a number >= 0, got {delay!r}")
    if base_url is not None:
        parts = urlsplit(base_url) if isinstance(base_url, str) else None
        if parts is None or parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"base_url must be a URL of http or https, got {base_url!r}")


def _list_files(
    manifest: Mapping[str, Any], panoramas: list[dict], folder: Path, base_url: str | None
) -> list[RemoteFile]:
    """List the annotation, then the panoramas; the folders are named as in the original."""
    labels = manifest["labels"]
    wanted = [("annotation/semantic.zip", labels["url"], labels)]
    for row in panoramas:
        name = row["name"]
        wanted.append((f"image/{name}.png", manifest["images"].format(name=name), row))
    return [
        RemoteFile(
            url=url if base_url is None else f"{base_url.rstrip('/')}/{path}",
            path=folder / path,
            n_bytes=facts["bytes"],
            sha256=facts["sha256"],
        )
        for path, url, facts in wanted
    ]


def _download(
    files: list[RemoteFile], download_if_missing: bool, n_retries: int, delay: float
) -> None:
    missing = [file for file in files if not file.is_whole()]
    if not missing:
        return
    if not download_if_missing:
        raise OSError(
            f"{len(missing)} of {len(files)} files of MarsScapes are missing or damaged, such as "
            f"{missing[0].path}, and download_if_missing is False"
        )
    from tqdm.auto import tqdm

    # With disable=None, the bar is shown on a terminal only.
    for file in tqdm(missing, desc="MarsScapes", unit="file", disable=None):
        file.fetch(n_retries=n_retries, delay=delay)


def _cut(
    manifest: Mapping[str, Any], panoramas: list[dict], paths: list[Path], grid: TileGrid
) -> dict[str, Any]:
    """Cut all panoramas, into arrays that are large enough whatever is void."""
    from PIL import Image

    colours = {tuple(rgb): _LABELS[name] for name, rgb in manifest["label_colours"].items()}
    annotations, *images = paths
    room = 0
    for path in images:
        with Image.open(path) as image:
            room += grid.n_positions(image.height, image.width)
    # Memory that is never written to is not taken, so this costs no more than the tiles.
    data, target = (np.empty((room, *grid.tile), np.uint8) for _ in range(2))
    positions, counts, n = [], [], 0
    with zipfile.ZipFile(annotations) as archive:
        for row, path in zip(panoramas, images, strict=True):
            member = manifest["labels"]["member"].format(name=row["name"])
            with (
                Image.open(path) as image,
                archive.open(member) as file,
                Image.open(file) as annotation,
            ):
                tiles, labels, corners = cut_tiles(image, annotation, grid, colours)
            end = n + len(tiles)
            data[n:end], target[n:end], n = tiles, labels, end
            positions.append(corners)
            counts.append(len(tiles))
    if not n:
        raise ValueError(
            f"no panorama has a tile of {grid.tile} pixels at scale {grid.scale} with at most "
            f"{grid.max_void:.0%} of it void"
        )
    # In place: a copy would need the room twice.
    data.resize((n, *grid.tile), refcheck=False)
    target.resize((n, *grid.tile), refcheck=False)
    return {
        "images": data,
        "target": target,
        "groups": np.repeat([row["sol"] for row in panoramas], counts),
        "subsets": np.repeat([row["subset"] for row in panoramas], counts),
        "panoramas": np.repeat([row["name"] for row in panoramas], counts),
        "positions": np.concatenate(positions),
    }


def _cache_name(manifest: Mapping[str, Any], subset: str, grid: TileGrid) -> str:
    """Name all that the tiles depend on: the parameters readably, the rest by a digest."""
    height, width = grid.tile
    name = (
        f"{subset}-{height}x{width}-scale{grid.scale}"
        f"-overlap{float(grid.overlap)!r}-void{float(grid.max_void)!r}"
    )
    facts = json.dumps([_FORMAT, _LABELS, dict(manifest)], sort_keys=True)
    return f"{name}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}.npz"


def _load(path: Path) -> dict[str, Any] | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {
                key: archive[key]
                for key in ("images", "target", "groups", "subsets", "panoramas", "positions")
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        # Missing or damaged: it is made anew.
        return None


def _save(path: Path, arrays: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            np.savez(file, **arrays)
    except OSError as error:
        message = f"the tiles are not kept for the next call: {error}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
