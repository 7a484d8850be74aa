"""One scene: where the classes lie, the relief they have, and the light on it."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from skmars.datasets._textures import (
    N_LEVELS,
    SIZE,
    faceted_body,
    sample,
    sample_grid,
    texture_bank,
)

BACKGROUND, SOIL, BEDROCK, SAND, BIG_ROCK = range(5)


@dataclass(frozen=True)
class View:
    """Where the camera looks: the ground coordinates of every pixel.

    `scale` is the size of things on the screen relative to the middle of the ground; it falls
    towards the horizon. `depth` and `columns` are in pixels at scale 1, where a pixel is `zoom`
    texels wide; `squeeze` says how much flat things are foreshortened there.
    """

    columns: np.ndarray
    scale: np.ndarray
    depth: float
    zoom: float
    squeeze: float

    def flat(
        self,
        stack: np.ndarray,
        rng: np.random.Generator,
        *,
        magnify: float = 1.0,
        angle: float = 0.0,
        warp: np.ndarray | float = 0.0,
    ) -> np.ndarray:
        """Lay a texture flat on the ground; heights come in pixels of the screen."""
        # Magnified by the root of the squeeze, features keep their mean size on the screen.
        texels_per_pixel = self.zoom / (magnify * np.sqrt(self.squeeze) * self.scale)
        x = self.columns * texels_per_pixel
        y = -self.squeeze * self.depth * texels_per_pixel
        start = rng.uniform(0, SIZE, 2)
        mirror = rng.choice([-1.0, 1.0])
        cos, sin = np.cos(angle), np.sin(angle)
        along = mirror * (cos * x + sin * y) + start[0]
        across = cos * y - sin * x + start[1] + warp
        blur = texels_per_pixel * np.sqrt(self.squeeze / self.scale)
        level = np.clip(np.log2(blur) + 0.2, 0, N_LEVELS - 1)
        return sample(stack, across, along, level) / texels_per_pixel

    def upright(
        self, stack: np.ndarray, rng: np.random.Generator, *, magnify: float = 1.0
    ) -> np.ndarray:
        """Face a texture to the camera, as stones look about alike from all sides.

        Things further away are smaller: copies of the texture, each half the size of the one
        before, take over from one another with the distance.
        """
        octave = np.log2(self.scale)
        height = np.zeros(self.scale.shape)
        for k in np.arange(np.floor(octave.min()), np.ceil(octave.max()) + 1):
            weight = np.maximum(1 - np.abs(octave - k), 0)
            touched = np.flatnonzero(weight.any(axis=1))
            if len(touched) == 0:
                continue
            band = slice(touched[0], touched[-1] + 1)
            texels_per_pixel = self.zoom / (magnify * 2.0**k)
            start = rng.uniform(0, SIZE, 2)
            x = start[0] + rng.choice([-1.0, 1.0]) * texels_per_pixel * self.columns
            y = start[1] + 1.2 * texels_per_pixel * np.arange(band.start, band.stop)
            level = int(np.clip(np.rint(np.log2(texels_per_pixel)), 0, N_LEVELS - 1))
            texture = sample_grid(stack[level], y, x)
            height[band] += weight[band] * texture / texels_per_pixel
        return height


def draw_scene(
    rng: np.random.Generator, shape: tuple[int, int], shares: np.ndarray, rock_share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image (float, about 0..1, no sensor effects) and its mask.

    `shares` are the parts of background, soil, bedrock and sand in what the big rocks, which
    take `rock_share` of the image, leave free.
    """
    skyline = _fractal_line(rng, shape)
    view = _point_camera(rng, shape, skyline, shares[BACKGROUND])
    rock_height = _big_rocks(rng, shape, shares[BACKGROUND], rock_share)
    mask = _lay_out(rng, view, skyline, shares, rock_height)
    image = _render_ground(rng, view, mask, rock_height)
    if shares[BACKGROUND] > 0:
        image = np.where(mask == BACKGROUND, _render_background(rng, mask), image)
    return image, mask


def _point_camera(
    rng: np.random.Generator, shape: tuple[int, int], skyline: np.ndarray, background: float
) -> View:
    height, width = shape
    rows = np.repeat(np.arange(height, dtype=float)[:, None], width, axis=1)
    columns = np.arange(width) - rng.uniform(0.3, 0.7) * width
    if background > 0:
        # The ground rises and falls with its skyline, and the less so the nearer it is.
        relief = skyline - skyline.mean()
        rows += relief
        rows -= np.quantile(rows, background)
        rows -= relief * (1 - np.exp(-np.maximum(rows, 0) / (0.35 * height)))
        horizon = -rng.uniform(0.08, 0.25) * height
    else:
        rows += rng.normal(0, 0.04) * columns
        horizon = -height * rng.uniform(0.1, 2.5) ** 1.5
    depth = rows.max() / 2 - horizon
    return View(
        columns=columns,
        scale=np.maximum((rows - horizon) / depth, 0.1),
        depth=depth,
        zoom=rng.uniform(0.7, 1.5),
        squeeze=1 + min(1.0, 0.8 * height / depth) * rng.uniform(1, 4),
    )


def _noise_on_screen(
    rng: np.random.Generator,
    shape: tuple[int, int],
    step: tuple[float, float],
    texture: str = "noise",
) -> np.ndarray:
    """Smooth noise over the image, `step` texels per row and per column."""
    start = rng.uniform(0, SIZE, 2)
    y, x = (start[axis] + step[axis] * np.arange(shape[axis]) for axis in (0, 1))
    return sample_grid(getattr(texture_bank(), texture)[0], y, x)


def _fractal_line(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw a line of hills across the image: its height in pixels, about 0, for every column."""
    height, width = shape
    line = _noise_on_screen(rng, (1, width), (0.0, rng.uniform(0.2, 0.7)))[0]
    relief = 0.05 * height * rng.random() ** 3
    return relief * line + rng.normal(0, 0.04) * np.arange(width)


def _big_rocks(
    rng: np.random.Generator, shape: tuple[int, int], background: float, share: float
) -> np.ndarray:
    """Height, in pixels, of rocks that cover `share` of the image; 0 where there are none."""
    height, width = shape
    n_pixels = round(share * height * width)
    if n_pixels == 0:
        return np.zeros(shape)
    n_rocks = 1 + rng.poisson(1 + 10 * share)
    rows, columns = np.mgrid[:height, :width].astype(float)
    wobble = 0.08 * _noise_on_screen(rng, shape, (2.5, 2.5))
    field = np.full(shape, -np.inf)
    size = np.sqrt(n_pixels / (2.2 * n_rocks))
    for _ in range(n_rocks):
        radius = size * rng.uniform(0.5, 1.3)
        row = rng.uniform(min(background + 0.1, 0.9), 1) * height
        column = rng.uniform(0, width)
        y = (rows - row) / (radius * rng.uniform(0.55, 1.0)) + wobble
        x = (columns - column) / radius + wobble[::-1, ::-1]
        body = faceted_body(rng, y, x, int(rng.integers(5, 10)), rng.uniform(0, 0.2))
        field = np.maximum(field, radius * body)
    # Cutting the bodies at one level keeps their form and gives the area asked for.
    level = np.partition(field, -n_pixels, axis=None)[-n_pixels]
    return np.maximum(field - level, 0) + 0.01 * (field >= level)


def _lay_out(
    rng: np.random.Generator,
    view: View,
    skyline: np.ndarray,
    shares: np.ndarray,
    rock_height: np.ndarray,
) -> np.ndarray:
    """Divide the image among the classes, in the shares asked for up to one pixel."""
    mask = np.where(rock_height > 0, BIG_ROCK, SOIL).astype(np.uint8)
    free = mask == SOIL
    total = free.sum()
    altitude = -np.arange(mask.shape[0])[:, None] - skyline
    _occupy(mask, free, altitude, BACKGROUND, round(shares[BACKGROUND] * total))
    ground = rng.permutation([k for k in (SOIL, BEDROCK, SAND) if shares[k] > 0])
    for label in ground[:-1]:
        patches = view.flat(texture_bank().noise, rng, magnify=rng.uniform(1.5, 3.0))
        patches /= view.scale
        _occupy(mask, free, patches, label, round(shares[label] * total))
    mask[free] = ground[-1] if len(ground) else BACKGROUND
    return mask


def _occupy(
    mask: np.ndarray, free: np.ndarray, field: np.ndarray, label: int, n_pixels: int
) -> None:
    """Give the free pixels where `field` is highest to a class; changes `mask` and `free`."""
    candidates = np.flatnonzero(free)
    n_pixels = min(n_pixels, len(candidates))
    if n_pixels == 0:
        return
    highest = np.argpartition(field.ravel()[candidates], -n_pixels)[-n_pixels:]
    mask.ravel()[candidates[highest]] = label
    free.ravel()[candidates[highest]] = False


def _render_ground(
    rng: np.random.Generator, view: View, mask: np.ndarray, rock_height: np.ndarray
) -> np.ndarray:
    """Light the relief of all classes together, so that one throws shadows on the other."""
    surfaces = {SOIL: _soil, BEDROCK: _bedrock, SAND: _sand}
    albedo = 0.5 + rng.uniform(-0.1, 0.1, 5)
    albedo[BIG_ROCK] *= rng.uniform(0.7, 1.0)
    height = _dunes(rng, view)
    brightness = np.zeros(mask.shape)
    for label in np.unique(mask):
        weight = ndimage.gaussian_filter((mask == label).astype(float), 0.8)
        relief, tone = surfaces[label](rng, view) if label in surfaces else (0.0, 1.0)
        height += weight * relief
        brightness += weight * albedo[label] * tone
    rough = rng.uniform(0.5, 1.0) * _noise_on_screen(rng, mask.shape, (1.0, 1.0), "grain")
    height += rock_height + rough * (rock_height > 0)
    brightness *= 1 + 0.06 * _noise_on_screen(rng, mask.shape, (2.0, 1.0))
    speckle = rng.uniform(0.06, 0.14) * _noise_on_screen(rng, mask.shape, (2.3, 1.9), "grain")
    brightness *= 1 + speckle * (mask != SAND)
    image = brightness * _light(rng, height)
    haze = np.exp(-view.scale / 0.25) * rng.uniform(0.2, 0.9)
    return image + haze * (rng.uniform(0.42, 0.6) - image)


def _dunes(rng: np.random.Generator, view: View) -> np.ndarray:
    broad = view.flat(texture_bank().noise, rng, magnify=2.5)
    return rng.uniform(0.15, 0.6) * broad


def _soil(rng: np.random.Generator, view: View) -> tuple[np.ndarray, np.ndarray | float]:
    bank = texture_bank()
    size = rng.uniform(0.6, 1.3)
    gravel = view.upright(bank.gravel, rng, magnify=0.8 * size)
    cobbles = view.upright(bank.cobbles, rng, magnify=0.55 * size)
    grain = view.upright(bank.grain, rng, magnify=0.8)
    stones = rng.uniform(0.9, 2.2) * gravel + rng.uniform(0.5, 1.8) * cobbles
    darkening = rng.uniform(-0.05, 0.3) * np.clip(stones, 0, 1)
    return stones + rng.uniform(0.6, 1.1) * grain, 1 - darkening


def _bedrock(rng: np.random.Generator, view: View) -> tuple[np.ndarray, np.ndarray | float]:
    bank = texture_bank()
    warp = rng.uniform(0.3, 2) * _noise_on_screen(rng, view.scale.shape, (1.0, 1.0))
    angle = rng.normal(0, 0.25)
    size = rng.uniform(0.7, 1.4)
    layered = rng.beta(0.6, 0.6)
    plates = view.flat(bank.plates, rng, magnify=size, angle=angle, warp=warp)
    ledges = view.flat(bank.ledges, rng, magnify=size, angle=angle, warp=warp)
    return rng.uniform(0.5, 0.9) * ((1 - layered) * plates + layered * ledges), 1.0


def _sand(rng: np.random.Generator, view: View) -> tuple[np.ndarray, np.ndarray | float]:
    bank = texture_bank()
    warp = rng.uniform(0.5, 3) * _noise_on_screen(rng, view.scale.shape, (1.0, 1.0))
    angle = rng.uniform(-0.9, 0.9)
    size = rng.uniform(0.7, 2.0)
    ripples = view.flat(bank.ripples, rng, magnify=size, angle=angle, warp=warp)
    return 0.6 * rng.beta(0.6, 1.6) * ripples, 1.0


def _light(rng: np.random.Generator, height: np.ndarray) -> np.ndarray:
    """Shade a height map: Lambert's cosine law, cast shadows, darkening in hollows."""
    azimuth = rng.uniform(-0.15, 1.15) * np.pi
    elevation = rng.uniform(0.35, 0.9)
    sun = np.array([np.cos(azimuth), -np.sin(azimuth)]) * np.cos(elevation)
    slope_y, slope_x = np.gradient(height)
    cosine = np.sin(elevation) - sun[0] * slope_x - sun[1] * slope_y
    cosine /= np.sqrt(1 + slope_x**2 + slope_y**2)
    lit = np.maximum(cosine, 0) / np.sin(elevation) * (1 - _shadows(height, sun, elevation))
    hollow = np.clip(ndimage.gaussian_filter(height, 2.0) - height, -1, 2)
    ambient = rng.uniform(0.4, 0.6)
    skylight = ambient * (1 - 0.3 * np.clip(slope_y, -1, 1))
    return (skylight + (1 - ambient) * np.minimum(lit, 1.6)) * (1 - 0.12 * hollow)


def _shadows(height: np.ndarray, sun: np.ndarray, elevation: float) -> np.ndarray:
    """Part of the sun (0..1) that higher ground within a few pixels hides."""
    toward = sun / np.linalg.norm(sun)
    reach = 10
    padded = np.pad(height, reach, mode="edge")
    shadow = np.zeros_like(height)
    for step in (1, 2, 3, 4, 6, 8, 10):
        dx, dy = np.rint(step * toward).astype(int)
        blocker = padded[reach + dy :, reach + dx :][: height.shape[0], : height.shape[1]]
        shadow = np.maximum(shadow, blocker - step * np.tan(elevation) - height)
    return np.clip(shadow / 0.8, 0, 1)


def _render_background(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Sky, and in front of it the ridges of far relief, paler the further away they are."""
    lowest = np.flatnonzero((mask == BACKGROUND).any(axis=1))[-1]
    altitude = np.broadcast_to(lowest - np.arange(mask.shape[0])[:, None], mask.shape)
    sky = rng.uniform(0.45, 0.75)
    image = sky + rng.uniform(-0.15, 0.08) * altitude / mask.shape[0]
    n_ridges = int(rng.integers(0, 4))
    crests = np.sort(rng.uniform(0, 1.2, n_ridges))[::-1] * max(lowest, 1)
    for depth, crest in enumerate(crests):
        nearness = (depth + 1) / (n_ridges + 1)
        slope = _noise_on_screen(rng, mask.shape, (3.0, 1.2))
        texture = rng.uniform(0.0, 0.3) * np.diff(slope, axis=1, append=slope[:, -1:])
        tone = sky + nearness * (rng.uniform(0.35, 0.55) * (1 + texture) - sky)
        image = np.where(altitude < crest + _fractal_line(rng, mask.shape), tone, image)
    return image
