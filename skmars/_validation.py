"""Checks of what users pass in, made once, before anything is computed."""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.utils import assert_all_finite

__all__ = [
    "check_classes",
    "check_groups",
    "check_images",
    "check_labels",
    "check_masks",
    "check_sample_weight",
    "check_training_data",
    "check_validation_data",
    "count_channels",
    "find_classes",
    "is_image_list",
    "labelled_classes",
    "labelled_pixels",
    "random_generator",
    "spread_out",
    "thinned",
    "unique_labels",
    "warn_of_filling",
]

# So many images, and rows and columns of each, are looked at where all would take time.
N_SAMPLES = 100
SIDE = 128
N_NUMBERS = 2**21

# How many times as far as the pixels that count all pixels may vary. A border that is black or
# white beside a scene of ordinary contrast stays below it.
FILLED = 5.0


def is_image_list(X) -> bool:
    """Whether X is a list or tuple of separate images, which may differ in size."""
    return (
        isinstance(X, list | tuple) and len(X) > 0 and all(hasattr(image, "shape") for image in X)
    )


def check_images(X, *, n_channels: int | None = None, name: str = "X") -> np.ndarray:
    """Check images and return them as an array, not copied if they are one.

    Parameters
    ----------
    X : array-like of shape (n, H, W) or (n, H, W, C)
        Real numbers, finite.
    n_channels : int or None
        Channels that the images must have.
    name : str
        What to call the images in an error.

    Returns
    -------
    X : ndarray of shape (n, H, W) or (n, H, W, C)

    Raises
    ------
    TypeError
        If X does not hold real numbers.
    ValueError
        If X has another number of dimensions or channels, is empty, or is not finite.
    """
    X = _as_array(X, name)
    if X.ndim not in (3, 4):
        raise ValueError(
            f"{name} must have shape (n, H, W) or (n, H, W, C), got {X.ndim} dimensions: "
            f"shape {X.shape}"
        )
    if X.size == 0:
        raise ValueError(f"{name} is empty: shape {X.shape}")
    if X.dtype.kind not in "buif":
        raise TypeError(f"{name} must hold real numbers, got dtype {X.dtype}")
    if X.dtype.itemsize > 8:
        # torch has no extended precision; what is too large without it is infinite.
        with np.errstate(over="ignore"):
            X = X.astype(np.float64)
    if X.dtype.kind == "f":
        _check_finite(X, name)
    if n_channels is not None and count_channels(X) != n_channels:
        raise ValueError(
            f"{name} has {count_channels(X)} channels (shape {X.shape}), "
            f"but the segmenter was trained on images with {n_channels}"
        )
    return X


def count_channels(X: np.ndarray) -> int:
    """Channels of images `(n, H, W)` or `(n, H, W, C)`."""
    return 1 if X.ndim == 3 else X.shape[3]


def check_masks(y, X: np.ndarray | None = None, *, name: str = "y") -> np.ndarray:
    """Check masks and return them as an array, not copied if they are one.

    Parameters
    ----------
    y : array-like of shape (n, H, W)
        Integer labels; floating dtypes are accepted if each value is an integer.
    X : ndarray of shape (n, H, W) or (n, H, W, C), default=None
        Their images, if they have some.
    name : str
        What to call the masks in an error.

    Returns
    -------
    y : ndarray of shape (n, H, W)

    Raises
    ------
    TypeError
        If y holds no numbers.
    ValueError
        If the shape of y is not that of X, or a label is not an integer.
    """
    if y is None:
        raise ValueError(f"{name} must be masks of shape (n, H, W), got None")
    y = _as_array(y, name)
    if X is not None and y.shape != X.shape[:3]:
        raise ValueError(
            f"{name} must have one label for each pixel of the images, shape {X.shape[:3]}, "
            f"got shape {y.shape}"
        )
    if y.dtype.kind == "f":
        assert_all_finite(y, input_name=name)
        if any(np.any(mask != np.rint(mask)) for mask in y):
            raise ValueError(f"{name} must hold integer labels, got fractions")
    elif y.dtype.kind not in "bui":
        raise TypeError(f"{name} must hold integer labels, got dtype {y.dtype}")
    if y.dtype.kind in "uf" and y.size and y.max() >= 2**63:
        raise ValueError(f"{name} must hold labels below 2**63, got {y.max()}")
    return y


def _check_finite(X: np.ndarray, name: str) -> None:
    try:
        assert_all_finite(X, input_name=name)
    except ValueError as error:
        raise ValueError(
            f"{error} Fill pixels without data with a value like the others', such as their "
            "median; in training, also mark them in y with a label that ignore_label names. "
            "predict_large fills those that nodata names"
        ) from error


def unique_labels(y: np.ndarray) -> np.ndarray:
    """Sorted labels of masks `(n, H, W)`, found mask by mask to spare memory."""
    return np.unique(np.concatenate([np.unique(mask) for mask in y]))


def labelled_pixels(mask: np.ndarray, ignore_label: int | None) -> np.ndarray:
    """Which pixels have a label that is a class."""
    return np.full(mask.shape, True) if ignore_label is None else mask != ignore_label


def check_labels(
    y: np.ndarray,
    classes: np.ndarray,
    ignore_label,
    *,
    name: str = "y",
    needs_one: bool = False,
) -> None:
    """Check that masks hold no label but the classes and the ignored one.

    Raises
    ------
    ValueError
        If there is another label; or, with `needs_one`, none but the ignored one.
    """
    labels = unique_labels(y)
    if needs_one and ignore_label is not None and np.all(labels == ignore_label):
        raise ValueError(f"ignore_label={ignore_label} leaves no labelled pixel in {name}")
    known = classes if ignore_label is None else np.append(classes, ignore_label)
    unknown = np.setdiff1d(labels, known)
    if len(unknown):
        raise ValueError(
            f"{name} has labels {unknown[:10].tolist()} that are not among the classes "
            f"{classes.tolist()}"
        )


def check_sample_weight(
    sample_weight, y: np.ndarray, *, name: str = "sample_weight"
) -> np.ndarray | None:
    """Check weights of images `(n,)` or pixels `(n, H, W)`; None stays None.

    Raises
    ------
    TypeError
        If some are masked.
    ValueError
        If the shape is another, or a weight is negative or not finite, or all are 0.
    """
    if sample_weight is None:
        return None
    weight = _as_array(sample_weight, name)
    if weight.dtype not in (np.float32, np.float64):
        weight = weight.astype(np.float64)
    if weight.shape not in {y.shape[:1], y.shape}:
        raise ValueError(f"{name} must have shape {y.shape[:1]} or {y.shape}, got {weight.shape}")
    # In single precision, as training has them.
    highest = np.finfo(np.float32).max
    if not (weight <= highest).all() or weight.min() < 0 or np.float32(weight.max()) == 0:
        raise ValueError(f"{name} must be finite, at least 0, and not 0 everywhere")
    return weight


def check_training_data(
    X, y, sample_weight, *, n_channels: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Check images, masks and weights together; see the checks of each."""
    X = check_images(X, n_channels=n_channels)
    y = check_masks(y, X)
    return X, y, check_sample_weight(sample_weight, y)


def spread_out(n: int, n_most: int) -> np.ndarray:
    """At most so many of n places, the first and the last and evenly spread ones between."""
    return np.unique(np.linspace(0, n - 1, n_most, dtype=int))


def thinned(image: np.ndarray) -> np.ndarray:
    """View of an image with evenly spaced rows and columns, at most 128 of each."""
    height, width = image.shape[:2]
    return image[:: -(-height // SIDE), :: -(-width // SIDE)]


def warn_of_filling(X: np.ndarray, y: np.ndarray, ignore_label, rows: np.ndarray) -> None:
    """Warn if it is pixels that are ignored by which images would be scaled.

    Parameters
    ----------
    X : ndarray of shape (n, H, W) or (n, H, W, C)
        Images.
    y : ndarray of shape (n, H, W)
        Masks.
    ignore_label : int or None
        Label that is no class.
    rows : ndarray of int
        Images that the scaling is measured on; some of them are looked at.
    """
    if ignore_label is None:
        return
    # Fewer of images with many channels, whose pixels are copied.
    n_most = int(np.clip(N_NUMBERS // (SIDE * SIDE * count_channels(X)), 8, N_SAMPLES))
    some = rows[spread_out(len(rows), n_most)]
    is_counted = np.stack([thinned(y[row]) for row in some]) != ignore_label
    if is_counted.all() or not is_counted.any():
        return
    images = np.stack([thinned(X[row]) for row in some])
    pixels, counted = images.reshape(-1, count_channels(X)), images[is_counted]
    counted = counted.reshape(-1, pixels.shape[1])
    # A channel that is constant but for missing data, such as that of opacity, is scaled well.
    varies = counted.min(axis=0) < counted.max(axis=0)
    with np.errstate(over="ignore"):
        whole, own = (part[:, varies].std(axis=0, dtype=np.float64) for part in (pixels, counted))
    if (whole / own).max(initial=0) > FILLED:
        # Without the figure, which would tell one and the same thing anew for each fold.
        warnings.warn(
            f"with the pixels of ignore_label={ignore_label} the images have over {FILLED:.0f} "
            "times the standard deviation that they have without, and are scaled by it: fill "
            "pixels without data with a value like the others', such as their median",
            UserWarning,
            # Of whoever has called the estimator's method.
            stacklevel=3,
        )


def check_validation_data(
    validation_data, *, n_channels: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Check images and masks to validate on, with weights or without.

    Raises
    ------
    TypeError, ValueError
        If it is neither a pair nor a triple, or its parts are not as those of `fit` have to be.
    """
    if not isinstance(validation_data, tuple | list) or len(validation_data) not in (2, 3):
        raise ValueError(
            "validation_data must be a pair of images and masks, (X, y), or (X, y, sample_weight)"
        )
    X, y, *others = validation_data
    sample_weight = others[0] if others else None
    X = check_images(X, n_channels=n_channels, name="validation_data[0]")
    y = check_masks(y, X, name="validation_data[1]")
    return X, y, check_sample_weight(sample_weight, y, name="validation_data[2]")


def labelled_classes(y: np.ndarray, ignore_label, *, name: str = "y") -> np.ndarray:
    """Sorted labels in masks, as integers, without the ignored one.

    Raises
    ------
    ValueError
        If none is left.
    """
    labels = unique_labels(y)
    classes = labels if ignore_label is None else labels[labels != ignore_label]
    if len(classes) == 0:
        raise ValueError(f"ignore_label={ignore_label} leaves no labelled pixel in {name}")
    return classes.astype(np.int64) if classes.dtype.kind == "f" else classes


def find_classes(y: np.ndarray, ignore_label, *, name: str = "y") -> np.ndarray:
    """Sorted labels to tell apart in masks, without the ignored one.

    Raises
    ------
    ValueError
        If fewer than two are left.
    """
    classes = labelled_classes(y, ignore_label, name=name)
    if len(classes) == 1:
        raise ValueError(f"{name} must have at least 2 classes, got only {classes.tolist()}")
    return classes


def check_classes(classes, ignore_label) -> np.ndarray:
    """Check labels that a user announces, and return them sorted, without the ignored one.

    Raises
    ------
    TypeError, ValueError
        If they are not integers, or fewer than two.
    """
    labels = np.ravel(_as_array(classes, "classes"))
    if len(labels) == 0:
        raise ValueError("classes must have at least 2 labels, got none")
    labels = check_masks(labels.reshape(1, 1, -1), name="classes")
    return find_classes(labels, ignore_label, name="classes")


def check_groups(groups, n: int) -> np.ndarray | None:
    """Check that there is one group for each of n images; None stays None.

    Raises
    ------
    ValueError
        If not, or a group is missing (NaN or None).
    """
    if groups is None:
        return None
    # Beside names, numpy makes a name of what is missing.
    as_given = np.asarray(groups, dtype=object)
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise ValueError(f"groups must have shape ({n},), one for each image; got {groups.shape}")
    if any(_is_missing(group) for group in as_given):
        raise ValueError("groups must name one for each image; some are missing (NaN or None)")
    return groups


def random_generator(random_state) -> np.random.Generator:
    """Make a generator from an int, a RandomState, or None, which the system seeds."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31))
    return np.random.default_rng(random_state)


def _is_missing(value) -> bool:
    # pandas' own markers do not compare.
    return value is None or type(value).__name__ in {"NAType", "NaTType"} or value != value


def _as_array(values: np.ndarray | Sequence, name: str) -> np.ndarray:
    parts = values if isinstance(values, list | tuple) else [values]
    if any(np.ma.is_masked(part) for part in parts):
        raise TypeError(
            f"{name} has masked pixels, which would be taken for others: fill them, in masks with "
            "a label that ignore_label names, in sample_weight with 0"
        )
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        shapes = sorted({np.shape(value) for value in values})[:3]
        if len(shapes) == 1:
            raise ValueError(f"{name} cannot be made a numpy array: {error}") from error
        raise ValueError(
            f"{name} must be an array of images of one size; got sizes such as {shapes}"
        ) from error
