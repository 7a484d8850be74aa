"""A study's trials in Optuna's own plots, laid out such that they can be read."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skmars.inspection._figures import require_matplotlib

_SLICES_A_ROW = 4
_WIDTH, _HEIGHT = 7.0, 4.0
_SLICE_WIDTH, _SLICE_HEIGHT = 3.1, 2.7
# Letters that fit under a slice, and side by side as the names of its categories.
_LETTERS_A_LABEL, _LETTERS_OF_TICKS = 28, 26
# From which ratio of its ends on a scale is logarithmic.
_WIDE = 30.0


class StudyDisplay:
    """Optuna's plots of a study: how the score rose, what mattered, and how long it took.

    Optuna draws each plot in a figure of its own. It is recommended to use :meth:`from_search` or
    :meth:`from_study`.

    Parameters
    ----------
    study : optuna.Study
        With any trials: complete, pruned, failed, running, or none.
    objective_names : sequence of str, default=None
        What the values of a trial are. By default the study's `metric_names`, or "value".

    Attributes
    ----------
    figures_ : dict of str to matplotlib Figure
        A figure for each panel that was asked for.
    axes_ : dict of str to ndarray of matplotlib Axes
        The panels in it: one, or a slice for each parameter.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import optuna
    >>> from skmars.inspection import StudyDisplay
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> study = optuna.create_study(direction="maximize")
    >>> study.optimize(lambda trial: -trial.suggest_float("learning_rate", 0, 1), n_trials=5)
    >>> display = StudyDisplay.from_study(study, objective_names=["mean IoU"])
    >>> list(display.figures_)
    ['history', 'importances', 'slices', 'timeline']
    """

    def __init__(self, study, *, objective_names=None):
        self.study = study
        self.objective_names = objective_names

    @classmethod
    def from_search(cls, search, *, panels=None, **kwargs):
        """Plot the study of a fitted search.

        Parameters
        ----------
        search : SegmenterSearchCV
            Fitted.
        panels : sequence of str, default=None
            See :meth:`plot`.
        **kwargs
            Further arguments of :meth:`plot`.

        Returns
        -------
        display : StudyDisplay
        """
        check_is_fitted(search)
        prefix = "mean_test_"
        names = [
            name.removeprefix(prefix) for name in search.cv_results_ if name.startswith(prefix)
        ]
        if len(names) == 1 and isinstance(search.scoring, str):
            names = [search.scoring]
        return cls.from_study(search.study_, objective_names=names, panels=panels, **kwargs)

    @classmethod
    def from_study(cls, study, *, objective_names=None, panels=None, **kwargs):
        """Plot any study.

        Parameters
        ----------
        study : optuna.Study
            Also one that other processes are still at work on.
        objective_names : sequence of str, default=None
            See :class:`StudyDisplay`.
        panels : sequence of str, default=None
            See :meth:`plot`.
        **kwargs
            Further arguments of :meth:`plot`.

        Returns
        -------
        display : StudyDisplay
        """
        return cls(study, objective_names=objective_names).plot(panels, **kwargs)

    def plot(self, panels=None, *, objective=0, max_params=12, evaluator=None):
        """Draw a figure for each panel.

        Parameters
        ----------
        panels : sequence of str, default=None
            Any of

            - "history": value of each complete trial, and the best so far;
            - "importances": how much of the differences each parameter explains;
            - "slices": value against each parameter;
            - "timeline": when each trial ran and how it ended;
            - "front": the Pareto front of a study with two or three objectives.

            By default all that the study has objectives for.
        objective : int, default=0
            With several objectives, the one that history, importances and slices show.
        max_params : int, default=12
            Slices to draw, those of the parameters that mattered most.
        evaluator : optuna importance evaluator, default=None
            What importance is. None is a `FanovaImportanceEvaluator`: the fraction of the values'
            variance that a parameter explains, of those that all complete trials have. Optuna's
            own default, `PedAnovaImportanceEvaluator()`, also judges parameters that only some
            trials have, but takes hundreds of trials to tell them from noise.

        Returns
        -------
        display : StudyDisplay

        Raises
        ------
        ValueError
            If a panel, an objective, or the number of `objective_names` is none of the study's.
        """
        require_matplotlib("StudyDisplay.plot")
        names = self._names()
        if not 0 <= objective < len(names):
            raise ValueError(f"objective must be one of 0 to {len(names) - 1}, got {objective}")
        drawing = _Drawing(self.study, names, objective, max_params, evaluator)
        possible = ["history", "importances", "slices", "timeline"]
        if len(names) in (2, 3):
            possible.append("front")
        panels = possible if panels is None else panels
        for panel in panels:
            if panel not in possible:
                raise ValueError(
                    f"panels must be of {possible} for {len(names)} objectives, got {panel!r}"
                )
        self.axes_: dict[str, np.ndarray] = {}
        for panel in panels:
            with _quietly():
                axes = getattr(drawing, panel)()
            self.axes_[panel] = np.atleast_1d(np.asarray(axes, dtype=object))
        self.figures_ = {panel: axes.flat[0].figure for panel, axes in self.axes_.items()}
        return self

    def _names(self) -> list[str]:
        n = len(self.study.directions)
        names = self.study.metric_names if self.objective_names is None else self.objective_names
        if names is None:
            return ["value"] if n == 1 else [f"value {i}" for i in range(n)]
        if isinstance(names, str) or len(names) != n:
            raise ValueError(f"objective_names must be {n} names, got {names!r}")
        return list(names)


class _Drawing:
    """Calls of Optuna's plots, and what it takes to read them."""

    def __init__(self, study, names: Sequence[str], objective: int, max_params: int, evaluator):
        from optuna.importance import FanovaImportanceEvaluator
        from optuna.trial import TrialState

        if evaluator is None:
            # The forest within is random; more trees take seconds and change no bar.
            evaluator = FanovaImportanceEvaluator(n_trees=16, seed=0)
        self.study = study
        self.names = names
        self.objective = objective
        self.max_params = max_params
        self.evaluator = evaluator
        self.trials = [
            trial
            for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if all(map(math.isfinite, trial.values))
        ]

    def history(self):
        if not self.trials:
            return _note("history", "no trial is complete yet")
        from optuna.visualization.matplotlib import plot_optimization_history

        ax: Any = plot_optimization_history(self.study, **self._target())
        _lay_out(ax.figure, (_WIDTH, _HEIGHT))
        ax.xaxis.get_major_locator().set_params(integer=True)
        return ax

    def importances(self):
        reason = self._why_no_importances()
        if reason:
            return _note("importances", reason)
        from optuna.visualization.matplotlib import plot_param_importances

        ax: Any = plot_param_importances(
            self.study, evaluator=self.evaluator, **self._target(loss=True)
        )
        ax.get_legend().remove()
        ax.set_title("", loc="left")
        ax.set_title(f"Importance for {self.names[self.objective]}")
        ax.set(xlabel="", ylabel="")
        ax.grid(visible=False, axis="y")
        # Optuna writes beyond the end of the axes before it makes place.
        ax.set_xlim(right=1.15 * max(bar.get_width() for bar in ax.patches))
        _lay_out(ax.figure, (_WIDTH, 1.0 + 0.26 * len(ax.patches)))
        return ax

    def slices(self):
        params = self._params()
        if not params:
            return _note("slices", "no trial with parameters is complete yet")
        from optuna.visualization.matplotlib import plot_slice

        axes = plot_slice(self.study, params=params, **self._target())
        axes = np.atleast_1d(np.asarray(axes, dtype=object))
        figure = axes[0].figure
        # Optuna puts all of them side by side.
        n_columns = min(_SLICES_A_ROW, len(axes))
        n_rows = -(-len(axes) // n_columns)
        grid = figure.add_gridspec(n_rows, n_columns)
        for number, ax in enumerate(axes):
            ax.set_subplotspec(grid[number])
            self._label_slice(ax, is_first=number % n_columns == 0)
        if figure.get_suptitle():
            figure.suptitle("")
        axes[0].set_title("")
        _lay_out(figure, (_SLICE_WIDTH * n_columns + 1.0, _SLICE_HEIGHT * n_rows + 0.3))
        return axes

    def timeline(self):
        if not any(trial.datetime_start for trial in self.study.get_trials(deepcopy=False)):
            return _note("timeline", "no trial has begun yet")
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
        from optuna.visualization.matplotlib import plot_timeline

        ax = plot_timeline(self.study)
        # A study may go on for days.
        locator = AutoDateLocator(minticks=3, maxticks=8)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        ax.tick_params(axis="x", rotation=0)
        for label in ax.get_xticklabels():
            label.set_horizontalalignment("center")
        ax.set_xlabel("")
        _lay_out(ax.figure, (_WIDTH, _HEIGHT))
        return ax

    def front(self):
        if not self.trials:
            return _note("front", "no trial is complete yet")
        from optuna.visualization.matplotlib import plot_pareto_front

        ax = plot_pareto_front(self.study, target_names=list(self.names))
        _lay_out(ax.figure, (_WIDTH, _HEIGHT))
        ax.legend(loc="upper left", bbox_to_anchor=(1.05, 1.0))
        if len(self.names) == 2:
            best = np.array(sorted(tuple(trial.values) for trial in self.study.best_trials))
            # What is reached between two points is the worse one of them.
            steps = "steps-pre" if self.study.directions[0].name == "MAXIMIZE" else "steps-post"
            ax.plot(*best.T, drawstyle=steps, color="tab:red", linewidth=1, alpha=0.5, zorder=0)
            values = np.array([trial.values for trial in self.trials])
            for axis, column in zip("xy", values.T, strict=True):
                if column.min() > 0 and column.max() > _WIDE * column.min():
                    ax.set(**{f"{axis}scale": "log"})
        return ax

    def _target(self, *, loss: bool = False) -> dict[str, Any]:
        """Arguments that tell Optuna which of several values to show."""
        named: dict[str, Any] = {"target_name": self.names[self.objective]}
        if len(self.names) > 1:
            # Of a target of our own, importance is that for low values.
            is_max = self.study.directions[self.objective].name == "MAXIMIZE"
            sign = -1 if loss and is_max else 1
            named["target"] = _Value(self.objective, sign)
        return named

    def _why_no_importances(self) -> str:
        if len(self.trials) < 2:
            return f"importances need 2 complete trials; there are {len(self.trials)}"
        if len({trial.values[self.objective] for trial in self.trials}) < 2:
            return "importances need trials that differ; all have the same value"
        if not self._importances:
            return "there is no parameter that all complete trials have"
        return ""

    @cached_property
    def _importances(self) -> dict[str, float]:
        from optuna.importance import get_param_importances

        target = self._target(loss=True).get("target")
        return get_param_importances(self.study, evaluator=self.evaluator, target=target)

    def _params(self) -> list[str]:
        """Parameters that complete trials have, the most important ones first."""
        names = list(dict.fromkeys(name for trial in self.trials for name in trial.params))
        if len(names) > self.max_params and not self._why_no_importances():
            names.sort(key=lambda name: -self._importances.get(name, 0.0))
        return names[: self.max_params]

    def _label_slice(self, ax, *, is_first: bool) -> None:
        ax.set_xlabel(_wrap(ax.get_xlabel()), fontsize="small")
        ax.set_ylabel(self.names[self.objective] if is_first else "", fontsize="small")
        ax.tick_params(labelsize="small", labelbottom=True, labelleft=is_first)
        if ax.get_xscale() == "log":
            _tick_few(ax.xaxis, *ax.get_xlim())
            return
        categories = getattr(ax.xaxis.get_major_formatter(), "_units", None)
        if categories is not None and sum(map(len, categories)) > _LETTERS_OF_TICKS:
            ax.tick_params(axis="x", rotation=30)
            for label in ax.get_xticklabels():
                label.set(horizontalalignment="right", rotation_mode="anchor")


class _Value:
    """One of a trial's values; as a class, since Optuna compares and copies it."""

    def __init__(self, objective: int, sign: int):
        self.objective = objective
        self.sign = sign

    def __call__(self, trial) -> float:
        return self.sign * trial.values[self.objective]


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep Optuna's style, warnings and log messages within."""
    import optuna
    from matplotlib import rc_context

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings(), rc_context():
            # Optuna says of each of its plots for matplotlib that it is experimental.
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _lay_out(figure, size: tuple[float, float]) -> None:
    figure.set_size_inches(size)
    figure.set_layout_engine("constrained")


def _note(title: str, text: str):
    """A figure that says why there is nothing to draw."""
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=(_WIDTH, 1.2), layout="constrained")
    ax.set_axis_off()
    ax.set_title(title)
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
    return ax


def _tick_few(axis, low: float, high: float) -> None:
    """Write some round numbers on a logarithmic axis: matplotlib writes too many, or one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_minor_formatter(NullFormatter())
    if high < _WIDE * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))


def _wrap(name: str) -> str:
    """Break a name that is too long for one line where a nested estimator begins."""
    if len(name) <= _LETTERS_A_LABEL or "__" not in name:
        return name
    owner, _, last = name.rpartition("__")
    return f"{owner}__\n{last}"
