"""Images and labels as colours, without matplotlib."""

import numpy as np

__all__ = ["PALETTE", "as_rgb", "label_colors", "rgb"]

# Sky slate, rust, teal, sand yellow, plum; then colours that differ from them.
# fmt: off
PALETTE = (
    "#56607a", "#c9703a", "#2f8f8b", "#f1cb5b", "#9b2583", "#4878cf", "#6acc65", "#d65f5f",
    "#956cb4", "#8c613c", "#dc7ec0", "#797979", "#d5bb67", "#82c6e2", "#1b5e20", "#01579b",
    "#b71c1c", "#cddc39", "#ffab91", "#4a148c",
)
# fmt: on


def rgb(color: str) -> np.ndarray:
    """Red, green and blue in [0, 1] of a colour written "#rrggbb"."""
    return np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)]) / 255


def label_colors(labels: np.ndarray) -> np.ndarray:
    """Colours of sorted labels by their value; those beyond the palette get what is left of it."""
    palette = np.array([rgb(color) for color in PALETTE])
    within = np.array([0 <= label < len(palette) for label in labels], dtype=bool)
    places = np.zeros(len(labels), dtype=int)
    places[within] = labels[within]
    left = np.setdiff1d(np.arange(len(palette)), places[within])[::-1]
    if len(left) == 0:
        left = np.arange(len(palette))
    places[~within] = np.resize(left, np.count_nonzero(~within))
    return palette[places]


def as_rgb(image, limits: tuple[float, float] | None = None) -> np.ndarray:
    """A copy of an image as floats in [0, 1] of shape (H, W, 3).

    The limits are the values of black and white; without some, or with none between them, the
    image is stretched to its own values.
    """
    pixels = np.array(image, dtype=np.float64)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[2] != 3:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    low, high = (0.0, 0.0) if limits is None else limits
    finite = pixels[np.isfinite(pixels)]
    if high <= low and finite.size:
        # A few glaring or dead pixels must not decide how dark all others are.
        low, high = np.percentile(finite, (0.5, 99.5))
    if high <= low:
        return np.full_like(pixels, 0.5)
    return np.nan_to_num(np.clip((pixels - low) / (high - low), 0, 1))
