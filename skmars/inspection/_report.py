"""What a segmenter is and does, on one page."""

import base64
import html
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skmars import __version__
from skmars._files import replacing
from skmars._fitted import changed_parameters, fitted_attribute, known_labels
from skmars._validation import labelled_pixels
from skmars.inspection._confusion import ConfusionDisplay
from skmars.inspection._curves import LearningCurveDisplay
from skmars.inspection._figures import require_matplotlib
from skmars.inspection._heat_maps import predicted_masks, uncertainty_maps
from skmars.inspection._masks import MaskDisplay
from skmars.inspection._reliability import ReliabilityDisplay, SparsificationDisplay
from skmars.inspection._tables import class_names
from skmars.metrics import (
    boundary_f1_score,
    iou_from_counts,
    pixel_accuracy_score,
)
from skmars.metrics.averages import mean_of_present
from skmars.metrics.mask_pairs import count_with_others, pair_masks

PAGE = Template((Path(__file__).parent / "report.html").read_text(encoding="utf-8"))


def write_report(
    path: str | os.PathLike,
    estimator,
    X,
    y,
    *,
    target_names: Sequence[str] | None = None,
    title: str = "Segmentation report",
    n_images: int = 6,
) -> None:
    """Write what a fitted segmenter is, and what it does with some images, as one HTML file.

    The file holds its pictures and needs no other: parameters, scores by class, learning curves,
    the confusion matrix, how far probabilities and their uncertainty can be relied on, and masks.

    Parameters
    ----------
    path : path-like
        The file. What stood there before stays whole until the new one is complete.
    estimator : estimator instance
        Fitted segmenter, Ensemble or Pipeline with `predict` and `classes_`.
    X : array-like of shape (n, H, W) or (n, H, W, C), or list of arrays of any sizes
        Images that it was not trained on.
    y : array-like of shape (n, H, W), or list of (H, W) arrays
        True masks.
    target_names : sequence of str, default=None
        Names of the labels 0, 1, 2, ..., or one for each class; see `class_names`.
    title : str, default="Segmentation report"
        Of the page.
    n_images : int, default=6
        Images to show: from the one with the most errors to the one with the fewest.

    Raises
    ------
    FileNotFoundError
        If there is no folder for the file.
    ImportError
        If matplotlib is not installed.
    ValueError
        If images and masks do not fit each other, there are none to show, or masks have labels
        that the estimator does not know.

    Notes
    -----
    The probabilities of all images are in memory at once, 4 bytes for each pixel and class, beside
    some 20 bytes for each pixel: its label, its uncertainty, and copies of that to be sorted.

    Examples
    --------
    >>> from skmars import MarsSegmenter
    >>> from skmars.datasets import make_terrain
    >>> from skmars.inspection import write_report
    >>> X, y = make_terrain(12, random_state=0)
    >>> segmenter = MarsSegmenter(depth=2, base_channels=4, max_epochs=1).fit(X, y)
    >>> write_report("report.html", segmenter, X, y)  # doctest: +SKIP
    """
    require_matplotlib("write_report")
    check_is_fitted(estimator)
    if len(X) != len(y):
        raise ValueError(f"got {len(X)} images in X and {len(y)} masks in y")
    if len(X) == 0 or n_images < 1:
        raise ValueError(f"at least one image can be shown; got n_images={n_images} of {len(X)}")
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"there is no folder {Path(path).parent} for the report")
    labels, ignored = known_labels(estimator, y)
    names = class_names(labels, target_names)
    probabilities = estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else None
    predicted = predicted_masks(estimator, X, probabilities)
    counts = count_with_others(pair_masks(y, predicted, None), labels, ignored)[1]
    figures = dict(_learning_and_errors(estimator, counts[:-1], names))
    if probabilities is not None:
        uncertainty = uncertainty_maps(estimator, X, probabilities)
        figures |= dict(_confidence(y, predicted, probabilities, uncertainty, labels, ignored))
    shown = _spread(y, predicted, ignored, n_images)
    figures["Masks, from the most errors to the fewest"] = MaskDisplay.from_predictions(
        [X[k] for k in shown],
        [y[k] for k in shown],
        [predicted[k] for k in shown],
        labels=labels,
        target_names=names,
        ignore_label=ignored,
        errors=True,
    ).figure_
    page = PAGE.substitute(
        title=html.escape(title),
        facts=_table(_facts(estimator, len(X))),
        scores=_table(_scores(y, predicted, counts, names, ignored)),
        figures="\n".join(_as_html(name, figure) for name, figure in figures.items()),
        version=__version__,
    )
    with replacing(path) as file:
        file.write(page.encode("utf-8"))


def _facts(estimator, n_images: int) -> dict[str, str]:
    """What the estimator is, and what differs from its defaults."""
    facts = {"estimator": type(estimator).__name__, "images": str(n_images)}
    for name in ("n_parameters_", "n_iter_", "precision_", "device_", "temperature_"):
        value = fitted_attribute(estimator, name)
        if value is not None:
            facts[name] = _as_text(value)
    return facts | {name: repr(value) for name, value in changed_parameters(estimator).items()}


def _as_text(value) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, Integral) else f"{value:.6g}"


def _scores(y, predicted, counts, names, ignored) -> dict[str, str]:
    # The last one is of no class.
    iou = iou_from_counts(counts)[:-1]
    scores = {"mean IoU": mean_of_present(iou, "mean IoU")}
    scores |= {f"IoU of {name}": float(value) for name, value in zip(names, iou, strict=True)}
    scores["pixel accuracy"] = pixel_accuracy_score(y, predicted, ignore_label=ignored)
    scores["boundary F1, within 2 pixels"] = boundary_f1_score(y, predicted, ignore_label=ignored)
    return {name: "-" if np.isnan(value) else f"{value:.3f}" for name, value in scores.items()}


def _learning_and_errors(estimator, counts, names) -> Iterator[tuple[str, Any]]:
    """Titles and figures of what the estimator went through, if it tells, and what it confuses."""
    history = fitted_attribute(estimator, "history_")
    if history is not None:
        best_epoch = fitted_attribute(estimator, "best_epoch_")
        display = LearningCurveDisplay.from_history(history, best_epoch=best_epoch)
        yield "Training", display.figure_
    yield "Confusion matrix", ConfusionDisplay(counts, names).plot().figure_


def _confidence(
    y, predicted, probabilities, uncertainty, labels, ignored
) -> Iterator[tuple[str, Any]]:
    """Titles and figures of what probabilities and their uncertainty are worth."""
    reliability = ReliabilityDisplay.from_predictions(
        y, probabilities, labels=labels, ignore_label=ignored
    )
    yield "Can probabilities be relied on?", reliability.figure_
    sparse = SparsificationDisplay.from_predictions(
        y, predicted, uncertainty, ignore_label=ignored
    )
    yield "Does uncertainty find the errors?", sparse.figure_


def _spread(y, predicted, ignored, n_images: int) -> np.ndarray:
    """Places of images at even ranks by their fraction of errors, the worst first."""
    shares = []
    for true, pred in zip(y, predicted, strict=True):
        true = np.asarray(true)
        counted = labelled_pixels(true, ignored)
        wrong = (true != pred) & counted
        shares.append(wrong.sum() / max(counted.sum(), 1))
    ranks = np.linspace(0, len(shares) - 1, min(n_images, len(shares))).round().astype(int)
    return np.argsort(-np.array(shares), kind="stable")[ranks]


def _table(rows: Mapping[str, str]) -> str:
    lines = [
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
    ]
    return "\n".join(["<table>", *lines, "</table>"])


def _as_html(title: str, figure) -> str:
    import matplotlib.pyplot as plt

    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=144)
    width = round(72 * figure.get_figwidth())
    plt.close(figure)
    data = base64.b64encode(picture.getvalue()).decode("ascii")
    name = html.escape(title)
    source = f"data:image/png;base64,{data}"
    return f'<section><h2>{name}</h2><img alt="{name}" width="{width}" src="{source}"></section>'
