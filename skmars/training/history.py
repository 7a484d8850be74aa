"""The history of a training: skorch's, and the rows of it that users see."""

from collections.abc import Mapping, Sequence
from typing import Any

from skorch import NeuralNet
from skorch.history import History

__all__ = ["drop_unfinished_epoch", "history_rows", "restore_history"]

# Names of ours and of skorch.
HISTORY_COLUMNS = {
    "epoch": "epoch",
    "phase": "phase",
    "train_loss": "train_loss",
    "valid_loss": "valid_loss",
    "valid_mean_iou": "valid_mean_iou",
    "learning_rate": "learning_rate",
    "temperature": "temperature",
    "seconds": "dur",
}


def history_rows(net: NeuralNet) -> list[dict[str, Any]]:
    """The net's history as a row an epoch, without its batches."""
    return [
        {
            name: row[key] if isinstance(row[key], str | int) else float(row[key])
            for name, key in HISTORY_COLUMNS.items()
            if key in row
        }
        for row in net.history
    ]


def restore_history(net: NeuralNet, rows: Sequence[Mapping[str, Any]]) -> None:
    """Give a net the history that `history_rows` has told, to go on from."""
    net.history = History()
    for row in rows:
        net.history.new_epoch()
        for name, value in row.items():
            net.history.record(HISTORY_COLUMNS[name], value)


def drop_unfinished_epoch(net: NeuralNet) -> None:
    """Drop the row of an epoch that was stopped: without its figures it helps nobody."""
    if net.history and "learning_rate" not in net.history[-1]:
        del net.history[-1]
