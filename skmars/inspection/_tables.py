"""Names of classes and scores as text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def class_names(labels, target_names: Sequence[str] | None = None) -> list[str]:
    """Names of labels: the labels themselves where names do not fit them.

    Parameters
    ----------
    labels : array-like of shape (n_labels,)
        Labels.
    target_names : sequence of str, default=None
        Names of the labels 0, 1, 2, ..., or if those do not reach the highest label, one for each
        of `labels`.

    Returns
    -------
    names : list of str

    Examples
    --------
    >>> from skmars.inspection import class_names
    >>> class_names([0, 2], ["sky", "soil", "rock"])
    ['sky', 'rock']
    >>> class_names([1, 2], ["soil", "rock"])
    ['soil', 'rock']
    >>> class_names([0, 255], ["sky", "soil", "rock"])
    ['0', '255']
    """
    labels = [int(label) for label in labels]
    if target_names is not None and all(0 <= label < len(target_names) for label in labels):
        return [target_names[label] for label in labels]
    if target_names is not None and len(target_names) == len(labels):
        return list(target_names)
    return [str(label) for label in labels]


def iou_table(scores: Mapping[str, Any], names: Sequence[str]) -> str:
    """IoU of each class and its mean as a table of text.

    Parameters
    ----------
    scores : mapping of str -> array-like of shape (n_classes,)
        A column for each method: its name and its IoU per class. NaN is left out of the mean.
    names : sequence of str
        Names of the classes.

    Returns
    -------
    table : str

    Examples
    --------
    >>> from skmars.inspection import iou_table
    >>> print(iou_table({"net": [0.8, 0.5], "majority": [0.6, 0.0]}, ["soil", "sand"]))
    class       net  majority
    soil      0.800     0.600
    sand      0.500     0.000
    mean IoU  0.650     0.300
    """
    first = max(len(name) for name in [*names, "mean IoU"])
    widths = [max(len(title), 5) for title in scores]
    columns = [np.asarray(column, dtype=float) for column in scores.values()]
    rows = [("class", list(scores))]
    for number, name in enumerate(names):
        rows.append((name, [_three_digits(column[number]) for column in columns]))
    means = [column[~np.isnan(column)] for column in columns]
    rows.append(
        ("mean IoU", [_three_digits(part.mean() if len(part) else np.nan) for part in means])
    )
    return "\n".join(
        f"{name:<{first}}"
        + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        for name, cells in rows
    )


def _three_digits(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"
