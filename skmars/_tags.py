"""What every estimator of images tells scikit-learn about itself."""

__all__ = ["ImageInputMixin"]


class ImageInputMixin:
    """Tags of an estimator whose `fit` takes images and masks; comes before `BaseEstimator`."""

    def __sklearn_tags__(self):
        """Say that X has three dimensions or more, and that y is needed."""
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags
