"""What all displays need of matplotlib, which is imported late."""

from typing import Any

import numpy as np


def require_matplotlib(caller: str) -> None:
    """Raise an ImportError that says how to install matplotlib if it is not there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{caller} needs matplotlib, which the extra 'plot' of skmars installs"
        ) from error


def make_panels(ax, shape: tuple[int, int], size: tuple[float, float]) -> tuple[np.ndarray, Any]:
    """Axes in rows and columns, and their figure: new ones, in `ax`, or `ax` itself."""
    from matplotlib.axes import Axes

    if ax is None:
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(*shape, figsize=size, squeeze=False, layout="constrained")
        return axes, figure
    if not isinstance(ax, Axes):
        axes = np.asarray(ax, dtype=object)
        if axes.size != shape[0] * shape[1]:
            raise ValueError(f"ax must be one Axes or {shape[0]} x {shape[1]} of them")
        return axes.reshape(shape), axes.flat[0].figure
    place = ax.get_subplotspec()
    if place is None:
        raise ValueError("ax must be a subplot, as it is divided into panels")
    ax.set_axis_off()
    return place.subgridspec(*shape).subplots(squeeze=False), ax.figure


def tidy(panel) -> None:
    """Draw a panel of curves with a light grid, without the frame's upper and right side."""
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(color="0.92")
    panel.set_axisbelow(True)
