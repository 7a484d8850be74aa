import numpy as np
from sklearn.base import BaseEstimator
from sklearn.naive_bayes import GaussianNB
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted


class GreyLevels(BaseEstimator):
    """Labels each pixel by its own grey level or colour."""

    def __init__(self, *, smoothing=1e-3):
        self.smoothing = smoothing

    def fit(self, X, y):
        pixels, y = self._pixels(X), np.asarray(y)
        if y.shape != pixels.shape[:3]:
            raise ValueError(f"y must have shape {pixels.shape[:3]}, got {y.shape}")
        check_classification_targets(y.ravel())
        self.n_channels_in_ = pixels.shape[3]
        self.colours_ = GaussianNB(var_smoothing=self.smoothing)
        self.colours_.fit(pixels.reshape(-1, self.n_channels_in_), y.ravel())
        self.classes_ = self.colours_.classes_
        return self

    def predict(self, X):
        check_is_fitted(self)
        pixels = self._pixels(X)
        if pixels.shape[3] != self.n_channels_in_:
            raise ValueError(f"X must have {self.n_channels_in_} channels: {pixels.shape}")
        return self.colours_.predict(pixels.reshape(-1, self.n_channels_in_)).reshape(
            pixels.shape[:3]
        )

    def score(self, X, y):
        return float(np.mean(self.predict(X) == y))

    def _pixels(self, X):
        X = check_array(X, allow_nd=True)
        if X.ndim not in (3, 4) or X.size == 0:
            raise ValueError(f"X must have shape (n, H, W) or (n, H, W, C), got {X.shape}")
        return X if X.ndim == 4 else X[..., None]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags
