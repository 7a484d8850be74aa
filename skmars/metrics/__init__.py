"""Metrics for segmentation masks, each from counts over the whole data set.

Masks are integers, an array `(n, H, W)` or a list of `(H, W)` arrays of different sizes. A mean
over images or over batches is another number than the one given here, and is never taken.
"""

from skmars.metrics.boundary_f1 import boundary_f1_score
from skmars.metrics.confusion import (
    confusion_counts,
    iou_from_counts,
    iou_per_class,
    mean_iou_score,
    pixel_accuracy_score,
    weighted_iou_score,
)
from skmars.metrics.reliability import (
    ReliabilityCurve,
    SparsificationCurve,
    expected_calibration_error,
    predictive_entropy,
    reliability_curve,
    sparsification_curve,
    sparsification_error,
)
from skmars.metrics.scorers import (
    SegmentationScorer,
    boundary_f1_scorer,
    class_iou_scorer,
    make_scorers,
    mean_iou_scorer,
    pixel_accuracy_scorer,
    weighted_iou_scorer,
)

__all__ = [
    "ReliabilityCurve",
    "SegmentationScorer",
    "SparsificationCurve",
    "boundary_f1_score",
    "boundary_f1_scorer",
    "class_iou_scorer",
    "confusion_counts",
    "expected_calibration_error",
    "iou_from_counts",
    "iou_per_class",
    "make_scorers",
    "mean_iou_score",
    "mean_iou_scorer",
    "pixel_accuracy_score",
    "pixel_accuracy_scorer",
    "predictive_entropy",
    "reliability_curve",
    "sparsification_curve",
    "sparsification_error",
    "weighted_iou_score",
    "weighted_iou_scorer",
]
