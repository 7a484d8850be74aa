"""Images with true and predicted masks over them."""

from typing import Any

import numpy as np

from skmars._fitted import fitted_attribute
from skmars.inspection._figures import make_panels, require_matplotlib
from skmars.inspection._pictures import as_rgb, label_colors, rgb

ERROR_COLOR = "#ff1744"


class MaskDisplay:
    """Images with true and predicted masks over them.

    Each image has panels side by side: the image, its true mask, its predicted mask and, with
    `errors=True`, the pixels where they differ. It is recommended to use :meth:`from_estimator` or
    :meth:`from_predictions`.

    Parameters
    ----------
    images : array-like of shape (n, H, W) or (n, H, W, C), or list of arrays of any sizes
        Of any real dtype. Each is stretched to its own range of values; with other than three
        channels the mean over them is shown.
    y_true, y_pred : array-like of shape (n, H, W), or list of (H, W) arrays, default=None
        True and predicted masks of integer labels.
    labels : array-like of shape (n_labels,), default=None
        Labels in the order of the legend. By default all in `y_true` and `y_pred`, sorted.
        Labels 0, 1, 2, ... have the same colours in every display.
    target_names : sequence of str, default=None
        Names of `labels`, in `from_estimator` of its classes. By default the labels themselves.
    ignore_label : int, default=None
        Pixels with this true label are left without colour in all masks, and are no errors.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        The panels.
    figure_ : matplotlib Figure
        Figure with the panels.
    legend_ : matplotlib Legend or None
        Colours of the labels.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from skmars.datasets import make_terrain
    >>> from skmars.inspection import MaskDisplay
    >>> X, y = make_terrain(2, random_state=0)
    >>> display = MaskDisplay.from_predictions(X, y, y[:, :, ::-1], errors=True)
    >>> display.axes_.shape
    (2, 4)
    """

    def __init__(
        self,
        images,
        y_true=None,
        y_pred=None,
        *,
        labels=None,
        target_names=None,
        ignore_label=None,
    ):
        self.images = images
        self.y_true = y_true
        self.y_pred = y_pred
        self.labels = labels
        self.target_names = target_names
        self.ignore_label = ignore_label

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, ax=None, **kwargs):
        """Predict masks and plot them.

        Parameters
        ----------
        estimator : estimator instance
            Fitted segmenter. Its `ignore_label` is used unless another one is given.
        X : array-like of shape (n, H, W) or (n, H, W, C), or list of arrays of any sizes
            Images.
        y : array-like of shape (n, H, W), or list of (H, W) arrays, default=None
            True masks.
        ax : matplotlib Axes or array of Axes, default=None
            See :meth:`plot`.
        **kwargs
            Further arguments of :meth:`from_predictions`.

        Returns
        -------
        display : MaskDisplay
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        kwargs.setdefault("ignore_label", fitted_attribute(estimator, "ignore_label"))
        # Names are those of the classes, whichever of them the images show.
        if kwargs.get("target_names") is not None:
            kwargs.setdefault("labels", fitted_attribute(estimator, "classes_"))
        return cls.from_predictions(X, y, estimator.predict(X), ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        images,
        y_true,
        y_pred,
        *,
        labels=None,
        target_names=None,
        ignore_label=None,
        ax=None,
        **kwargs,
    ):
        """Plot masks that are there already.

        Parameters
        ----------
        images, y_true, y_pred, labels, target_names, ignore_label
            As in :class:`MaskDisplay`.
        ax : matplotlib Axes or array of Axes, default=None
            See :meth:`plot`.
        **kwargs
            Further arguments of :meth:`plot`.

        Returns
        -------
        display : MaskDisplay
        """
        require_matplotlib(f"{cls.__name__}.from_predictions")
        display = cls(
            images,
            y_true,
            y_pred,
            labels=labels,
            target_names=target_names,
            ignore_label=ignore_label,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, alpha=0.6, errors=False, images_per_row=1, legend=True):
        """Draw the panels.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes, default=None
            Axes to divide into panels, or one Axes for each panel, row by row. By default a new
            figure.
        alpha : float, default=0.6
            Opacity of the masks, in [0, 1].
        errors : bool, default=False
            Whether to add a panel that marks the pixels where the masks differ.
        images_per_row : int, default=1
            Images side by side.
        legend : bool, default=True
            Whether to show the names of the labels.

        Returns
        -------
        display : MaskDisplay
        """
        require_matplotlib("MaskDisplay.plot")
        masks = {"true": self.y_true, "predicted": self.y_pred}
        masks = {title: mask for title, mask in masks.items() if mask is not None}
        for title, mask in masks.items():
            if len(mask) != len(self.images):
                raise ValueError(f"got {len(self.images)} images and {len(mask)} {title} masks")
            for image, one in zip(self.images, mask, strict=True):
                if np.shape(image)[:2] != np.shape(one):
                    raise ValueError(
                        f"got an image of {np.shape(image)[:2]} pixels with a {title} mask of "
                        f"{np.shape(one)}"
                    )
        if len(self.images) == 0 or images_per_row < 1:
            raise ValueError(
                f"at least one image, and one a row, can be shown; got {len(self.images)} and "
                f"{images_per_row} a row"
            )
        if errors and len(masks) < 2:
            raise ValueError("errors=True needs both true and predicted masks")
        titles = ["image", *masks, *(["errors"] if errors else [])]
        labels = self._labels(list(masks.values()))
        colors = label_colors(labels)

        n_rows = -(-len(self.images) // images_per_row)
        height, width = np.shape(self.images[0])[:2]
        n_columns = len(titles) * images_per_row
        size = (2.0 * n_columns, 2.0 * n_rows * height / width + 0.6)
        self.axes_, self.figure_ = make_panels(ax, (n_rows, n_columns), size)
        for place, panel in enumerate(self.axes_.ravel()):
            number, column = divmod(place, len(titles))
            panel.set_axis_off()
            if number < len(self.images):
                panel.imshow(self._picture(number, titles[column], labels, colors, alpha))
            if number < images_per_row:
                panel.set_title(titles[column], fontsize="medium")
        self.legend_ = self._draw_legend(ax, labels, colors) if legend and masks else None
        return self

    def _labels(self, masks: list) -> np.ndarray:
        if self.labels is not None:
            return np.asarray(self.labels)
        parts = [np.unique(mask) for several in masks for mask in several]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=int)

    def _picture(
        self, number: int, title: str, labels: np.ndarray, colors: np.ndarray, alpha: float
    ) -> np.ndarray:
        """Image `number` in RGB, with what belongs on the panel of that title."""
        picture = as_rgb(self.images[number])
        true = None if self.y_true is None else np.asarray(self.y_true[number])
        counted = np.ones(picture.shape[:2], dtype=bool)
        if true is not None and self.ignore_label is not None:
            counted = true != self.ignore_label
        if title == "errors":
            wrong = counted & (true != np.asarray(self.y_pred[number]))
            picture = 0.8 * picture + 0.1
            picture[wrong] = rgb(ERROR_COLOR)
        elif title != "image":
            mask = true if title == "true" else np.asarray(self.y_pred[number])
            for label, color in zip(labels, colors, strict=True):
                here = counted & (mask == label)
                picture[here] = (1 - alpha) * picture[here] + alpha * color
        return picture

    def _has_ignored(self) -> bool:
        return self.y_true is not None and any(
            np.any(np.asarray(mask) == self.ignore_label) for mask in self.y_true
        )

    def _draw_legend(self, ax, labels: np.ndarray, colors: np.ndarray):
        from matplotlib.axes import Axes
        from matplotlib.patches import Patch

        names = self.target_names
        if names is None:
            names = [str(label) for label in labels]
        if len(names) != len(labels):
            raise ValueError(
                f"got {len(names)} target_names for the labels {labels.tolist()}: give labels as "
                "well, or names from skmars.inspection.class_names"
            )
        by_label = dict(zip(labels.tolist(), names, strict=True))
        handles = [
            Patch(facecolor=color, label=by_label[label])
            for label, color in zip(labels.tolist(), colors, strict=True)
            if label != self.ignore_label
        ]
        if self.ignore_label is not None and self._has_ignored():
            name = by_label.get(self.ignore_label, self.ignore_label)
            handles.append(Patch(facecolor="none", edgecolor="0.5", label=f"{name}: not counted"))
        style: dict[str, Any] = {"frameon": False, "ncols": min(len(handles), 6)}
        if isinstance(ax, Axes):
            return ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), **style)
        return self.figure_.legend(handles=handles, loc="outside lower center", **style)
