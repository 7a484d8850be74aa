"""Numbers that describe how a whole image looks: brightness, detail at each scale, edges, colour.

They do not change if all images of a data set are multiplied by one positive number or shifted by
another one, so that 8-bit, 16-bit and floating-point versions of it are described alike.
"""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from skmars._validation import count_channels

__all__ = ["FEATURE_NAMES", "fill_margins", "image_features", "intensity_scale"]

_BRIGHTNESS = {0.01: "darkest 1 %", 0.1: "darkest 10 %", 0.5: "median", 0.9: "brightest 10 %"}
_BRIGHTNESS[0.99] = "brightest 1 %"
_EDGES = {0.5: "median", 0.9: "steepest 10 %", 0.99: "steepest 1 %", 0.999: "steepest 0.1 %"}
_SIGMAS = (1.0, 2.0, 4.0, 8.0)
_BANDS = ("below 1 px", "of 1-2 px", "of 2-4 px", "of 4-8 px")
# Fraction of the pixels that a blob has to have at least to decide `dark` and `bright`.
_BLOB_SHARE = 0.002

_AMOUNTS = (
    *(
        f"{what} {band}"
        for band in _BANDS
        for what in ("detail (rms)", "detail (mean)", "dark blobs", "bright blobs")
    ),
    *(f"edges, {name}" for name in _EDGES.values()),
    "steps between rows",
    "steps between columns",
    "colour",
)
_LEVELS = (
    *(f"brightness, {name}" for name in _BRIGHTNESS.values()),
    *(f"kurtosis of detail {band}" for band in _BANDS),
    "steps between rows to those between columns (log ratio)",
    "finest detail to that of 1-2 px (log ratio)",
    "detail of 1-2 px to that of 2-4 px (log ratio)",
)
FEATURE_NAMES = (*_AMOUNTS, *_LEVELS)

# Pixels converted to floats at a time.
_BATCH_PIXELS = 2**18
_SCALE_SAMPLE = 500_000
# A margin without data has at least this part of an image, and leaves at least this part.
_SMALLEST_MARGIN, _SMALLEST_REST = 0.005, 0.1
# In interquartile ranges of all pixels.
_BRIGHTEST = 1e4


def image_features(X: np.ndarray) -> np.ndarray:
    """Describe each image by the numbers that `FEATURE_NAMES` names.

    Amounts of detail are given as `log(1 + amount / median amount)`: close to a logarithm for
    busy images, as amounts range over orders of magnitude, and bounded for smooth ones, as a
    clear sky is nothing unusual.

    Parameters
    ----------
    X : ndarray of shape (n, H, W) or (n, H, W, C)
        Images, finite. A few are converted to floats at a time.

    Returns
    -------
    features : ndarray of shape (n, n_features) of float64
    """
    features = np.concatenate([_describe(grey, colour) for grey, colour in _scaled_batches(X)])
    amounts = features[:, : len(_AMOUNTS)]
    typical = np.median(amounts, axis=0)
    # Without a typical amount there is nothing to be relative to but the range of the images.
    amounts /= np.where(typical > 1e-6, typical, 1.0)
    np.log1p(amounts, out=amounts)
    return features


def intensity_scale(X: np.ndarray) -> tuple[float, float]:
    """Median and interquartile range of the pixels, of a sample if there are many.

    Parameters
    ----------
    X : ndarray
        Images.

    Returns
    -------
    center, scale : float
        The scale is the standard deviation if most pixels have one value, and 1 if all have.
    """
    if X.size <= _SCALE_SAMPLE:
        values = X.ravel()
    else:
        places = np.random.default_rng(0).integers(X.size, size=_SCALE_SAMPLE)
        values = X[np.unravel_index(places, X.shape)]
    low, center, high = np.quantile(values.astype(np.float64), (0.25, 0.5, 0.75))
    scale = high - low
    if scale == 0:
        scale = values.std(dtype=np.float64) or 1.0
    return float(center), float(scale)


def fill_margins(images: np.ndarray, lowest: float) -> np.ndarray:
    """Continue images over their margins without data, as mosaics of panoramas have them.

    A margin is a region of the lowest value of the data set that touches the edge of the image.
    Its outline would be the sharpest edge of the image and hide what else is unusual.

    Parameters
    ----------
    images : ndarray of shape (n, H, W)
        Changed in place.
    lowest : float
        Value of pixels without data.

    Returns
    -------
    images : ndarray of shape (n, H, W)
    """
    for image in images:
        empty = image == lowest
        if empty.mean() < _SMALLEST_MARGIN:
            continue
        regions, _ = ndimage.label(empty)
        edge = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
        margin = np.isin(regions, edge[edge > 0])
        if margin.mean() < _SMALLEST_MARGIN:
            continue
        # Resampling mixes the pixels next to a margin with it.
        margin = ndimage.binary_dilation(margin, iterations=2)
        if 1 - margin.mean() < _SMALLEST_REST:
            continue
        nearest = ndimage.distance_transform_edt(
            margin, return_distances=False, return_indices=True
        )
        image[...] = image[tuple(nearest)]
    return images


def _scaled_batches(X: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scaled grey images `(m, H, W)` of float32, without margins, and how coloured each is."""
    center, scale = intensity_scale(X)
    lowest = float(X.min())
    n_pixels = X.shape[1] * X.shape[2] * count_channels(X)
    step = max(1, _BATCH_PIXELS // n_pixels)
    for start in range(0, len(X), step):
        batch = X[start : start + step].astype(np.float64)
        if batch.ndim == 3:
            grey, colour = batch, np.zeros(len(batch))
        else:
            grey = batch.mean(axis=3)
            colour = batch.std(axis=3).mean(axis=(1, 2)) / scale
        grey = (fill_margins(grey, lowest) - center) / scale
        # The fourth power of what is left has to be finite in float32.
        yield np.clip(grey, -_BRIGHTEST, _BRIGHTEST).astype(np.float32), colour


def _describe(x: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """The features of some images `(m, H, W)`, amounts first; amounts as they are."""
    amounts, levels = [], [*_quantiles(x, tuple(_BRIGHTNESS))]
    rms = []
    for band in _bands(x):
        energy = np.square(band).mean(axis=(1, 2))
        rms.append(np.sqrt(energy))
        dark, bright = _quantiles(band, (_BLOB_SHARE, 1 - _BLOB_SHARE))
        amounts += [rms[-1], np.abs(band).mean(axis=(1, 2))]
        amounts += [np.maximum(-dark, 0), np.maximum(bright, 0)]
        fourth = np.square(np.square(band)).mean(axis=(1, 2))
        levels.append(np.log1p(fourth / (np.square(energy) + 1e-9)))
    amounts += [*_quantiles(_edges(x), tuple(_EDGES))]
    rows, columns = _mean_step(x, 1), _mean_step(x, 2)
    amounts += [rows, columns, colour]
    levels.append(np.log((rows + 0.02) / (columns + 0.02)))
    levels += [np.log((rms[i] + 0.005) / (rms[i + 1] + 0.005)) for i in (0, 1)]
    return np.stack([*amounts, *levels], axis=1).astype(np.float64)


def _bands(x: np.ndarray) -> Iterator[np.ndarray]:
    """Differences of images that are blurred more and more: detail of each scale.

    After each blurring but the first, every second pixel tells all that is left.
    """
    sigma, thinned = 0.0, 1
    for target in _SIGMAS:
        step = np.sqrt(target**2 - sigma**2) / thinned
        blurred = ndimage.gaussian_filter(x, (0, step, step), mode="nearest", truncate=3.0)
        yield x - blurred
        x, sigma = blurred, target
        if target >= 2:
            x, thinned = np.ascontiguousarray(x[:, ::2, ::2]), thinned * 2


def _edges(x: np.ndarray) -> np.ndarray:
    """Magnitude of the gradient, a little smoothed against noise."""
    x = ndimage.gaussian_filter(x, (0, 1, 1), mode="nearest", truncate=3.0)
    return np.hypot(
        ndimage.sobel(x, axis=1, mode="nearest"), ndimage.sobel(x, axis=2, mode="nearest")
    )


def _mean_step(x: np.ndarray, axis: int) -> np.ndarray:
    """Mean absolute difference of neighbours along an axis, 0 if there are none."""
    if x.shape[axis] == 1:
        return np.zeros(len(x), dtype=x.dtype)
    return np.abs(np.diff(x, axis=axis)).mean(axis=(1, 2))


def _quantiles(x: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """Quantiles of each image, `(n_shares, m)`, as the nearest pixel."""
    x = x.reshape(len(x), -1)
    ranks = [round(share * (x.shape[1] - 1)) for share in shares]
    return np.partition(x, ranks, axis=1)[:, ranks].T
