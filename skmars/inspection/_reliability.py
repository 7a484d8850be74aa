"""Probabilities against what became of them, and uncertainty against the errors."""

import itertools
from collections.abc import Mapping

import numpy as np

from skmars._fitted import known_labels
from skmars.inspection._figures import make_panels, require_matplotlib, tidy
from skmars.inspection._heat_maps import predicted_masks, uncertainty_maps
from skmars.metrics.reliability import reliability_curve, sparsification_curve

BAR_COLOR, BEST_COLOR = "#2f8f8b", "#56607a"
CURVE_COLORS = ("#c9703a", "#2f8f8b", "#9b2583", "#f1cb5b")


class ReliabilityDisplay:
    """Reliability diagram: accuracy of pixels by their confidence.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions`. On the diagonal,
    probabilities are calibrated; below it, the segmenter is overconfident.

    Parameters
    ----------
    confidence, accuracy : array-like of shape (n_bins,)
        Mean probability of the predicted class and fraction of pixels that are right, by bin.
    n_pixels : array-like of shape (n_bins,)
        Pixels in each bin.
    error : float, default=None
        Expected calibration error, for the title.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        The diagram, and the fraction of pixels below it.
    figure_ : matplotlib Figure
        Figure with both.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from skmars.inspection import ReliabilityDisplay
    >>> ReliabilityDisplay([0.6, 0.9], [0.5, 0.9], [10, 30]).plot().axes_.shape
    (2,)
    """

    def __init__(self, confidence, accuracy, n_pixels, *, error=None):
        self.confidence = confidence
        self.accuracy = accuracy
        self.n_pixels = n_pixels
        self.error = error

    @classmethod
    def from_estimator(cls, estimator, X, y, *, n_bins=15, ax=None):
        """Predict probabilities and plot them against true masks.

        Parameters
        ----------
        estimator : estimator instance
            Fitted, with `predict_proba`. Its `ignore_label` is left out.
        X : array-like of shape (n, H, W) or (n, H, W, C), or list of arrays of any sizes
            Images that it was not trained on.
        y : array-like of shape (n, H, W), or list of (H, W) arrays
            True masks.
        n_bins : int, default=15
            Bins between 0 and 1.
        ax : matplotlib Axes or array of two Axes, default=None
            See :meth:`plot`.

        Returns
        -------
        display : ReliabilityDisplay

        Raises
        ------
        ValueError
            If masks have labels that the estimator does not know.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        labels, ignore_label = known_labels(estimator, y)
        return cls.from_predictions(
            y,
            estimator.predict_proba(X),
            labels=labels,
            ignore_label=ignore_label,
            n_bins=n_bins,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls, y_true, probabilities, *, labels, ignore_label=None, n_bins=15, ax=None
    ):
        """Plot probabilities that are there already.

        Parameters
        ----------
        y_true : int array of shape (n, H, W), or list of (H, W) arrays
            True masks.
        probabilities : array of shape (n, K, H, W), or list of (K, H, W) arrays
            As `predict_proba` gives them.
        labels : array-like of shape (K,)
            Label of each class.
        ignore_label : int or None, default=None
            Pixels with this true label are left out.
        n_bins : int, default=15
            Bins between 0 and 1.
        ax : matplotlib Axes or array of two Axes, default=None
            See :meth:`plot`.

        Returns
        -------
        display : ReliabilityDisplay
        """
        require_matplotlib(f"{cls.__name__}.from_predictions")
        curve = reliability_curve(
            y_true, probabilities, labels=labels, ignore_label=ignore_label, n_bins=n_bins
        )
        return cls(*curve, error=curve.mean_gap).plot(ax=ax)

    def plot(self, ax=None):
        """Draw the diagram.

        Parameters
        ----------
        ax : matplotlib Axes or array of two Axes, default=None
            Axes to divide into two panels, or one for each. By default a new figure.

        Returns
        -------
        display : ReliabilityDisplay
        """
        require_matplotlib("ReliabilityDisplay.plot")
        axes, self.figure_ = make_panels(ax, (2, 1), (4.2, 5.2))
        self.axes_ = axes.ravel()
        diagram, counts = self.axes_
        n_pixels = np.asarray(self.n_pixels)
        used = n_pixels > 0
        diagram.plot([0, 1], [0, 1], ":", color="0.5", label="calibrated")
        diagram.plot(
            np.asarray(self.confidence)[used],
            np.asarray(self.accuracy)[used],
            "o-",
            color=BAR_COLOR,
            label="segmenter",
        )
        title = "" if self.error is None else f"expected calibration error {self.error:.3f}"
        diagram.set_title(title, fontsize="medium")
        diagram.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
        diagram.legend(frameon=False)
        edges = np.linspace(0, 1, len(n_pixels) + 1)
        counts.stairs(n_pixels / n_pixels.sum(), edges, fill=True, color=BAR_COLOR)
        counts.set(
            xlim=(0, 1),
            xlabel="confidence: probability of the predicted class",
            ylabel="fraction of all pixels",
        )
        for panel in self.axes_:
            tidy(panel)
        return self


class SparsificationDisplay:
    """Errors that are left when the most uncertain pixels are removed.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions`. The nearer a curve
    is to the best one, the better the uncertainty tells where the errors are.

    Parameters
    ----------
    removed : array-like of shape (n_points,)
        Fraction of the pixels that is removed.
    errors : dict of str to array-like of shape (n_points,)
        For each kind of uncertainty, the fraction of errors in what is left.
    best : array-like of shape (n_points,)
        The same if errors were removed first.
    areas : dict of str to float, default=None
        Area between each curve and the best one, for the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the curves.
    figure_ : matplotlib Figure
        Figure with the axes.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from skmars.inspection import SparsificationDisplay
    >>> y_true, y_pred = [[[0, 1, 1, 0]]], [[[0, 1, 1, 1]]]
    >>> uncertainty = {"entropy": [[[0.1, 0.2, 0.3, 0.9]]]}
    >>> display = SparsificationDisplay.from_predictions(y_true, y_pred, uncertainty)
    >>> list(display.errors)
    ['entropy']
    """

    def __init__(self, removed, errors, best, *, areas=None):
        self.removed = removed
        self.errors = errors
        self.best = best
        self.areas = areas

    @classmethod
    def from_estimator(cls, estimator, X, y, *, ax=None):
        """Predict masks with their uncertainty, and plot what it is worth.

        Parameters
        ----------
        estimator : estimator instance
            Fitted. Of a segmenter with `predict_proba` the entropy is plotted, of an `Ensemble`
            its members' disagreement as well. Its `ignore_label` is left out.
        X : array-like of shape (n, H, W) or (n, H, W, C), or list of arrays of any sizes
            Images that it was not trained on.
        y : array-like of shape (n, H, W), or list of (H, W) arrays
            True masks.
        ax : matplotlib Axes, default=None
            See :meth:`plot`.

        Returns
        -------
        display : SparsificationDisplay

        Raises
        ------
        ValueError
            If masks have labels that the estimator does not know.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        _, ignore_label = known_labels(estimator, y)
        probabilities = estimator.predict_proba(X)
        return cls.from_predictions(
            y,
            predicted_masks(estimator, X, probabilities),
            uncertainty_maps(estimator, X, probabilities),
            ignore_label=ignore_label,
            ax=ax,
        )

    @classmethod
    def from_predictions(cls, y_true, y_pred, uncertainty, *, ignore_label=None, ax=None):
        """Plot what uncertainty is worth that is there already.

        Parameters
        ----------
        y_true, y_pred : int array of shape (n, H, W), or list of (H, W) arrays
            True and predicted masks.
        uncertainty : dict of str to array of shape (n, H, W), or to list of (H, W) arrays
            Kinds of uncertainty by name, each higher where the prediction is less certain.
        ignore_label : int or None, default=None
            Pixels with this true label are left out.
        ax : matplotlib Axes, default=None
            See :meth:`plot`.

        Returns
        -------
        display : SparsificationDisplay

        Raises
        ------
        ValueError
            If there is no kind of uncertainty, or shapes do not fit each other.
        """
        require_matplotlib(f"{cls.__name__}.from_predictions")
        if not isinstance(uncertainty, Mapping) or not uncertainty:
            raise ValueError("uncertainty must be a dict of at least one kind, by name")
        curves = {
            name: sparsification_curve(y_true, y_pred, values, ignore_label=ignore_label)
            for name, values in uncertainty.items()
        }
        some = next(iter(curves.values()))
        errors = {name: curve.error for name, curve in curves.items()}
        areas = {name: curve.area for name, curve in curves.items()}
        return cls(some.removed, errors, some.best, areas=areas).plot(ax=ax)

    def plot(self, ax=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            By default those of a new figure.

        Returns
        -------
        display : SparsificationDisplay
        """
        require_matplotlib("SparsificationDisplay.plot")
        if ax is None:
            ax = make_panels(None, (1, 1), (4.8, 3.6))[0][0, 0]
        self.ax_, self.figure_ = ax, ax.figure
        for (name, error), color in zip(self.errors.items(), itertools.cycle(CURVE_COLORS)):
            area = f" (area {self.areas[name]:.4f})" if self.areas else ""
            ax.plot(self.removed, error, color=color, label=name + area)
        ax.plot(self.removed, self.best, ":", color=BEST_COLOR, label="errors first")
        ax.set(
            xlabel="fraction of pixels removed, most uncertain first",
            ylabel="error rate of the remaining pixels",
            xlim=(0, 1),
        )
        ax.set_ylim(bottom=0)
        ax.legend(frameon=False)
        tidy(ax)
        return self
