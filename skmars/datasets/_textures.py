"""Periodic height textures from which the terrain scenes are put together.

Every texture is a square height map, in units of its own pixels (texels), that continues across
its edges, together with smoothed copies for surfaces seen from further away (a mip map).
The bank is the same for every call; a scene takes random windows, turns and scales of it.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

SIZE = 384
N_LEVELS = 6
_BANK_SEED = 20120806


@dataclass(frozen=True)
class TextureBank:
    """Texture stacks of shape (N_LEVELS, SIZE, SIZE), float32.

    `noise` has mean 0 and standard deviation 1, and serves as a source of smooth random fields;
    the others are heights.
    """

    noise: np.ndarray
    grain: np.ndarray
    gravel: np.ndarray
    cobbles: np.ndarray
    plates: np.ndarray
    ledges: np.ndarray
    ripples: np.ndarray


@cache
def texture_bank() -> TextureBank:
    """Build the textures once per process."""
    rng = np.random.default_rng(_BANK_SEED)
    return TextureBank(
        noise=_mip_map(fractal_noise(rng, 4.2)),
        grain=_mip_map(0.5 * fractal_noise(rng, 1.6)),
        gravel=_mip_map(_stones(rng, n_stones=2200, radii=(1.2, 3.5))),
        cobbles=_mip_map(_stones(rng, n_stones=150, radii=(2.5, 8.0))),
        plates=_mip_map(_plates(rng)),
        ledges=_mip_map(_ledges(rng)),
        ripples=_mip_map(_ripples(rng)),
    )


def sample(stack: np.ndarray, y: np.ndarray, x: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Look a texture up at texel positions, linearly between texels and between mip levels."""
    return ndimage.map_coordinates(stack, (level, y, x), order=1, mode="grid-wrap")


def sample_grid(texture: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Look one level up on the grid of rows `y` (n,) and columns `x` (m,), linearly."""
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    part_y, part_x = (y - top)[:, None], x - left
    rows = (1 - part_y) * texture[top % SIZE] + part_y * texture[(top + 1) % SIZE]
    return (1 - part_x) * rows[:, left % SIZE] + part_x * rows[:, (left + 1) % SIZE]


def fractal_noise(rng: np.random.Generator, exponent: float) -> np.ndarray:
    """Draw periodic noise whose power falls off as frequency ** -exponent.

    Spectral synthesis of fractional Brownian surfaces (Saupe, in Peitgen & Saupe, The Science of
    Fractal Images, 1988). Mean 0, standard deviation 1.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((SIZE, SIZE)))
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :])
    frequency[0, 0] = np.inf
    # Waves longer than an eighth of the tile would make all windows of it look alike.
    spectrum *= np.maximum(frequency, 8 / SIZE) ** (-exponent / 2) * (frequency < np.inf)
    field = np.fft.irfft2(spectrum, s=(SIZE, SIZE))
    return field / field.std()


def faceted_body(
    rng: np.random.Generator, y: np.ndarray, x: np.ndarray, n_facets: int, roundness: float
) -> np.ndarray:
    """Height of a convex stone over (y, x), which are in units of its radius; <= 0 outside.

    The stone is the intersection of half-spaces, one a facet, blended with an ellipsoid.
    """
    angle = 2 * np.pi * (np.arange(n_facets) + rng.uniform(-0.35, 0.35, n_facets)) / n_facets
    slope = rng.uniform(0.5, 1.8, n_facets)
    distance = rng.uniform(0.75, 1.05, n_facets)
    along = np.multiply.outer(np.cos(angle), x) + np.multiply.outer(np.sin(angle), y)
    shape = (-1,) + (1,) * np.ndim(y)
    facets = slope.reshape(shape) * (distance.reshape(shape) - along)
    tilt = rng.uniform(-0.3, 0.3, 2)
    top = rng.uniform(0.45, 0.8) + tilt[0] * x + tilt[1] * y
    polyhedron = np.minimum(facets.min(axis=0), top)
    dome = 0.8 * (1 - x**2 - y**2)
    return (1 - roundness) * polyhedron + roundness * dome


def _mip_map(height: np.ndarray) -> np.ndarray:
    levels = [height]
    levels += [
        ndimage.gaussian_filter(height, 0.6 * 2**i, mode="wrap") for i in range(N_LEVELS - 1)
    ]
    return np.stack(levels).astype(np.float32)


def _stones(rng: np.random.Generator, n_stones: int, radii: tuple[float, float]) -> np.ndarray:
    """Scatter stones over flat ground; many small ones, few large ones (a power law)."""
    ground = np.zeros((SIZE, SIZE))
    smallest, largest = radii
    for _ in range(n_stones):
        radius = smallest * (largest / smallest) ** (rng.random() ** 2.5)
        centre = rng.integers(0, SIZE, 2)
        reach = int(1.5 * radius) + 1
        offsets = np.arange(-reach, reach + 1)
        y, x = np.meshgrid(
            offsets / radius, offsets / radius * rng.uniform(0.65, 1), indexing="ij"
        )
        body = radius * faceted_body(rng, y, x, n_facets=6, roundness=rng.uniform(0.0, 0.4))
        window = np.ix_((centre[0] + offsets) % SIZE, (centre[1] + offsets) % SIZE)
        ground[window] = np.maximum(ground[window], body)
    return ground


def _plates(rng: np.random.Generator) -> np.ndarray:
    """Cracked slabs: a warped cellular texture (Worley, SIGGRAPH 1996).

    Each cell is a slab of its own height and tilt; the crack runs where the distances to the
    nearest two seeds (F1 and F2) meet.
    """
    n_cells = 240
    seeds = rng.uniform(0, SIZE, (n_cells, 2))
    y, x = np.mgrid[:SIZE, :SIZE].astype(float)
    warp_y, warp_x = (5 * fractal_noise(rng, 3.0) for _ in range(2))
    points = np.stack([(y + warp_y) % SIZE, (x + warp_x) % SIZE], axis=-1)
    distance, nearest = cKDTree(seeds, boxsize=SIZE).query(points, k=2)
    crack = np.clip((distance[..., 1] - distance[..., 0]) / 4.5, 0, 1)
    owner = nearest[..., 0]
    offset = (points - seeds[owner] + SIZE / 2) % SIZE - SIZE / 2
    tilt = rng.normal(0, 0.11, (n_cells, 2))[owner]
    top = rng.uniform(2.0, 6.5, n_cells)[owner] + (tilt * offset).sum(axis=-1)
    return crack**0.6 * top + 0.45 * fractal_noise(rng, 1.8)


def _ledges(rng: np.random.Generator) -> np.ndarray:
    """Layered rock: a long-drawn fractal surface cut into terraces."""
    surface = ndimage.zoom(fractal_noise(rng, 3.2)[:, : SIZE // 4], (1, 4), order=1, mode="wrap")
    surface = ndimage.gaussian_filter1d(surface, 1.0, axis=1, mode="wrap")
    layers = 2.6 * surface + 0.1 * fractal_noise(rng, 2.0)
    step = np.floor(layers)
    riser = np.clip((layers - step - 0.7) / 0.3, 0, 1)
    return 2.4 * (step + riser) + 0.4 * fractal_noise(rng, 1.6)


def _ripples(rng: np.random.Generator) -> np.ndarray:
    """Wind ripples: warped, forking waves with a long windward and a short lee slope."""
    n_waves = 42
    y = np.arange(SIZE)[:, None] * (n_waves / SIZE)
    phase = y + 0.55 * fractal_noise(rng, 3.0)
    saw = phase - np.floor(phase)
    wave = np.minimum(saw / 0.68, (1 - saw) / 0.32)
    strength = 1 + 0.35 * np.clip(fractal_noise(rng, 3.0), -2, 2)
    return 2.0 * strength * (wave - 0.5)
