"""What a fitted estimator knows, wherever in it that is kept."""

from typing import Any

__all__ = ["fitted_attribute"]


def fitted_attribute(estimator, name: str) -> Any:
    """Attribute of an estimator, of the last step of a Pipeline, or of what a search has found.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    name : str
        Such as "classes_" or "ignore_label".

    Returns
    -------
    value : object
        None if there is none of this name.
    """
    while estimator is not None:
        if hasattr(estimator, name):
            return getattr(estimator, name)
        if getattr(estimator, "steps", None):
            estimator = estimator.steps[-1][1]
        else:
            inner = getattr(estimator, "estimator_", None)
            estimator = getattr(estimator, "best_estimator_", inner)
    return None
