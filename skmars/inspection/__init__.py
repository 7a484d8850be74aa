"""Results to look at: masks over images, learning curves, reliability, outliers, studies, tables.

Confusion matrices are drawn by :class:`sklearn.metrics.ConfusionMatrixDisplay`, from the counts of
`skmars.metrics.confusion_counts`.
"""

from skmars.inspection._curves import LearningCurveDisplay
from skmars.inspection._masks import MaskDisplay
from skmars.inspection._outliers import OutlierDisplay
from skmars.inspection._reliability import ReliabilityDisplay, SparsificationDisplay
from skmars.inspection._studies import StudyDisplay
from skmars.inspection._tables import class_names, iou_table

__all__ = [
    "LearningCurveDisplay",
    "MaskDisplay",
    "OutlierDisplay",
    "ReliabilityDisplay",
    "SparsificationDisplay",
    "StudyDisplay",
    "class_names",
    "iou_table",
]
