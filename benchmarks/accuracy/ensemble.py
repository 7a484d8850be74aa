"""One segmenter against ensembles that take the same time in all, and what each knows of itself.

    python benchmarks/accuracy/ensemble.py DATA.npz [--seconds 300] [--seeds 3] [--only ROW ...]
    python benchmarks/accuracy/ensemble.py --table [--seconds 300]

Besides the mean IoU: the expected calibration error of the probabilities, and the area between the
sparsification curve and the best one there is, by their entropy and by the members' disagreement;
less is better in all three. Images are predicted whole. Runs go to
`results/ensemble_<seconds>.jsonl`.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from protocol import BACKGROUND, LABELS, Split, run_table

from skmars import Ensemble, MarsSegmenter
from skmars.metrics import expected_calibration_error, predictive_entropy, sparsification_error

CONFIGURATIONS = {
    "one": {},
    "one, temperature": {"calibration": "temperature"},
    "3 by folds": {"n_members": 3},
    "3 by folds, early_stopping": {"n_members": 3, "early_stopping": True},
    "3 by seeds": {"n_members": 3, "members": "seeds"},
}


def run(split: Split, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train what a row says in the time given, and score its labels and probabilities."""
    params = dict(params)
    n_members, members = params.pop("n_members", 1), params.pop("members", "folds")
    params["time_limit"] /= n_members
    segmenter = MarsSegmenter(ignore_label=BACKGROUND, random_state=seed, **params)
    estimator = segmenter
    if n_members > 1:
        estimator = Ensemble(segmenter, n_members=n_members, members=members, random_state=seed)
    started = time.perf_counter()
    estimator.fit(split.X, split.y, groups=split.sols)
    seconds = time.perf_counter() - started
    parts = estimator.estimators_ if n_members > 1 else [estimator]
    n_epochs = sum(part.n_iter_ for part in parts)
    return {
        "seconds": round(seconds, 1),
        "epochs": n_epochs,
        "images_per_second": round(len(split.X) * n_epochs / seconds, 1),
        "n_parameters": sum(part.n_parameters_ for part in parts),
        "precision": parts[0].precision_,
        "scores": scores_of(estimator, split),
        "counts_by_sol": split.counts_by_sol(estimator.predict(split.X_scored)),
    }


def scores_of(estimator, split: Split) -> dict[str, float]:
    """What probabilities and uncertainty are worth on the images to score."""
    truth, probabilities = split.y_scored, estimator.predict_proba(split.X_scored)
    predicted = np.array(LABELS)[probabilities.argmax(axis=1)]
    kinds = {"entropy": predictive_entropy(probabilities, axis=1)}
    if isinstance(estimator, Ensemble):
        kinds["disagreement"] = estimator.predict_uncertainty(split.X_scored)
    scores = {
        f"area by {name}": sparsification_error(
            truth, predicted, uncertainty, ignore_label=BACKGROUND
        )
        for name, uncertainty in kinds.items()
    }
    error = expected_calibration_error(
        truth, probabilities, labels=LABELS, ignore_label=BACKGROUND
    )
    return {"calibration error": error, **scores}


if __name__ == "__main__":
    settings = {"dropout": 0.1, "tta": False}
    run_table("ensemble", CONFIGURATIONS, settings=settings, baseline="one", run=run)
