"""The confusion matrix as a picture."""

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay

from skmars.inspection._figures import require_matplotlib


def confusion_display(counts, names: Sequence[str], *, ax=None) -> ConfusionMatrixDisplay:
    """Plot the share of each true class that was predicted as each class.

    Parameters
    ----------
    counts : array-like of shape (K, K)
        As `skmars.metrics.confusion_counts` gives them.
    names : sequence of str
        Names of the classes.
    ax : matplotlib Axes, default=None
        By default those of a new figure.

    Returns
    -------
    display : sklearn.metrics.ConfusionMatrixDisplay

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from skmars.inspection import confusion_display
    >>> confusion_display([[3, 1], [0, 4]], ["soil", "sand"]).text_[0, 0].get_text()
    '0.75'
    """
    require_matplotlib("confusion_display")
    import matplotlib.pyplot as plt

    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if ax is None:
        side = 2.0 + 0.7 * len(names)
        ax = plt.subplots(figsize=(side, side), layout="constrained")[1]
    display = ConfusionMatrixDisplay(shares, display_labels=names).plot(
        ax=ax,
        cmap="Blues",
        values_format=".2f",
        colorbar=False,
        xticks_rotation="horizontal" if len(names) < 7 else "vertical",
        im_kw={"vmin": 0, "vmax": 1},
    )
    ax.set_title("share of each true class", fontsize="medium")
    return display
