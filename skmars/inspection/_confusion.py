"""The confusion matrix as a picture."""

import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay

from skmars._fitted import known_labels
from skmars.inspection._figures import require_matplotlib
from skmars.metrics.mask_pairs import count_with_others, pair_masks


class ConfusionDisplay:
    """Fraction of each true class that was predicted as each class.

    It is recommended to use :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    counts : array-like of shape (K, K) or (K, K + 1)
        Pixels by true class (rows) and predicted class (columns), as
        `skmars.metrics.confusion_counts` gives them; a last column for those that were predicted
        to be of no class counts, but is not drawn.
    target_names : sequence of K str
        Names of the classes.

    Attributes
    ----------
    shares_ : ndarray of shape (K, K)
        What is drawn; a row sums to 1, or less where pixels were predicted to be of no class.
    ax_ : matplotlib Axes
        Axes with the matrix.
    figure_ : matplotlib Figure
        Figure with the matrix.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from skmars.inspection import ConfusionDisplay
    >>> ConfusionDisplay([[3, 1], [0, 4]], ["soil", "sand"]).plot().shares_
    array([[0.75, 0.25],
           [0.  , 1.  ]])
    """

    def __init__(self, counts, target_names):
        self.counts = counts
        self.target_names = target_names

    @classmethod
    def from_estimator(cls, estimator, X, y, *, target_names=None, ax=None):
        """Predict masks and plot them against the true ones.

        Parameters
        ----------
        estimator : estimator instance
            Fitted. Pixels of its `ignore_label` are left out.
        X : array-like of shape (n, H, W) or (n, H, W, C), or list of arrays of any sizes
            Images.
        y : array-like of shape (n, H, W), or list of (H, W) arrays
            True masks.
        target_names : sequence of K str, default=None
            Names of the estimator's classes; by default their labels.
        ax : matplotlib Axes, default=None
            By default those of a new figure.

        Returns
        -------
        display : ConfusionDisplay

        Raises
        ------
        ValueError
            If masks have labels that the estimator does not know.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        labels, ignore_label = known_labels(estimator, y)
        return cls.from_predictions(
            y,
            estimator.predict(X),
            labels=labels,
            ignore_label=ignore_label,
            target_names=target_names,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls, y_true, y_pred, *, labels=None, ignore_label=None, target_names=None, ax=None
    ):
        """Plot masks that are there already.

        Parameters
        ----------
        y_true, y_pred : int array of shape (n, H, W), or list of (H, W) arrays
            True and predicted masks.
        labels : array-like of shape (K,), default=None
            Label of each class; by default those that the masks have.
        ignore_label : int or None, default=None
            Pixels with this true label are left out.
        target_names : sequence of K str, default=None
            Names of the classes; by default their labels.
        ax : matplotlib Axes, default=None
            By default those of a new figure.

        Returns
        -------
        display : ConfusionDisplay
        """
        require_matplotlib(f"{cls.__name__}.from_predictions")
        pairs = pair_masks(y_true, y_pred, None)
        found, counts = count_with_others(pairs, labels, ignore_label)
        if target_names is None:
            target_names = [str(label) for label in (found if labels is None else labels)]
        return cls(counts[:-1], target_names).plot(ax=ax)

    def plot(self, ax=None, *, cmap="Blues"):
        """Draw the matrix.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            By default those of a new figure.
        cmap : str, default="Blues"
            Matplotlib's name of the colours.

        Returns
        -------
        display : ConfusionDisplay

        Raises
        ------
        ValueError
            If there is not one name for each class.
        """
        require_matplotlib("ConfusionDisplay.plot")
        import matplotlib.pyplot as plt

        counts, names = np.asarray(self.counts), list(self.target_names)
        if counts.shape not in {(len(names), len(names) + more) for more in (0, 1)}:
            raise ValueError(f"got counts of shape {counts.shape} and {len(names)} target_names")
        totals = counts.sum(axis=1, keepdims=True)
        self.shares_ = (counts / np.where(totals > 0, totals, 1))[:, : len(names)]
        if ax is None:
            side = 2.0 + 0.7 * len(names)
            ax = plt.subplots(figsize=(side, side), layout="constrained")[1]
        display = ConfusionMatrixDisplay(self.shares_, display_labels=names).plot(
            ax=ax,
            cmap=cmap,
            values_format=".2f",
            colorbar=False,
            xticks_rotation="horizontal" if len(names) < 7 else "vertical",
            im_kw={"vmin": 0, "vmax": 1},
        )
        for text, share in zip(display.text_.ravel(), self.shares_.ravel(), strict=True):
            # scikit-learn's choice is for colours that span the shares that there are.
            text.set_color(display.im_.cmap(1.0 if share < 0.5 else 0.0))
        ax.set_title("fraction of each true class", fontsize="medium")
        self.ax_, self.figure_ = display.ax_, display.figure_
        return self
