"""Results to look at: masks, learning curves, reliability, outliers, studies, whole reports."""

from skmars.inspection._confusion import ConfusionDisplay
from skmars.inspection._curves import LearningCurveDisplay
from skmars.inspection._heat_maps import AttentionDisplay, HeatMapDisplay, UncertaintyDisplay
from skmars.inspection._masks import MaskDisplay
from skmars.inspection._outliers import OutlierDisplay
from skmars.inspection._reliability import ReliabilityDisplay, SparsificationDisplay
from skmars.inspection._report import write_report
from skmars.inspection._studies import StudyDisplay
from skmars.inspection._tables import class_names, iou_table

__all__ = [
    "AttentionDisplay",
    "ConfusionDisplay",
    "HeatMapDisplay",
    "LearningCurveDisplay",
    "MaskDisplay",
    "OutlierDisplay",
    "ReliabilityDisplay",
    "SparsificationDisplay",
    "StudyDisplay",
    "UncertaintyDisplay",
    "class_names",
    "iou_table",
    "write_report",
]
