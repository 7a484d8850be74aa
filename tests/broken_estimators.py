"""Segmenters and samplers that break the contract, each in one way."""

import copy
import itertools
import warnings

import numpy as np
from grey_levels import GreyLevels
from sklearn.base import BaseEstimator, clone
from sklearn.naive_bayes import GaussianNB
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array


class Weighted(GreyLevels):
    """Sound: makes use of weights."""

    def fit(self, X, y, sample_weight=None):
        if sample_weight is None:
            return super().fit(X, y)
        weight = np.array(sample_weight, dtype=float)
        if weight.shape != np.shape(X)[:1] or not np.isfinite(weight).all() or not weight.any():
            raise ValueError(f"sample_weight must be finite numbers of shape (n,), got {weight}")
        super().fit(X, y)
        pixels = self._pixels(X)
        weights = np.repeat(weight, np.prod(pixels.shape[1:3]))
        self.colours_.fit(
            pixels.reshape(-1, self.n_channels_in_)[weights > 0],
            np.asarray(y).ravel()[weights > 0],
            sample_weight=weights[weights > 0],
        )
        return self


class Probable(GreyLevels):
    """Sound: knows probabilities."""

    def predict_proba(self, X):
        self.predict(X)
        pixels = self._pixels(X)
        proba = self.colours_.predict_proba(pixels.reshape(-1, self.n_channels_in_))
        return np.moveaxis(proba.reshape(*pixels.shape[:3], -1), 3, 1)


class Seeded(GreyLevels):
    """Sound: adds random noise that `random_state` determines."""

    def __init__(self, *, smoothing=1e-3, random_state=None):
        super().__init__(smoothing=smoothing)
        self.random_state = random_state

    def fit(self, X, y):
        super().fit(X, y)
        self.colours_.theta_ += self._rng().normal(0, 20, self.colours_.theta_.shape)
        return self

    def _rng(self):
        state = self.random_state
        if isinstance(state, np.random.RandomState):
            state = state.randint(1000)
        return np.random.default_rng(state)


class Unrepeatable(Weighted):
    """Sound: says that no two fits are the same."""

    fits = itertools.count()

    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight=sample_weight)
        self.colours_.theta_ += 25 if next(self.fits) % 2 else -25
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True
        return tags


class Incremental(GreyLevels):
    """Sound: learns in parts, and has to be told all classes."""

    def partial_fit(self, X, y, classes):
        part = clone(self).fit(X, y)  # refuses what fit refuses
        if not hasattr(self, "colours_"):
            self.colours_ = GaussianNB(var_smoothing=self.smoothing)
            self.classes_, self.n_channels_in_ = np.unique(classes), part.n_channels_in_
        if part.n_channels_in_ != self.n_channels_in_:
            raise ValueError(f"X must have {self.n_channels_in_} channels")
        pixels = self._pixels(X).reshape(-1, self.n_channels_in_)
        self.colours_.partial_fit(pixels, np.ravel(y), classes=self.classes_)
        return self


class PartlyLabelled(GreyLevels):
    """Sound: leaves out the pixels of one label."""

    def __init__(self, *, smoothing=1e-3, ignore_label=None):
        super().__init__(smoothing=smoothing)
        self.ignore_label = ignore_label

    def fit(self, X, y):
        super().fit(X, y)
        pixels, labels = self._pixels(X).reshape(-1, self.n_channels_in_), np.ravel(y)
        labelled = labels != self.ignore_label
        self.classes_ = self.colours_.fit(pixels[labelled], labels[labelled]).classes_
        return self

    def score(self, X, y):
        labelled = np.asarray(y) != self.ignore_label
        return float(np.mean((self.predict(X) == y)[labelled]))


class Warns(GreyLevels):
    """Sound: warns of the images that it is given."""

    def fit(self, X, y):
        warnings.warn("the images are small", stacklevel=2)
        return super().fit(X, y)


class ChangesParameter(GreyLevels):
    def fit(self, X, y):
        self.smoothing = 10 * self.smoothing
        return super().fit(X, y)


class SetsPublicAttribute(GreyLevels):
    def fit(self, X, y):
        self.n_images = np.shape(X)[:1]
        return super().fit(X, y)


class IgnoresRandomState(Seeded):
    def _rng(self):
        return np.random.default_rng()


class GoesByNumpysGlobalState(Seeded):
    def _rng(self):
        return np.random.default_rng(check_random_state(None).get_state()[1])


class RefusesRandomStateInstance(Seeded):
    def _rng(self):
        return np.random.default_rng([self.random_state])


class SeedsNumpy(GreyLevels):
    def fit(self, X, y):
        check_random_state(None).seed(0)  # that of numpy
        return super().fit(X, y)


class ChangesNumpysSettings(GreyLevels):
    def fit(self, X, y):
        np.seterr(under="ignore", over="ignore")
        return super().fit(X, y)


class NormalisesWithTheBatch(GreyLevels):
    def predict(self, X):
        pixels = self._pixels(X)
        return super().predict(pixels - pixels.mean() + 110)


class GoesByThePlaceInTheBatch(GreyLevels):
    def predict(self, X):
        labels = super().predict(X)
        labels[0] = self.classes_[0]
        return labels


class WritesIntoImages(GreyLevels):
    def predict(self, X):
        labels = super().predict(X)
        if isinstance(X, np.ndarray) and X.dtype == np.float64 and X.flags.writeable:
            X /= 255
        return labels


class RemembersEarlierFits(GreyLevels):
    def fit(self, X, y):
        earlier = getattr(self, "levels_", [])
        self.levels_ = [*earlier, np.mean(X)]
        X = self._pixels(X)
        return super().fit(X + 60.0 * len(earlier), y)


class PredictionChangesAttribute(GreyLevels):
    def predict(self, X):
        labels = super().predict(X)
        self.n_predicted_ = len(labels)
        return labels


class SetsAttributeInInit(GreyLevels):
    def __init__(self, *, smoothing=1e-3):
        super().__init__(smoothing=smoothing)
        self.model = None


class ValidatesInInit(GreyLevels):
    def __init__(self, *, smoothing=1e-3):
        if not smoothing > 0:
            raise ValueError("smoothing must be above 0")
        super().__init__(smoothing=smoothing)


class CopiesParameter(GreyLevels):
    def __init__(self, *, smoothing=1e-3):
        super().__init__(smoothing=copy.copy(smoothing))


class SwallowsParameters(GreyLevels):
    def __init__(self, *, smoothing=1e-3, **more):
        super().__init__(smoothing=smoothing)


class PredictsPositions(GreyLevels):
    def predict(self, X):
        return np.searchsorted(self.classes_, super().predict(X))


class DoesNotSayItNeedsFit(GreyLevels):
    def predict(self, X):
        if not hasattr(self, "colours_"):
            raise AttributeError("colours_")
        return super().predict(X)


class AcceptsNaN(GreyLevels):
    def _pixels(self, X):
        return super()._pixels(np.nan_to_num(X, posinf=0, neginf=0) if _is_float(X) else X)


class AcceptsNaNInMasks(GreyLevels):
    def fit(self, X, y):
        return super().fit(X, np.nan_to_num(y, posinf=0) if _is_float(y) else y)


class RoundsFractionsInMasks(GreyLevels):
    def fit(self, X, y):
        finite = _is_float(y) and np.isfinite(y).all()
        return super().fit(X, np.rint(y) if finite else y)


class CutsMasks(GreyLevels):
    def fit(self, X, y):
        n, height, width = np.shape(X)[:3] if np.ndim(X) > 2 else (1, 1, 1)
        return super().fit(X, y if np.ndim(y) != 3 else np.asarray(y)[:n, :height, :width])


class LosesItselfInPickle(GreyLevels):
    def __getstate__(self):
        state = super().__getstate__()
        if "colours_" in state:
            state = {**state, "classes_": state["classes_"][::-1]}
        return state

    def predict(self, X):
        labels = super().predict(X)
        return self.classes_[np.searchsorted(np.sort(self.classes_), labels)]


class AcceptsOtherChannels(GreyLevels):
    def predict(self, X):
        if hasattr(self, "colours_"):
            pixels = self._pixels(X)
            X = np.resize(pixels.mean(axis=3), (self.n_channels_in_, *pixels.shape[:3]))
            X = np.moveaxis(X, 0, 3)
        return super().predict(X)


class ReturnsNothing(GreyLevels):
    def fit(self, X, y):
        super().fit(X, y)


class Prints(GreyLevels):
    def fit(self, X, y):
        print("fitting")
        return super().fit(X, y)


class IgnoresWeights(Weighted):
    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight=sample_weight)
        return super().fit(X, y)


class WritesIntoWeights(Weighted):
    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight=sample_weight)
        if isinstance(sample_weight, np.ndarray):
            sample_weight *= 2
        return self


class TakesPixelsOfWeight0(Weighted):
    def fit(self, X, y, sample_weight=None):
        if sample_weight is not None and np.any(sample_weight):
            sample_weight = np.asarray(sample_weight) + 1
        return super().fit(X, y, sample_weight=sample_weight)


class ProbabilitiesDoNotSumTo1(Probable):
    def predict_proba(self, X):
        return super().predict_proba(X) / 2


class ProbabilitiesLast(Probable):
    def predict_proba(self, X):
        return np.moveaxis(super().predict_proba(X), 1, 3)


class ScoresErrors(GreyLevels):
    def score(self, X, y):
        return float(np.mean(self.predict(X) != y))


class ReadsMemoryAsItLies(GreyLevels):
    def _pixels(self, X):
        pixels = super()._pixels(X)
        return pixels.ravel(order="K").reshape(pixels.shape)


class NeedsTheSizeOfFit(GreyLevels):
    def fit(self, X, y):
        self.size_ = np.shape(X)[1:3]
        return super().fit(X, y)

    def predict(self, X):
        labels = super().predict(X)
        if labels.shape[1:] != self.size_:
            raise ValueError(f"images must be of size {self.size_}")
        return labels


class SaysItTakesTables(GreyLevels):
    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


class LearnsNothing(GreyLevels):
    def predict(self, X):
        return np.full_like(super().predict(X), self.classes_[0])


class AcceptsNaNInParts(Incremental):
    def partial_fit(self, X, y, classes=None):
        if classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit")
        X = np.nan_to_num(X, posinf=0, neginf=0) if _is_float(X) else X
        return super().partial_fit(X, y, classes)


class DoesNotSayThatMasksAreMissing(GreyLevels):
    def fit(self, X, y):
        if y is None:
            raise ValueError("this cannot be fitted")
        return super().fit(X, y)


class ScoresIgnoredPixels(PartlyLabelled):
    def score(self, X, y):
        return float(np.mean(self.predict(X) == y))


def _is_float(values):
    return isinstance(values, np.ndarray) and values.dtype.kind == "f"


# By the check that is meant for it.
SEGMENTERS = {
    ChangesParameter: "check_estimators_overwrite_params",
    SetsPublicAttribute: "check_dont_overwrite_parameters",
    IgnoresRandomState: "check_random_state_int",
    GoesByNumpysGlobalState: "check_random_state_int",
    RefusesRandomStateInstance: "check_random_state_instance",
    SeedsNumpy: "check_global_random_state",
    ChangesNumpysSettings: "check_global_settings",
    NormalisesWithTheBatch: "check_methods_subset_invariance",
    GoesByThePlaceInTheBatch: "check_methods_sample_order_invariance",
    WritesIntoImages: "check_images_not_changed",
    RemembersEarlierFits: "check_fit_forgets_earlier_fit",
    PredictionChangesAttribute: "check_dict_unchanged",
    SetsAttributeInInit: "check_no_attributes_set_in_init",
    ValidatesInInit: "check_constructor_stores_parameters",
    CopiesParameter: "check_constructor_stores_parameters",
    SwallowsParameters: "check_constructor_signature",
    PredictsPositions: "check_segmenters_classes",
    DoesNotSayItNeedsFit: "check_estimators_unfitted",
    AcceptsNaN: "check_estimators_nan_inf",
    AcceptsNaNInParts: "check_estimators_nan_inf",
    AcceptsNaNInMasks: "check_supervised_y_no_nan",
    DoesNotSayThatMasksAreMissing: "check_requires_y_none",
    RoundsFractionsInMasks: "check_masks_regression_target",
    CutsMasks: "check_inconsistent_masks",
    LosesItselfInPickle: "check_estimators_pickle",
    AcceptsOtherChannels: "check_n_channels_in_after_fitting",
    ReturnsNothing: "check_estimators_fit_returns_self",
    Prints: "check_fit_prints_nothing",
    IgnoresWeights: "check_sample_weight_matters",
    WritesIntoWeights: "check_sample_weights_not_overwritten",
    TakesPixelsOfWeight0: "check_sample_weight_equivalence",
    ProbabilitiesDoNotSumTo1: "check_predict_proba",
    ProbabilitiesLast: "check_predict_proba",
    ScoresErrors: "check_score",
    ScoresIgnoredPixels: "check_ignore_label",
    ReadsMemoryAsItLies: "check_f_contiguous_images",
    NeedsTheSizeOfFit: "check_predict_other_sizes",
    SaysItTakesTables: "check_image_tags",
    LearnsNothing: "check_segmenters_train",
}


class Mirrored(BaseEstimator):
    """Sound: appends a mirrored copy of some images."""

    def __init__(self, *, share=0.5, random_state=None):
        self.share = share
        self.random_state = random_state

    def fit(self, X, y):
        self._check(X, y)
        return self

    def fit_resample(self, X, y):
        X, y = self._check(X, y)
        state = self.random_state
        if isinstance(state, np.random.RandomState):
            state = state.randint(1000)
        some = np.flatnonzero(np.random.default_rng(state).random(len(X)) < self.share)
        self.sample_indices_ = np.concatenate([np.arange(len(X)), some])
        return self._join(X, y, some)

    def _join(self, X, y, some):
        return np.concatenate([X, X[some, :, ::-1]]), np.concatenate([y, y[some, :, ::-1]])

    def _check(self, X, y):
        X, y = check_array(X, allow_nd=True, dtype=None), np.asarray(y)
        if X.ndim not in (3, 4) or X.size == 0 or X.dtype.kind not in "biuf":
            raise ValueError(f"X must be images, got shape {X.shape}, {X.dtype}")
        if y.shape != X.shape[:3] or y.dtype.kind not in "biu":
            raise ValueError(f"y must be integers of shape {X.shape[:3]}, got {y.dtype}")
        self.n_channels_in_ = 1 if X.ndim == 3 else X.shape[3]
        return X, y

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags


class Darkest(Mirrored):
    """Sound: leaves out the darkest image."""

    def fit_resample(self, X, y):
        X, y = self._check(X, y)
        self.outlier_mask_ = self._are_outliers(X.reshape(len(X), -1).mean(axis=1))
        self.sample_indices_ = np.flatnonzero(~self.outlier_mask_)
        return X[self.sample_indices_], y[self.sample_indices_]

    def _are_outliers(self, means):
        return means == means.min()

    def fit_predict(self, X, y):
        self.fit_resample(X, y)
        return np.where(self.outlier_mask_, -1, 1)


class Undecided(Darkest):
    """Sound: leaves out the darkest or the brightest image; says that no two runs are alike."""

    runs = itertools.count()

    def _are_outliers(self, means):
        return means == (means.min() if next(self.runs) % 2 else means.max())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True
        return tags


class MirrorsImagesOnly(Mirrored):
    def _join(self, X, y, some):
        return np.concatenate([X, X[some, :, ::-1]]), np.concatenate([y, y[some]])


class MirrorsInPlace(Mirrored):
    def _join(self, X, y, some):
        X[some], y[some] = X[some, :, ::-1], y[some, :, ::-1]
        return super()._join(X, y, some)


class InventsLabels(Mirrored):
    def _join(self, X, y, some):
        X, y = super()._join(X, y, some)
        y[len(y) - len(some) :, 0, 0] = 2
        return X, y


class DropsIndices(Mirrored):
    def fit_resample(self, X, y):
        result = super().fit_resample(X, y)
        del self.sample_indices_
        return result


class ShufflesIndices(Mirrored):
    def fit_resample(self, X, y):
        result = super().fit_resample(X, y)
        self.sample_indices_ = self.sample_indices_[::-1]
        return result


class ChangesDtype(Mirrored):
    def _join(self, X, y, some):
        X, y = super()._join(X, y, some)
        return X.astype(float), y


class ReturnsFewerMasks(Mirrored):
    def _join(self, X, y, some):
        X, _ = super()._join(X, y, some)
        return X, y


class ResamplesTheEarlierImages(Mirrored):
    def fit(self, X, y):
        self.images_ = self._check(X, y)
        return self

    def fit_resample(self, X, y):
        return super().fit_resample(*getattr(self, "images_", (X, y)))


class PredictsTheOppositeOfWhatItDoes(Darkest):
    def fit_predict(self, X, y):
        return -super().fit_predict(X, y)


class IgnoresItsSeed(Mirrored):
    def _join(self, X, y, some):
        joined, masks = super()._join(X, y, some)
        # Not another order of the copies: with few of them, chance could repeat it.
        copies = joined[len(X) :]
        copies[:] = copies * np.random.default_rng().random()
        return joined, masks


SAMPLERS = {
    MirrorsImagesOnly: "check_samplers_move_masks_with_images",
    MirrorsInPlace: "check_images_not_changed",
    InventsLabels: "check_samplers_labels",
    DropsIndices: "check_samplers_sample_indices",
    ShufflesIndices: "check_samplers_keep_originals",
    ChangesDtype: "check_samplers_preserve_dtype",
    ReturnsFewerMasks: "check_samplers_fit_resample",
    ResamplesTheEarlierImages: "check_samplers_other_images",
    PredictsTheOppositeOfWhatItDoes: "check_outliers_fit_predict",
    IgnoresItsSeed: "check_random_state_int",
}
