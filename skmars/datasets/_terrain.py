"""Generated Martian terrain with exact masks."""

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real

import numpy as np
from scipy import ndimage, special
from sklearn.utils import check_random_state

from skmars.datasets._an2dl import TARGET_NAMES
from skmars.datasets._outliers import count_outliers, plant_outliers
from skmars.datasets._scene import draw_scene

_AN2DL_FREQUENCIES = (0.2431, 0.3390, 0.2328, 0.1838, 0.0013)

# Where there are big rocks they cover about this part of the image: 0.13 % of the pixels lie in
# 62 of the 2505 images of AN2DL.
_ROCK_SHARE = 0.0013 * 2505 / 62
# A small concentration leaves most images with one to three classes.
_CONCENTRATION = 1.6
_SMALLEST_SHARE = 0.02
_MOST_BACKGROUND = 0.8


def make_terrain(
    n_samples: int = 100,
    *,
    shape: tuple[int, int] = (64, 128),
    n_channels: int = 1,
    class_frequencies: Sequence[float] | None = None,
    noise: float = 0.006,
    outliers: int | float | Mapping[str, int] | None = None,
    return_outliers: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[np.ndarray, ...]:
    """Generate images of Martian terrain and their masks.

    Grey-scale scenes as a rover sees them, with a mask that is right to the pixel: sky and far
    relief (label 0, background), soil strewn with stones (1), cracked or layered bedrock (2),
    smooth or rippled sand (3) and big rocks (4). Sun, camera, albedo of each class, exposure,
    contrast and sharpness differ from image to image, and the grey levels of the classes
    overlap: they are told apart by texture and form, hardly by brightness.

    Parameters
    ----------
    n_samples : int, default=100
        Number of images.
    shape : tuple of int, default=(64, 128)
        Height and width of the images in pixels, each at least 8.
    n_channels : {1, 3}, default=1
        1 for grey images, 3 for the same scenes in butterscotch RGB.
    class_frequencies : sequence of 5 floats, default=None
        Expected part of all pixels for each class; scaled to sum to 1. Big rocks can be at most
        half of what is not background. None stands for the frequencies of the AN2DL data set:
        24.31, 33.90, 23.28, 18.38 and 0.13 %, with big rocks in only about 2.5 % of the images.
        Single images deviate widely, and some show one class only.
    noise : float, default=0.006
        Mean standard deviation of the sensor noise, as a part of the full range.
    outliers : int, float or dict of str -> int, default=None
        Images to spoil. An int is a count and a float in [0, 1) a fraction of sprites; a dict
        gives a count for each kind: "sprite" (a foreign face is pasted on the image; all of them
        carry one and the same mask, as in AN2DL), "black" and "saturated" frames, "noise" (nothing
        but it), "stripes" (lost rows), "blur", and "duplicate" (the copy of another image, which
        contradicts the mask). Apart from sprites the masks stay as they were, and so do all
        other images.
    return_outliers : bool, default=False
        Whether to return also the kinds of outliers.
    random_state : int, RandomState instance or None, default=None
        Determines the data set; pass an int for reproducible output across calls. With the same
        int, image i is the same for every `n_samples` unless it is an outlier.

    Returns
    -------
    X : ndarray of shape (n_samples, height, width) or (n_samples, height, width, 3)
        Images, uint8.
    y : ndarray of shape (n_samples, height, width)
        Masks, uint8, labels 0 to 4.
    kinds : ndarray of shape (n_samples,)
        Kind of outlier of each image, as a string, "" for clean ones. Only returned if
        `return_outliers` is True.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or there are more outliers than images.

    Notes
    -----
    The classes share one height map, lit by one sun, that is assembled from fractal surfaces [1]_
    for soil, dunes and layers, a cellular texture [2]_ for slabs of rock, warped waves for
    ripples, and intersections of half-spaces for stones.

    References
    ----------
    .. [1] D. Saupe, "Algorithms for random fractals", in H.-O. Peitgen, D. Saupe (eds.), The
       Science of Fractal Images, Springer, 1988.
    .. [2] S. Worley, "A cellular texture basis function", SIGGRAPH 1996, 291-294.

    Examples
    --------
    >>> from skmars.datasets import make_terrain
    >>> X, y = make_terrain(4, random_state=0)
    >>> X.shape, X.dtype, y.shape, y.dtype
    ((4, 64, 128), dtype('uint8'), (4, 64, 128), dtype('uint8'))

    >>> X, y, kinds = make_terrain(
    ...     6, shape=(32, 32), outliers={"sprite": 2}, return_outliers=True, random_state=0
    ... )
    >>> int((kinds == "sprite").sum())
    2
    """
    height, width = _check_options(n_samples, shape, n_channels, noise)
    frequencies = _check_frequencies(class_frequencies)
    counts = count_outliers(outliers, n_samples)
    entropy = check_random_state(random_state).randint(0, 2**31 - 1, size=4)
    layout_seed, scene_seed, outlier_seed = np.random.SeedSequence(entropy.tolist()).spawn(3)

    shares, rock_shares = _draw_shares(layout_seed, n_samples, frequencies)
    X = np.empty((n_samples, height, width, n_channels), dtype=np.uint8)
    y = np.empty((n_samples, height, width), dtype=np.uint8)
    for i, seed in enumerate(scene_seed.spawn(n_samples)):
        rng = np.random.default_rng(seed)
        scene, y[i] = draw_scene(rng, (height, width), shares[i], rock_shares[i])
        X[i] = _expose(rng, scene, n_channels, noise)
    kinds = plant_outliers(outlier_seed, X, y, counts)
    if n_channels == 1:
        X = X[..., 0]
    return (X, y, kinds) if return_outliers else (X, y)


def _draw_shares(
    seed: np.random.SeedSequence, n_samples: int, frequencies: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the composition of every image: Dirichlet shares, and the share of big rocks.

    The uniform numbers behind them are an additive recurrence (Kronecker sequence), so that also
    a small set comes near the frequencies, while image i is the same in every larger set.
    """
    start = np.random.default_rng(seed).random(4)
    steps = np.sqrt([2.0, 3.0, 5.0, 7.0])
    uniform = (start + np.arange(n_samples)[:, None] * steps) % 1

    rock = frequencies[4]
    alpha = _CONCENTRATION * frequencies[:4] / (1 - rock)
    shares = np.zeros((n_samples, 4))
    left = np.ones(n_samples)
    for k in range(4):
        part = _beta_quantile(uniform[:, k], alpha[k], alpha[k + 1 :].sum()) if k < 3 else 1.0
        shares[:, k] = left * part
        left = left - shares[:, k]
    shares[shares < _SMALLEST_SHARE] = 0
    shares /= shares.sum(axis=1, keepdims=True)

    if rock == 0:
        return shares, np.zeros(n_samples)
    # Rocks need ground to lie on, so images that are nearly all background get none.
    p_ground = special.betainc(alpha[0], alpha[1:].sum(), _MOST_BACKGROUND) if alpha[0] else 1.0
    presence = min(1.0, rock / _ROCK_SHARE / p_ground)
    has_rock = (shares[:, 0] < _MOST_BACKGROUND) & (uniform[:, 3] < presence)
    return shares, np.where(has_rock, rock / (presence * p_ground), 0.0)


def _beta_quantile(uniform: np.ndarray, a: float, b: float) -> np.ndarray | float:
    if a <= 0:
        return 0.0
    return special.betaincinv(a, b, uniform) if b > 0 else 1.0


def _expose(
    rng: np.random.Generator, scene: np.ndarray, n_channels: int, noise: float
) -> np.ndarray:
    """Photograph a scene: optics, exposure, contrast, tint and sensor noise, to uint8."""
    scene = ndimage.gaussian_filter(scene, rng.uniform(0.0, 0.4))
    contrast = rng.uniform(0.55, 1.15)
    level = np.clip(rng.normal(0.48, 0.09), 0.22, 0.72)
    image = level + contrast * (scene - scene.mean())
    image = image[..., None] * _tint(rng, n_channels)
    image += noise * rng.uniform(0.5, 1.5) * rng.standard_normal(image.shape)
    return np.clip(np.rint(255 * image), 0, 255).astype(np.uint8)


def _tint(rng: np.random.Generator, n_channels: int) -> np.ndarray:
    if n_channels == 1:
        return np.ones(1)
    return np.array([1.25, 1.0, 0.78]) + rng.normal(0, 0.04, 3)


def _check_options(
    n_samples: int, shape: tuple[int, int], n_channels: int, noise: float
) -> tuple[int, int]:
    if not isinstance(n_samples, Integral) or n_samples < 1:
        raise ValueError(f"n_samples must be an int >= 1, got {n_samples!r}")
    if np.shape(shape) != (2,) or min(shape) < 8:
        raise ValueError(f"shape must be (height, width), each at least 8, got {shape!r}")
    if n_channels not in (1, 3):
        raise ValueError(f"n_channels must be 1 or 3, got {n_channels!r}")
    if not isinstance(noise, Real) or not 0 <= noise < math.inf:
        raise ValueError(f"noise must be a finite number >= 0, got {noise!r}")
    return int(shape[0]), int(shape[1])


def _check_frequencies(class_frequencies: Sequence[float] | None) -> np.ndarray:
    given = _AN2DL_FREQUENCIES if class_frequencies is None else class_frequencies
    frequencies = np.asarray(given, dtype=float)
    if frequencies.shape != (5,) or not (frequencies >= 0).all() or frequencies.sum() <= 0:
        raise ValueError(
            "class_frequencies must be five numbers >= 0, not all 0, one for each of "
            f"{TARGET_NAMES}, got {class_frequencies!r}"
        )
    frequencies = frequencies / frequencies.sum()
    if frequencies[4] > 0.5 * (1 - frequencies[0]):
        raise ValueError(
            "class_frequencies: big rocks lie on ground and can make up at most half of what "
            f"is not background, got {class_frequencies!r}"
        )
    return frequencies
