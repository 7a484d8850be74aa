"""Semantic segmentation as a scikit-learn estimator, made for Martian terrain."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skmars.augmentation import Augmenter
    from skmars.ensemble import Ensemble
    from skmars.outliers import OutlierRemover
    from skmars.pipeline import make_pipeline
    from skmars.segmenter import MarsSegmenter

__version__ = "0.1.0.dev0"

__all__ = [
    "Augmenter",
    "Ensemble",
    "MarsSegmenter",
    "OutlierRemover",
    "__version__",
    "make_pipeline",
]

# Imported late, so that the command line can answer `--help` without importing torch.
_MODULES = {
    "Augmenter": "skmars.augmentation",
    "Ensemble": "skmars.ensemble",
    "MarsSegmenter": "skmars.segmenter",
    "OutlierRemover": "skmars.outliers",
    "make_pipeline": "skmars.pipeline",
}
_SUBMODULES = [
    *("datasets", "inspection", "losses", "metrics", "model_selection", "nn", "outliers"),
    *("pipeline", "schedules", "tuning", "utils"),
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *_SUBMODULES]
