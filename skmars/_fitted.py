"""What an estimator was told, and what a fitted one knows, wherever in it that is kept."""

from typing import Any

from skmars._validation import check_labels

__all__ = ["changed_parameters", "fitted_attribute", "fitted_part", "known_labels"]


def changed_parameters(estimator) -> dict[str, Any]:
    """Parameters of an estimator that are not the defaults of its kind."""
    try:
        defaults = type(estimator)().get_params(deep=False)
    except TypeError:
        # A Pipeline, or what else needs arguments.
        defaults = {}
    return {
        name: value
        for name, value in estimator.get_params(deep=False).items()
        if name not in defaults or repr(value) != repr(defaults[name])
    }


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
    return getattr(fitted_part(estimator, name), name, None)


def fitted_part(estimator, name: str) -> Any:
    """Find what has an attribute of this name: an estimator, or what is within; or None."""
    while estimator is not None and not hasattr(estimator, name):
        if getattr(estimator, "steps", None):
            estimator = estimator.steps[-1][1]
        else:
            inner = getattr(estimator, "estimator_", None)
            estimator = getattr(estimator, "best_estimator_", inner)
    return estimator


def known_labels(estimator, y) -> tuple[Any, int | None]:
    """Classes and ignored label of an estimator, if masks hold no other labels.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    y : array-like of shape (n, H, W), or list of (H, W) arrays
        Masks.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
    ignore_label : int or None

    Raises
    ------
    ValueError
        If there is another label, or the estimator has no classes.
    """
    classes = fitted_attribute(estimator, "classes_")
    if classes is None:
        name = type(estimator).__name__
        raise ValueError(f"{name} has no attribute classes_ to tell the labels that it predicts")
    ignore_label = fitted_attribute(estimator, "ignore_label")
    check_labels(y, classes, ignore_label)
    return classes, ignore_label
