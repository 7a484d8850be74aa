"""Hyperparameter search with Optuna: in a study of one's own, or in one call."""

from skmars.tuning.pruning import PruningCallback
from skmars.tuning.search import SegmenterSearchCV
from skmars.tuning.spaces import default_space, suggest_params
from skmars.tuning.storages import open_storage

__all__ = [
    "PruningCallback",
    "SegmenterSearchCV",
    "default_space",
    "open_storage",
    "suggest_params",
]
