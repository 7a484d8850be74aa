"""A contact sheet of outliers with the reasons why they are some."""

import textwrap

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skmars._validation import thinned
from skmars.inspection._figures import make_panels, require_matplotlib
from skmars.inspection._pictures import as_rgb, label_colors

_PANEL_WIDTH = 2.6
_LETTERS_A_LINE = 44
_LINE_HEIGHT = 0.13
# Images that tell the limits of the brightness.
_N_SAMPLED = 200


class OutlierDisplay:
    """Pictures of outliers, the clearest first, with their rows, masks and reasons.

    It is recommended to use :meth:`from_estimator`.

    Parameters
    ----------
    images : sequence of (H, W) or (H, W, C) arrays
        Outliers.
    rows : array-like of shape (n_outliers,) of int
        Their places in the data set.
    reasons : sequence of str of length n_outliers
        Why they are outliers.
    masks : sequence of (H, W) arrays, default=None
        Their masks.
    limits : tuple of float, default=None
        Values to show as black and as white in all images alike, so that a dark frame looks dark.
        By default the contrast of each image is stretched.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        A panel for each image and, beside it, one for its mask.
    figure_ : matplotlib Figure
        Figure with the panels.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from skmars.datasets import make_terrain
    >>> from skmars.inspection import OutlierDisplay
    >>> from skmars import OutlierRemover
    >>> X, y = make_terrain(60, shape=(32, 64), outliers={"sprite": 4}, random_state=0)
    >>> remover = OutlierRemover(method="repeated_mask").fit(X, y)
    >>> display = OutlierDisplay.from_estimator(remover, X, y, images_per_row=2)
    >>> display.axes_.shape
    (2, 4)
    """

    def __init__(self, images, rows, reasons, *, masks=None, limits=None):
        self.images = images
        self.rows = rows
        self.reasons = reasons
        self.masks = masks
        self.limits = limits

    @classmethod
    def from_estimator(cls, remover, X, y=None, *, max_images=24, ax=None, **kwargs):
        """Plot what a fitted remover takes.

        Parameters
        ----------
        remover : OutlierRemover
            Fitted to `X`.
        X : array-like of shape (n, H, W) or (n, H, W, C)
            The images it was fitted to.
        y : array-like of shape (n, H, W), default=None
            Their masks, to be shown as well.
        max_images : int, default=24
            Outliers to show, those with the highest scores.
        ax : matplotlib Axes or array of Axes, default=None
            See :meth:`plot`.
        **kwargs
            Further arguments of :meth:`plot`.

        Returns
        -------
        display : OutlierDisplay

        Raises
        ------
        ValueError
            If `X` or `y` has another number of images than the remover has seen.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        check_is_fitted(remover)
        n = len(remover.outlier_mask_)
        for name, values in {"X": X, "y": y}.items():
            if values is not None and len(values) != n:
                raise ValueError(
                    f"the remover was fitted to {n} images, but {name} has {len(values)}"
                )
        order = np.argsort(-remover.scores_, kind="stable")
        rows = order[remover.outlier_mask_[order]][:max_images]
        some = [thinned(np.asarray(image)).ravel() for image in X[:: -(-n // _N_SAMPLED)]]
        limits = np.percentile(np.concatenate(some).astype(np.float64), (0.5, 99.5))
        display = cls(
            [X[row] for row in rows],
            rows,
            remover.reasons_[rows].tolist(),
            masks=None if y is None else [y[row] for row in rows],
            limits=tuple(limits.tolist()),
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, images_per_row=4):
        """Draw the panels.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes, default=None
            Axes to divide into panels, or one Axes for each panel, row by row. By default a new
            figure.
        images_per_row : int, default=4
            Images side by side.

        Returns
        -------
        display : OutlierDisplay
        """
        require_matplotlib("OutlierDisplay.plot")
        panels_each = 1 if self.masks is None else 2
        n_rows = max(1, -(-len(self.images) // images_per_row))
        texts = [
            "\n".join(textwrap.wrap(reason, _LETTERS_A_LINE * panels_each))
            for reason in self.reasons
        ]
        size = (images_per_row * panels_each * _PANEL_WIDTH, n_rows * self._row_height(texts))
        self.axes_, self.figure_ = make_panels(ax, (n_rows, images_per_row * panels_each), size)
        for panel in self.axes_.ravel():
            panel.set_axis_off()
        if len(self.images) == 0:
            self.axes_.flat[0].set_title("no outliers", fontsize="medium", loc="left")
        masks = [] if self.masks is None else self.masks
        labels = np.unique([label for mask in masks for label in np.unique(mask)])
        colors = label_colors(labels)
        for number, image in enumerate(self.images):
            panel = self.axes_.flat[number * panels_each]
            panel.imshow(as_rgb(image, self.limits))
            title = f"image {self.rows[number]}\n{texts[number]}"
            panel.set_title(title, fontsize="x-small", loc="left")
            if self.masks is not None:
                places = np.searchsorted(labels, self.masks[number])
                self.axes_.flat[number * panels_each + 1].imshow(colors[places])
        return self

    def _row_height(self, texts: list[str]) -> float:
        """Height in inches of the highest panel with its title."""
        lines = 2 + max((text.count("\n") for text in texts), default=0)
        shapes = [np.shape(image) for image in self.images]
        ratio = max((shape[0] / shape[1] for shape in shapes), default=0.2)
        return _PANEL_WIDTH * ratio + _LINE_HEIGHT * lines + 0.2
