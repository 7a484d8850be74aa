"""What chooses the parameters of a trial, the same in every process."""

import threading
from collections.abc import Callable

import numpy as np
from optuna.samplers import BaseSampler

__all__ = ["SeededSampler"]


class SeededSampler(BaseSampler):
    """A sampler whose random numbers depend on the study's seed and the trial's number only.

    A sampler's state is not kept with the study. Made anew for each trial, it chooses the same
    whether the study went on without a break or was resumed between two trials, and differs
    between workers. A trial that was lost is repeated under another number, which moves those
    after it.

    Parameters
    ----------
    make : callable
        Takes a `seed` by name and returns an Optuna sampler.
    seed : int
        Of the study.
    """

    def __init__(self, make: Callable[..., BaseSampler], seed: int):
        self.make = make
        self.seed = seed
        self._thread = threading.local()

    @property
    def sampler(self) -> BaseSampler:
        """The sampler of the present trial."""
        if not hasattr(self._thread, "sampler"):
            self._thread.sampler = self.make(seed=self.seed)
        return self._thread.sampler

    def before_trial(self, study, trial):
        """Make the sampler of this trial."""
        entropy = np.random.SeedSequence([self.seed, trial.number])
        self._thread.sampler = self.make(seed=int(entropy.generate_state(1)[0]))
        self.sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study, trial):
        """As the sampler within."""
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(self, study, trial, search_space):
        """As the sampler within."""
        return self.sampler.sample_relative(study, trial, search_space)

    def sample_independent(self, study, trial, param_name, param_distribution):
        """As the sampler within."""
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study, trial, state, values):
        """As the sampler within."""
        self.sampler.after_trial(study, trial, state, values)

    def __getstate__(self):
        return {"make": self.make, "seed": self.seed}

    def __setstate__(self, state):
        self.__dict__.update(state, _thread=threading.local())
