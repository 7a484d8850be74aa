"""Planting damaged images and wrong masks in a generated data set."""

from collections.abc import Callable, Mapping
from numbers import Integral, Real

import numpy as np
from scipy import ndimage

from skmars.datasets._scene import draw_scene

# Composition of the mask that all outliers of AN2DL share: 4346, 1578, 792 and 1476 pixels.
_SPRITE_MASK_SHARES = np.array([4346, 1578, 792, 1476]) / 8192
_N_DONORS_TRIED = 20


def count_outliers(
    outliers: int | float | Mapping[str, int] | None, n_samples: int
) -> dict[str, int]:
    """Turn the parameter `outliers` of `make_terrain` into a count for each kind."""
    if outliers is None:
        return {}
    if isinstance(outliers, Mapping):
        counts = dict(outliers)
    elif isinstance(outliers, Integral) and not isinstance(outliers, bool):
        counts = {"sprite": int(outliers)}
    elif isinstance(outliers, Real) and 0 <= outliers < 1:
        counts = {"sprite": round(float(outliers) * n_samples)}
    else:
        raise ValueError(
            "outliers must be None, a count (int), a share in [0, 1) (float) or a dict of "
            f"kind -> count, got {outliers!r}"
        )
    return _check_counts(counts, n_samples)


def plant_outliers(
    seed: np.random.SeedSequence, X: np.ndarray, y: np.ndarray, counts: Mapping[str, int]
) -> np.ndarray:
    """Damage randomly chosen images of X (n, H, W, C) and masks of y in place.

    Returns the kind of outlier for every image, "" for those left as they were.
    """
    kinds = np.full(len(X), "", dtype=f"<U{max(map(len, OUTLIER_KINDS))}")
    if not any(counts.values()):
        return kinds
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(X))
    names = np.repeat(list(counts), list(counts.values()))
    kinds[chosen[: len(names)]] = names
    clean = chosen[len(names) :]
    # One mask for all sprites, as in AN2DL.
    sprite_mask = draw_scene(rng, y.shape[1:], _SPRITE_MASK_SHARES, 0.0)[1]
    for i in np.flatnonzero(kinds).tolist():
        if kinds[i] == "sprite":
            y[i] = sprite_mask
        if kinds[i] == "duplicate":
            X[i] = X[_find_donor(rng, y, i, clean)]
        else:
            X[i] = _DAMAGE[kinds[i]](rng, X[i])
    return kinds


def _check_counts(counts: Mapping[str, int], n_samples: int) -> dict[str, int]:
    unknown = sorted(set(counts) - set(OUTLIER_KINDS))
    if unknown:
        raise ValueError(f"unknown kinds of outliers {unknown}; choose from {OUTLIER_KINDS}")
    for kind, count in counts.items():
        if not isinstance(count, Integral) or isinstance(count, bool) or count < 0:
            raise ValueError(f"outliers[{kind!r}] must be an int >= 0, got {count!r}")
    total = sum(counts.values())
    # A duplicate needs a clean image to be the copy of.
    n_available = n_samples - bool(counts.get("duplicate", 0))
    if total > n_available:
        raise ValueError(f"cannot plant {total} outliers among n_samples={n_samples} images")
    return {kind: int(count) for kind, count in counts.items()}


def _find_donor(rng: np.random.Generator, y: np.ndarray, i: int, clean: np.ndarray) -> int:
    """Choose the clean image, of some drawn at random, whose mask contradicts mask i most."""
    candidates = rng.permutation(clean)[:_N_DONORS_TRIED]
    disagreement = (y[candidates] != y[i]).mean(axis=(1, 2))
    return int(candidates[disagreement.argmax()])


def _paste_sprite(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Paste the face of a visitor: a pale head that narrows downwards, with slanted eyes."""
    height, width = image.shape[:2]
    radius = rng.uniform(0.26, 0.36) * min(height, width)
    row = rng.uniform(min(1.2 * radius, height / 2), max(height - 1.2 * radius, height / 2))
    column = rng.uniform(min(radius, width / 2), max(width - radius, width / 2))
    y = (np.arange(height)[:, None] - row) / radius
    x = (np.arange(width)[None, :] - column) / radius
    head = (x / (0.78 - 0.3 * np.clip(y, -0.2, 1.2))) ** 2 + (y / 1.15) ** 2 < 1
    side = np.abs(x) - 0.33
    eyes = ((side - 0.5 * (y - 0.1)) / 0.3) ** 2 + ((y - 0.1 + 0.5 * side) / 0.2) ** 2 < 1
    mouth = (np.abs(y - 0.8) < 0.05) & (np.abs(x) < 0.17)
    face = np.where(eyes | mouth, 12.0, 215 - 30 * x**2 - 25 * y)
    face = np.clip(face + rng.normal(0, 3, (height, width)), 0, 255).astype(np.uint8)
    return np.where(head[..., None], face[..., None], image)


def _black_frame(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    return rng.integers(0, 4, image.shape, dtype=np.uint8)


def _saturate(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    shift = 240.0 - np.percentile(image, rng.uniform(2, 15))
    return np.clip(image + shift + 0.3 * image, 0, 255).astype(np.uint8)


def _static(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    return rng.integers(0, 256, image.shape, dtype=np.uint8)


def _stripe(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Overwrite about half the rows, in bands, as by a broken transmission."""
    height = len(image)
    period = int(rng.integers(2, max(3, height // 8)))
    lost = (np.arange(height) + rng.integers(period)) % period < period / 2
    levels = rng.integers(0, 256, (height, 1, 1), dtype=np.uint8)
    return np.where(lost[:, None, None], levels, image)


def _defocus(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    sigma = rng.uniform(0.06, 0.1) * min(image.shape[:2])
    return ndimage.gaussian_filter(image, (sigma, sigma, 0))


_DAMAGE: dict[str, Callable[[np.random.Generator, np.ndarray], np.ndarray]] = {
    "sprite": _paste_sprite,
    "black": _black_frame,
    "saturated": _saturate,
    "noise": _static,
    "stripes": _stripe,
    "blur": _defocus,
}
OUTLIER_KINDS = (*_DAMAGE, "duplicate")
