"""Loss, score and learning rate over the epochs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skmars._fitted import fitted_attribute
from skmars.inspection._figures import make_panels, require_matplotlib, tidy

TRAIN_COLOR, VALID_COLOR = "#56607a", "#c9703a"


class LearningCurveDisplay:
    """Loss, mean IoU and learning rate of each epoch of a training.

    It is recommended to use :meth:`from_estimator` or :meth:`from_history`.

    Parameters
    ----------
    train_loss : array-like of shape (n_epochs,)
        Loss on the training images.
    valid_loss, valid_mean_iou : array-like of shape (n_epochs,), default=None
        Loss and mean IoU on the validation images.
    learning_rate : array-like of shape (n_epochs,), default=None
        Learning rate at the end of the epoch.
    phases : sequence of str of length n_epochs, default=None
        Name of the phase of each epoch. The beginning of every phase but the first is marked.
    best_epoch : int, default=None
        Index of the epoch to mark, whose weights were kept.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        One panel for each quantity there is.
    figure_ : matplotlib Figure
        Figure with the panels.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from skmars.inspection import LearningCurveDisplay
    >>> display = LearningCurveDisplay([0.9, 0.6, 0.5], valid_mean_iou=[0.2, 0.4, 0.3])
    >>> display.plot().axes_.shape
    (2,)
    """

    def __init__(
        self,
        train_loss,
        *,
        valid_loss=None,
        valid_mean_iou=None,
        learning_rate=None,
        phases=None,
        best_epoch=None,
    ):
        self.train_loss = train_loss
        self.valid_loss = valid_loss
        self.valid_mean_iou = valid_mean_iou
        self.learning_rate = learning_rate
        self.phases = phases
        self.best_epoch = best_epoch

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Plot the training of a fitted segmenter.

        Parameters
        ----------
        estimator : MarsSegmenter or Pipeline
            Fitted.
        ax : matplotlib Axes or array of Axes, default=None
            See :meth:`plot`.

        Returns
        -------
        display : LearningCurveDisplay
        """
        history = fitted_attribute(estimator, "history_")
        if history is None:
            check_is_fitted(estimator)
            raise ValueError(f"{type(estimator).__name__} has no history of a training")
        best_epoch = fitted_attribute(estimator, "best_epoch_")
        return cls.from_history(history, best_epoch=best_epoch, ax=ax)

    @classmethod
    def from_history(cls, history, *, best_epoch=None, ax=None):
        """Plot the rows of `MarsSegmenter.history_`.

        Parameters
        ----------
        history : list of dict
            For each epoch at least `train_loss`.
        best_epoch : int, default=None
            Index of the epoch to mark, whose weights were kept.
        ax : matplotlib Axes or array of Axes, default=None
            See :meth:`plot`.

        Returns
        -------
        display : LearningCurveDisplay
        """
        require_matplotlib(f"{cls.__name__}.from_history")

        def column(name: str) -> np.ndarray | None:
            if not any(name in row for row in history):
                return None
            return np.array([row.get(name, np.nan) for row in history])

        phases = [row["phase"] for row in history] if "phase" in history[0] else None
        display = cls(
            column("train_loss"),
            valid_loss=column("valid_loss"),
            valid_mean_iou=column("valid_mean_iou"),
            learning_rate=column("learning_rate"),
            phases=phases,
            best_epoch=best_epoch,
        )
        return display.plot(ax=ax)

    def plot(self, ax=None):
        """Draw the panels side by side.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes, default=None
            Axes to divide into panels, or one Axes for each panel. By default a new figure.

        Returns
        -------
        display : LearningCurveDisplay
        """
        require_matplotlib("LearningCurveDisplay.plot")
        panels: dict[str, dict[str, Any]] = {
            "loss": {"train": self.train_loss, "validation": self.valid_loss},
            "validation mean IoU": {"validation": self.valid_mean_iou},
            "learning rate": {"train": self.learning_rate},
        }
        panels = {
            title: curves
            for title, curves in panels.items()
            if any(curve is not None for curve in curves.values())
        }
        axes, self.figure_ = make_panels(ax, (1, len(panels)), (4.0 * len(panels), 3.2))
        self.axes_ = axes.ravel()
        for panel, (title, curves) in zip(self.axes_, panels.items(), strict=True):
            self._draw_curves(panel, title, curves)
            self._mark_phases(panel, with_name=panel is self.axes_[-1])
        return self

    def _draw_curves(self, panel, title: str, curves: Mapping[str, Any]) -> None:
        epochs = np.arange(1, len(self.train_loss) + 1)
        marker = "." if len(epochs) < 30 else None
        colors = {"train": TRAIN_COLOR, "validation": VALID_COLOR}
        for name, curve in curves.items():
            if curve is not None:
                panel.plot(epochs, curve, marker=marker, color=colors[name], label=name)
        if len(panel.lines) > 1:
            panel.legend(frameon=False)
        if title == "validation mean IoU" and self.best_epoch is not None:
            self._mark_kept(panel, self.valid_mean_iou[self.best_epoch])
        panel.set_title(title, fontsize="medium")
        panel.set(xlabel="epoch", xlim=(0.5, len(epochs) + 0.5))
        panel.xaxis.get_major_locator().set_params(integer=True)
        tidy(panel)
        if title == "learning rate":
            panel.ticklabel_format(axis="y", scilimits=(-2, 3))

    def _mark_kept(self, panel, score: float) -> None:
        if np.isnan(score):
            # An epoch of `partial_fit`, which validates nothing.
            return
        style = {"ms": 9, "mfc": "none", "mec": TRAIN_COLOR, "clip_on": False}
        (point,) = panel.plot(self.best_epoch + 1, score, "o", **style)
        panel.legend([point], [f"kept: {score:.3f}"], frameon=False)

    def _mark_phases(self, panel, with_name: bool) -> None:
        phases = list(self.phases) if self.phases is not None else []
        for epoch in range(1, len(phases)):
            if phases[epoch] == phases[epoch - 1]:
                continue
            panel.axvline(epoch + 0.5, color="0.5", linestyle=":")
            if with_name:
                place = {"transform": panel.get_xaxis_transform(), "va": "top", "color": "0.4"}
                panel.text(epoch + 0.5, 0.97, f" {phases[epoch].replace('_', ' ')}", **place)
