"""Making and opening a study: its storage, its name, its seed, and what chooses its trials."""

import atexit
import contextlib
import copy
import functools
import os
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from sklearn.base import BaseEstimator

from skmars.tuning.naming import name_of
from skmars.tuning.sampling import SeededSampler
from skmars.tuning.spaces import Space
from skmars.tuning.storages import StorageLike, exclusively, open_storage
from skmars.tuning.worker_process import own_folder

__all__ = [
    "PRUNERS",
    "SAMPLERS",
    "StudySpec",
    "copy_in_memory",
    "fingerprint",
    "new_name",
    "quiet_optuna",
    "seed_of",
    "settings_of",
    "temporary_journal",
]


SAMPLERS: dict[str, type[BaseSampler]] = {"tpe": TPESampler, "random": RandomSampler}
PRUNERS: dict[str, Callable[[], BasePruner]] = {
    "hyperband": lambda: HyperbandPruner(min_resource=1, reduction_factor=3),
    "median": lambda: MedianPruner(n_startup_trials=5, n_warmup_steps=1),
}

# Names of user attributes of a study.
SEED, DATA, OBJECTIVES, SETTINGS = "seed", "data", "objectives", "settings"

# Parameters that machines and users differ in, with scores that can be compared all the same.
OF_NO_MATTER = frozenset(
    {
        "callbacks",
        "compile",
        "device",
        "memory",
        "n_jobs",
        "n_threads",
        "precision",
        "random_state",
        "steps",
        "verbose",
    }
)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna from announcing each study that is made or opened."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@dataclass(frozen=True)
class StudySpec:
    """All that a worker needs to open a study, the first time or again."""

    storage: StorageLike
    name: str
    directions: Sequence[Literal["minimize", "maximize"]]
    sampler: str | BaseSampler
    pruner: str | BasePruner | None
    seed: int
    data: str
    objectives: Sequence[str]
    settings: Mapping[str, str]
    n_workers: int = 1

    def open(self) -> optuna.Study:
        """Make the study, or go on with the one of this name.

        Raises
        ------
        ValueError
            If there is one of this name for other data, objectives or settings.
        """
        storage = open_storage(self.storage, n_workers=self.n_workers)
        pruner = self.pruner or NopPruner()
        if isinstance(pruner, str):
            pruner = PRUNERS[pruner]()
        # Some remember the study that they are used for first.
        pruner = copy.deepcopy(pruner)

        def make(confirm: Callable[[], None]) -> optuna.Study:
            study = optuna.create_study(
                storage=storage,
                study_name=self.name,
                directions=self.directions,
                pruner=pruner,
                load_if_exists=True,
            )
            if SEED not in study.user_attrs:
                if any(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)):
                    raise ValueError(
                        f"the study {self.name!r} has trials of something else than this search: "
                        "give another study_name"
                    )
                study.set_user_attr(DATA, self.data)
                study.set_user_attr(OBJECTIVES, list(self.objectives))
                study.set_user_attr(SETTINGS, dict(self.settings))
                study.set_user_attr(SEED, self.seed)
            return study

        with quiet_optuna():
            study = exclusively(storage, make)
        _check_same(study, self)
        if isinstance(self.sampler, str):
            study.sampler = SeededSampler(SAMPLERS[self.sampler], study.user_attrs[SEED])
        else:
            study.sampler = copy.deepcopy(self.sampler)
            if self.n_workers > 1 or study.get_trials(deepcopy=False):
                # Or it would choose again what it has chosen in another process.
                study.sampler.reseed_rng()
        return study


def seed_of(storage: StorageLike, name: str | None, *, n_workers: int = 1) -> int | None:
    """Seed of the study of this name, if there is one in the storage."""
    if storage is None or name is None:
        return None
    try:
        opened = open_storage(storage, n_workers=n_workers)
        study = optuna.load_study(study_name=name, storage=opened)
    except KeyError:
        return None
    return study.user_attrs.get(SEED)


def _check_same(study: optuna.Study, spec: StudySpec) -> None:
    directions = [direction.name.lower() for direction in study.directions]
    if directions != list(spec.directions):
        raise ValueError(
            f"the study {study.study_name!r} has other objectives, with directions {directions}: "
            "give another study_name"
        )
    objectives = study.user_attrs[OBJECTIVES]
    if objectives != list(spec.objectives):
        raise ValueError(
            f"the study {study.study_name!r} has the objectives {objectives}, not "
            f"{list(spec.objectives)}: give another study_name"
        )
    if study.user_attrs[DATA] != spec.data:
        raise ValueError(
            f"the study {study.study_name!r} was made with other images, masks, folds or weights, "
            "so that its scores cannot be compared: give another study_name"
        )
    before = study.user_attrs[SETTINGS]
    for name in sorted({*before, *spec.settings}):
        old, new = (settings.get(name, "missing") for settings in (before, spec.settings))
        if old != new:
            raise ValueError(
                f"the study {study.study_name!r} was made with {name} {old}, not {new}, so that "
                "its scores cannot be compared: give another study_name"
            )


def settings_of(estimator: BaseEstimator, space: Space) -> dict[str, str]:
    """Parameters that scores depend on, as text, and what is searched by which kind of space."""
    settings = {
        name: _as_text(value)
        for name, value in estimator.get_params(deep=True).items()
        if name.rpartition("__")[2] not in OF_NO_MATTER
    }
    fixed = sorted(settings.keys() & set(getattr(space, "fixed", ())))
    kind = "dict" if isinstance(space, Mapping) else _as_text(space)
    return {**settings, "fixed": repr(fixed), "space": kind}


def _as_text(value: Any) -> str:
    """What is the same in another process, unlike the addresses in some `repr`."""
    plain = bool | int | float | str | tuple | list | dict | np.generic | None
    if not isinstance(value, plain):
        return getattr(value, "__qualname__", type(value).__name__)
    return name_of(value)


def fingerprint(X: np.ndarray, y: np.ndarray, folds, fit_params: Mapping[str, Any]) -> str:
    """A few letters that differ for other images, masks, folds or arguments of `fit`."""
    code = zlib.crc32(repr((X.shape, X.dtype.str)).encode())
    # Some images tell two data sets apart; all masks are small enough to be looked at.
    for image in X[:: max(len(X) // 50, 1)]:
        code = zlib.crc32(np.asarray(image).tobytes(), code)
    for mask in y:
        code = zlib.crc32(np.asarray(mask).tobytes(), code)
    for train, test in folds:
        code = zlib.crc32(np.asarray(test, dtype=np.int64).tobytes(), code)
        code = zlib.crc32(np.int64(len(train)).tobytes(), code)
    for name, value in sorted(fit_params.items()):
        code = zlib.crc32(name.encode(), code)
        for part in value if isinstance(value, tuple | list) else [value]:
            array = np.asarray(part)
            # Objects are bytes of no meaning to another process.
            code = code if array.dtype.hasobject else zlib.crc32(array.tobytes(), code)
    return f"{code:08x}"


@functools.cache
def _folder() -> Path:
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(own_folder())


def temporary_journal(seed: int) -> str:
    """URL of a journal that lives as long as this process, for workers without a storage."""
    return f"journal://{quote(str(_folder()))}/{seed}-{os.urandom(4).hex()}.log"


def new_name(seed: int, storage) -> str:
    """Name of a study that is not to be gone on with."""
    return f"skmars-{seed}" if storage is None else f"skmars-{uuid.uuid4().hex}"


def copy_in_memory(study: optuna.Study) -> optuna.Study:
    """A study with the same trials, without a file or a database."""
    with quiet_optuna():
        copy = optuna.create_study(study_name=study.study_name, directions=study.directions)
    for name, value in study.user_attrs.items():
        copy.set_user_attr(name, value)
    copy.add_trials(study.get_trials())
    return copy
