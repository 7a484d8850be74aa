"""Results to look at: masks over images, learning curves, and a table of scores.

Confusion matrices are drawn by :class:`sklearn.metrics.ConfusionMatrixDisplay`, from the counts of
`skmars.metrics.confusion_counts`.
"""

from skmars.inspection._curves import LearningCurveDisplay
from skmars.inspection._masks import MaskDisplay
from skmars.inspection._tables import class_names, iou_table

__all__ = ["LearningCurveDisplay", "MaskDisplay", "class_names", "iou_table"]
