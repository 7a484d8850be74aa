"""Hyperparameter search with Optuna, behind scikit-learn's interface."""

import time
import warnings
from numbers import Integral, Real

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import check_cv
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skmars import _validation as check
from skmars._fitted import fitted_attribute
from skmars.model_selection import SegmentationKFold
from skmars.pipeline import fit_arguments
from skmars.tuning.checks import check_folds, check_space
from skmars.tuning.evaluation import Evaluation, make_objectives
from skmars.tuning.progress import Progress
from skmars.tuning.results import (
    check_same_space,
    column_suffixes,
    pareto_front,
    results_table,
)
from skmars.tuning.running import search_here, search_with_workers
from skmars.tuning.spaces import copy_with, default_space
from skmars.tuning.studies import (
    PRUNERS,
    SAMPLERS,
    StudySpec,
    copy_in_memory,
    fingerprint,
    new_name,
    seed_of,
    settings_of,
    temporary_journal,
)
from skmars.tuning.trials import finished_trials

__all__ = ["SegmenterSearchCV"]


def _best_has(name: str):
    def has(self) -> bool:
        return hasattr(getattr(self, "best_estimator_", self.estimator), name)

    return has


class SegmenterSearchCV(MetaEstimatorMixin, BaseEstimator):
    """Search for the best parameters of a segmenter or a Pipeline, with an Optuna study.

    Trials are evaluated by cross-validation; unpromising ones are pruned after a few epochs. With
    a storage the study outlives the process: another `fit` with the same storage and name goes on
    where it stopped, and the same call on other machines shares the study, at the same time.

    Parameters
    ----------
    estimator : estimator
        A segmenter, or a Pipeline that ends in one.
    space : dict of str to optuna distribution, callable or None, default=None
        What to search: names of `set_params` with their distributions, or a function of a trial
        that returns parameters. None is `default_space(estimator)`.
    n_trials : int or None, default=20
        Trials of the study in all, those of earlier fits and other workers included. None for
        no end but `timeout`. A study of ten trials that have all failed is given up.
    timeout : float or None, default=None
        Seconds after which no further trial is begun; above 0.
    cv : int, splitter or iterable of (train, test), default=3
        An integer is the number of folds of a `SegmentationKFold`, at least 2.
    scoring : None, str, callable, or a pair of them, default=None
        What to maximise. None is the estimator's `score`; a name is one of
        `skmars.metrics.SegmentationScorer`. The second of a pair may be a cost, "n_parameters" or
        "seconds_per_image", which is minimised: the search has two objectives then, finds their
        Pareto front, and prunes nothing.
    storage : str, optuna storage or None, default=None
        Where the study is kept: `journal:///path/to/study.log` for the processes of one machine,
        `postgresql+psycopg://user@host/name` for many machines; None keeps it in memory, or with
        several workers in a temporary journal.
    study_name : str or None, default=None
        Name within the storage. Needed to go on with a study; without it each fit begins one.
    sampler : {"tpe", "random"} or optuna sampler, default="tpe"
        What chooses the parameters: the tree-structured Parzen estimator [1]_,
        or chance.
    pruner : {"hyperband", "median"}, optuna pruner or None, default="hyperband"
        What prunes unpromising trials by their validation mean IoU, whatever `scoring` is, or
        without validation by the score of the folds that are done: Hyperband [2]_, or the median
        rule; None prunes none.
    n_workers : int, default=1
        Processes on this machine, which share its cores.
    refit : bool, default=True
        Whether to train the best parameters on all images.
    random_state : int, RandomState instance or None, default=None
        Seeds the sampler and the folds. A study that is gone on with keeps the seed that it was
        begun with; machines that start at once need the same integer. Training is seeded by the
        estimator's own `random_state`. What Hyperband prunes depends on the study's name as well.
    verbose : int, default=0
        1 shows a bar with the best score so far and the number of pruned trials.

    Attributes
    ----------
    best_params_ : dict
        Parameters of the best trial, for `estimator.set_params`.
    best_score_ : float
        Its mean score over the folds.
    best_index_ : int
        Its row of `cv_results_`. With two objectives, the best one by the first.
    best_estimator_ : estimator
        Trained on all images; only with `refit`.
    refit_time_ : float
        Seconds that took.
    cv_results_ : dict of str to array
        A row a trial, with the columns of `GridSearchCV` (for `pandas.DataFrame`), and
        `trial_number`, `state` ("COMPLETE", "PRUNED" or "FAIL") and `error`.
    pareto_front_ : ndarray of int
        Rows of `cv_results_` on the Pareto front of two objectives, best first by the first.
    study_ : optuna.Study
        For Optuna's own plots, and `skmars.inspection`. In a pickle, it is a copy in memory.
    n_splits_ : int
        Number of folds.
    classes_ : ndarray of shape (n_classes,)
        Labels that the best estimator can predict.
    n_channels_in_ : int
        Channels of the images that it was trained on.

    References
    ----------
    .. [1] Bergstra, J., Bardenet, R., Bengio, Y., Kegl, B. (2011). Algorithms for hyper-parameter
       optimization. NeurIPS.
    .. [2] Li, L., Jamieson, K., DeSalvo, G., Rostamizadeh, A., Talwalkar, A. (2018). Hyperband: A
       novel bandit-based approach to hyperparameter optimization. JMLR, 18(185), 1-52.

    Examples
    --------
    >>> from optuna.distributions import FloatDistribution
    >>> from skmars import MarsSegmenter
    >>> from skmars.datasets import make_terrain
    >>> from skmars.tuning import SegmenterSearchCV
    >>> X, y = make_terrain(24, class_frequencies=[1, 1, 1, 1, 0], random_state=0)
    >>> search = SegmenterSearchCV(
    ...     MarsSegmenter(depth=2, base_channels=4, max_epochs=1, random_state=0),
    ...     {"learning_rate": FloatDistribution(1e-4, 1e-1, log=True)},
    ...     n_trials=2, cv=2, random_state=0,
    ... )
    >>> search.fit(X, y).predict(X[:2]).shape
    (2, 64, 128)
    >>> sorted(search.best_params_)
    ['learning_rate']
    """

    _parameter_constraints: dict = {
        "estimator": [BaseEstimator],
        "space": [dict, callable, None],
        "n_trials": [Interval(Integral, 1, None, closed="left"), None],
        "timeout": [Interval(Real, 0, None, closed="neither"), None],
        "cv": ["cv_object"],
        "scoring": [str, callable, list, tuple, None],
        "storage": [str, optuna.storages.BaseStorage, None],
        "study_name": [str, None],
        "sampler": [StrOptions(set(SAMPLERS)), BaseSampler],
        "pruner": [StrOptions(set(PRUNERS)), BasePruner, None],
        "n_workers": [Interval(Integral, 1, None, closed="left")],
        "refit": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator,
        space=None,
        *,
        n_trials=20,
        timeout=None,
        cv=3,
        scoring=None,
        storage=None,
        study_name=None,
        sampler="tpe",
        pruner="hyperband",
        n_workers=1,
        refit=True,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.space = space
        self.n_trials = n_trials
        self.timeout = timeout
        self.cv = cv
        self.scoring = scoring
        self.storage = storage
        self.study_name = study_name
        self.sampler = sampler
        self.pruner = pruner
        self.n_workers = n_workers
        self.refit = refit
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y, *, groups=None, **fit_params):
        """Search, and train the best parameters on all images.

        Ctrl-C ends the search, and keeps what was found, if a trial is complete.

        Parameters
        ----------
        X : array-like of shape (n, H, W) or (n, H, W, C)
            Images.
        y : array-like of shape (n, H, W)
            Masks of integer labels.
        groups : array-like of shape (n,), default=None
            Images of one group stay in one fold; also given to a segmenter that takes groups.
        **fit_params : dict
            For the `fit` of the estimator. `sample_weight`, of shape (n,) or (n, H, W), also
            reaches the segmenter in a Pipeline.

        Returns
        -------
        self : SegmenterSearchCV

        Raises
        ------
        TypeError, ValueError
            If a parameter, the images or the masks are not as described, before any trial; or if
            no trial was completed, with the error of the last one.
        KeyboardInterrupt
            At Ctrl-C, if no trial is complete yet.

        Warns
        -----
        FitFailedWarning
            If trials have failed: how many, and the error of the last one.
        """
        started = time.monotonic()
        self._validate_params()
        X, y, _ = check.check_training_data(X, y, None)
        groups = check.check_groups(groups, len(X))
        weights = fit_arguments(
            self.estimator, sample_weight=fit_params.pop("sample_weight", None)
        )
        evaluation, spec = self._prepare(X, y, groups, {**weights, **fit_params})
        study = spec.open()
        check_same_space(study, evaluation.space)
        deadline = None if self.timeout is None else started + self.timeout
        with Progress(study, self.n_trials, shown=bool(self.verbose)) as progress:
            if self.n_workers == 1:
                search_here(study, evaluation, self.n_trials, deadline, progress)
            else:
                search_with_workers(study, spec, evaluation, self.n_trials, deadline, progress)
        self._keep(study, evaluation)
        if self.refit:
            self._refit(X, y, evaluation.fit_params)
        return self

    def _prepare(self, X, y, groups, fit_params) -> tuple[Evaluation, StudySpec]:
        """What is searched and how, with everything checked that can be."""
        if self.n_trials is None and self.timeout is None:
            raise ValueError("n_trials=None needs a timeout, or the search has no end")
        ignored = fitted_attribute(self.estimator, "ignore_label")
        labels = check.labelled_classes(y, ignored)
        objectives = make_objectives(self.scoring, self.estimator, labels)
        space = default_space(self.estimator) if self.space is None else self.space
        check_space(space, self.estimator)
        for name, values in fit_params.items():
            if name.endswith("sample_weight"):
                check.check_sample_weight(values, y)
        seed = int(check.random_generator(self.random_state).integers(2**31))
        # The folds of a study are those that it was begun with.
        known = seed_of(self.storage, self.study_name, n_workers=self.n_workers)
        seed = seed if known is None else known
        folds = self._make_folds(X, y, groups, seed, ignored)
        check_folds(folds, y, labels, objectives, self.estimator)
        data = fingerprint(X, y, folds, fit_params)
        if groups is not None:
            fit_params = {**fit_arguments(self.estimator, groups=groups), **fit_params}
        storage = self.storage
        if storage is None and self.n_workers > 1:
            storage = temporary_journal(seed)
        evaluation = Evaluation(
            estimator=clone(self.estimator),
            space=space,
            X=X,
            y=y,
            folds=folds,
            objectives=objectives,
            prune=self.pruner is not None and len(objectives) == 1,
            fit_params=fit_params,
        )
        spec = StudySpec(
            storage=storage,
            name=self.study_name or new_name(seed, self.storage),
            directions=[objective.direction for objective in objectives],
            sampler=self.sampler,
            pruner=self.pruner if len(objectives) == 1 else None,
            seed=seed,
            data=data,
            objectives=[objective.name for objective in objectives],
            settings=settings_of(self.estimator, space),
            n_workers=self.n_workers,
        )
        return evaluation, spec

    def _make_folds(self, X, y, groups, seed: int, ignored: int | None) -> list[tuple]:
        if isinstance(self.cv, Integral):
            splitter = SegmentationKFold(int(self.cv), random_state=seed, ignore_label=ignored)
        else:
            splitter = check_cv(self.cv)
        folds = list(splitter.split(X, y, groups))
        if not folds:
            raise ValueError("cv gives no folds; a generator can be used once")
        return folds

    def _keep(self, study: optuna.Study, evaluation: Evaluation) -> None:
        """Set the attributes that tell what was found."""
        trials = finished_trials(study)
        objectives = evaluation.objectives
        n_splits = len(evaluation.folds)
        results = results_table(trials, evaluation.space, objectives, n_splits)
        front = pareto_front(results, objectives)
        errors = [error for error in results["error"] if error]
        reason = f"; the last one failed with {errors[-1]}" if errors else ""
        if not len(front):
            raise ValueError(f"none of {len(trials)} trials was completed{reason}")
        for name in {"pareto_front_", "best_estimator_", "refit_time_"} & vars(self).keys():
            # Of an earlier fit.
            delattr(self, name)
        self.study_, self.cv_results_, self.n_splits_ = study, results, n_splits
        if len(objectives) > 1:
            self.pareto_front_ = front
        self.best_index_ = int(front[0])
        self.best_params_ = self.cv_results_["params"][self.best_index_]
        suffix = column_suffixes(objectives)[0]
        self.best_score_ = float(self.cv_results_[f"mean_test_{suffix}"][self.best_index_])
        self._scorer = objectives[0].scorer
        n_failed = int(np.count_nonzero(results["state"] == "FAIL"))
        if n_failed:
            warnings.warn(
                f"{n_failed} of {len(trials)} trials failed{reason}",
                FitFailedWarning,
                stacklevel=3,
            )

    def _refit(self, X, y, fit_params) -> None:
        started = time.perf_counter()
        self.best_estimator_ = copy_with(self.estimator, self.best_params_)
        self.best_estimator_.fit(X, y, **fit_params)
        self.refit_time_ = time.perf_counter() - started

    @available_if(_best_has("predict"))
    def predict(self, X):
        """Label each pixel with the best estimator; see its `predict`."""
        return self._best().predict(X)

    @available_if(_best_has("predict_proba"))
    def predict_proba(self, X):
        """Probability of each class at each pixel; see the best estimator's `predict_proba`."""
        return self._best().predict_proba(X)

    def score(self, X, y) -> float:
        """Score of the best estimator, by `scoring`, or the first objective of two."""
        best = self._best()
        return float(self._scorer(best, X, y))

    @property
    def classes_(self) -> np.ndarray:
        """Labels that can be predicted."""
        return self._best().classes_

    @property
    def n_channels_in_(self) -> int:
        """Channels of the images seen in `fit`."""
        return fitted_attribute(self._best(), "n_channels_in_")

    def _best(self):
        check_is_fitted(self)
        if not hasattr(self, "best_estimator_"):
            raise AttributeError("refit=False has left no estimator to predict with")
        return self.best_estimator_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "cv_results_")

    def __sklearn_tags__(self):
        """Input and target tags of the wrapped estimator."""
        tags = super().__sklearn_tags__()
        inner = self.estimator.__sklearn_tags__()
        tags.input_tags, tags.target_tags = inner.input_tags, inner.target_tags
        return tags

    def __getstate__(self):
        state = dict(super().__getstate__())
        if "study_" in state:
            # A pickle cannot take a file or a database along.
            state["study_"] = copy_in_memory(state["study_"])
        return state
