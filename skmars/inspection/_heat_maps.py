"""Images beside what a segmenter is unsure of, and what its attention gates let through."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from skmars._fitted import fitted_part
from skmars.batches import channels_first
from skmars.device import compute_settings
from skmars.ensemble import Ensemble
from skmars.inspection._figures import make_panels, require_matplotlib
from skmars.inspection._pictures import as_rgb
from skmars.metrics import predictive_entropy
from skmars.nn import AttentionGate
from skmars.segmenter import MarsSegmenter


class HeatMapDisplay:
    """Images, each in a row with one or several maps of numbers.

    Parameters
    ----------
    images : array-like of shape (n, H, W) or (n, H, W, C), or list of arrays of any sizes
        Of any real dtype.
    maps : dict of str to sequence of n arrays of shape (h, w)
        Maps by their titles. They may be coarser than the images.
    limits : tuple of two floats or None, default=None
        Values of the darkest and the brightest colour; by default those of each map's title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        The panels.
    figure_ : matplotlib Figure
        Figure with the panels.
    """

    def __init__(self, images, maps, *, limits=None):
        self.images = images
        self.maps = maps
        self.limits = limits

    def plot(self, ax=None, *, cmap="magma"):
        """Draw the panels.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes, default=None
            Axes to divide into panels, or one Axes for each panel, row by row. By default a new
            figure.
        cmap : str, default="magma"
            Matplotlib's name of the colours.

        Returns
        -------
        display : HeatMapDisplay
        """
        require_matplotlib(f"{type(self).__name__}.plot")
        if not isinstance(self.maps, Mapping) or not self.maps:
            raise ValueError("maps must be a dict of at least one title and its maps")
        for title, values in self.maps.items():
            if len(values) != len(self.images):
                raise ValueError(
                    f"got {len(self.images)} images and {len(values)} maps of {title}"
                )
        n_rows, n_columns = len(self.images), 1 + len(self.maps)
        height, width = np.shape(self.images[0])[:2]
        size = (2.2 * n_columns + 0.6, 2.2 * n_rows * height / width + 0.5)
        self.axes_, self.figure_ = make_panels(ax, (n_rows, n_columns), size)
        for panel, title in zip(self.axes_[0], ["image", *self.maps], strict=True):
            panel.set_title(title, fontsize="medium")
        for column, values in enumerate(self.maps.values(), start=1):
            low, high = self.limits or _limits(values)
            for row, value in enumerate(values):
                extent = (0, np.shape(self.images[row])[1], np.shape(self.images[row])[0], 0)
                picture = self.axes_[row, column].imshow(
                    value, cmap=cmap, vmin=low, vmax=high, extent=extent
                )
            bar = self.figure_.colorbar(picture, ax=self.axes_[:, column], shrink=0.8)
            bar.outline.set_visible(False)
        for row, image in enumerate(self.images):
            self.axes_[row, 0].imshow(as_rgb(image))
        for panel in self.axes_.ravel():
            panel.set_axis_off()
        return self


class UncertaintyDisplay(HeatMapDisplay):
    """Images beside how uncertain the label of each pixel is.

    It is recommended to use :meth:`from_estimator`.

    Parameters
    ----------
    images : array-like of shape (n, H, W) or (n, H, W, C), or list of arrays of any sizes
        Of any real dtype.
    maps : dict of str to sequence of n arrays of shape (h, w)
        Kinds of uncertainty by their names.
    limits : tuple of two floats or None, default=None
        Values of the darkest and the brightest colour; by default those of each kind.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        The panels.
    figure_ : matplotlib Figure
        Figure with the panels.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from skmars import MarsSegmenter
    >>> from skmars.datasets import make_terrain
    >>> from skmars.inspection import UncertaintyDisplay
    >>> X, y = make_terrain(12, random_state=0)
    >>> segmenter = MarsSegmenter(depth=2, base_channels=4, max_epochs=1).fit(X, y)
    >>> UncertaintyDisplay.from_estimator(segmenter, X[:2]).axes_.shape
    (2, 2)
    """

    @classmethod
    def from_estimator(cls, estimator, X, *, ax=None, **kwargs):
        """Predict probabilities and plot their uncertainty.

        Parameters
        ----------
        estimator : estimator instance
            Fitted. Of a segmenter with `predict_proba` the entropy is plotted, as a fraction of
            the highest possible one; of an `Ensemble` its members' disagreement as well.
        X : array-like of shape (n, H, W) or (n, H, W, C), or list of arrays of any sizes
            Images.
        ax : matplotlib Axes or array of Axes, default=None
            See :meth:`plot`.
        **kwargs
            Further arguments of :meth:`plot`.

        Returns
        -------
        display : UncertaintyDisplay
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        maps = uncertainty_maps(estimator, X, estimator.predict_proba(X))
        return cls(X, maps).plot(ax=ax, **kwargs)

    @classmethod
    def from_predictions(cls, X, probabilities, *, ax=None, **kwargs):
        """Plot the entropy of probabilities that are there already.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C), or list of arrays of any sizes
            Images.
        probabilities : array of shape (n, K, H, W), or list of (K, H, W) arrays
            As `predict_proba` gives them.
        ax : matplotlib Axes or array of Axes, default=None
            See :meth:`plot`.
        **kwargs
            Further arguments of :meth:`plot`.

        Returns
        -------
        display : UncertaintyDisplay
        """
        require_matplotlib(f"{cls.__name__}.from_predictions")
        return cls(X, {"entropy": _entropies(probabilities)}).plot(ax=ax, **kwargs)


class AttentionDisplay(HeatMapDisplay):
    """Images beside what the attention gates let through of each level's skip connection.

    It is recommended to use :meth:`from_estimator`.

    Parameters
    ----------
    images : array-like of shape (n, H, W) or (n, H, W, C)
        Of any real dtype.
    maps : dict of str to sequence of n arrays of shape (h, w)
        Coefficients in (0, 1) for each level.
    limits : tuple of two floats or None, default=None
        Values of the darkest and the brightest colour; by default those of each level.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        The panels.
    figure_ : matplotlib Figure
        Figure with the panels.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from skmars import MarsSegmenter
    >>> from skmars.datasets import make_terrain
    >>> from skmars.inspection import AttentionDisplay
    >>> X, y = make_terrain(12, random_state=0)
    >>> segmenter = MarsSegmenter(depth=3, base_channels=4, max_epochs=1).fit(X, y)
    >>> AttentionDisplay.from_estimator(segmenter, X[:2]).axes_.shape
    (2, 3)
    """

    @classmethod
    def from_estimator(cls, estimator, X, *, ax=None, **kwargs):
        """Predict masks and plot the coefficients of the attention gates on the way.

        Parameters
        ----------
        estimator : MarsSegmenter, or a Pipeline or a search with one
            Fitted, with `attention=True`. The gates are shown for images that transformers of a
            Pipeline have changed, as in its `predict`.
        X : array-like of shape (n, H, W) or (n, H, W, C)
            Images.
        ax : matplotlib Axes or array of Axes, default=None
            See :meth:`plot`.
        **kwargs
            Further arguments of :meth:`plot`.

        Returns
        -------
        display : AttentionDisplay

        Raises
        ------
        TypeError
            If the estimator has no net.
        ValueError
            If the net has no attention gates.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        return cls(X, attention_maps(estimator, X)).plot(ax=ax, **kwargs)


def predicted_masks(estimator, X, probabilities) -> Any:
    """Masks as `predict` gives them, without another prediction where probabilities have them.

    They do if the labels are certainly those of the highest probabilities: other estimators may
    decide differently, and without the mirror image a segmenter compares logits, some of which
    differ where probabilities are equal.
    """
    certain = type(estimator) is Ensemble or (type(estimator) is MarsSegmenter and estimator.tta)
    if not certain:
        return estimator.predict(X)
    return [estimator.classes_[values.argmax(axis=0)] for values in probabilities]


def uncertainty_maps(estimator, X, probabilities) -> dict[str, list[np.ndarray]]:
    """Kinds of uncertainty by name: that of probabilities, and what else an estimator can tell."""
    maps = {"entropy": _entropies(probabilities)}
    if hasattr(estimator, "predict_uncertainty"):
        maps["disagreement"] = list(estimator.predict_uncertainty(X, kind="disagreement"))
    return maps


def _entropies(probabilities) -> list[np.ndarray]:
    return [predictive_entropy(values) for values in probabilities]


def attention_maps(estimator, X) -> dict[str, list[np.ndarray]]:
    """Coefficients of the attention gates, from the finest level to the coarsest."""
    check_is_fitted(estimator)
    segmenter = fitted_part(estimator, "net_")
    if segmenter is None:
        raise TypeError(f"{type(estimator).__name__} has no net to look into")
    segmenter._place_net()
    module = segmenter.net_.module_.eval()
    gates = [part for part in module.modules() if isinstance(part, AttentionGate)]
    if not gates:
        raise ValueError("the net has no attention gates: it was made with attention=False")
    images = segmenter._checked(_as_the_net_gets_them(estimator, X))
    found: dict[AttentionGate, list[np.ndarray]] = {gate: [] for gate in gates}

    def note(gate, inputs, keywords, output):
        found[gate].extend(gate.coefficients(*inputs, **keywords)[:, 0].float().cpu().numpy())

    hooks = [gate.register_forward_hook(note, with_kwargs=True) for gate in gates]
    try:
        with compute_settings(segmenter.n_threads), torch.inference_mode():
            for image in images:
                segmenter.net_.infer(channels_first(np.ascontiguousarray(image[None])))
    finally:
        for hook in hooks:
            hook.remove()
    # The decoder goes from the coarsest level to the finest.
    return {f"level {k}": found[gate] for k, gate in enumerate(reversed(gates), start=1)}


def _as_the_net_gets_them(estimator, X) -> Any:
    """Images as the transformers of all Pipelines in front of the net leave them."""
    while (pipeline := fitted_part(estimator, "steps")) is not None:
        *steps, (_, estimator) = pipeline.steps
        for _, step in steps:
            # Samplers and "passthrough" have none: prediction skips them.
            if hasattr(step, "transform"):
                X = step.transform(X)
    return X


def _limits(values) -> tuple[float, float]:
    low = min(float(np.min(value)) for value in values)
    return low, max(float(np.max(value)) for value in values)
