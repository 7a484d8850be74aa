"""Semantic segmentation as a scikit-learn estimator, made for Martian terrain."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skmars.segmenter import MarsSegmenter

__version__ = "0.1.0.dev0"

__all__ = ["MarsSegmenter", "__version__"]


def __getattr__(name: str) -> Any:
    # Late, so that the command line can answer `--help` without importing torch.
    if name == "MarsSegmenter":
        from skmars.segmenter import MarsSegmenter

        return MarsSegmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
