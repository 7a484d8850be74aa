"""Finding images that have no place in a training set."""

from skmars.outliers.remover import OutlierRemover

__all__ = ["OutlierRemover"]
