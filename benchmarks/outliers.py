"""What `OutlierRemover` finds, on real tiles with planted outliers and on generated ones.

Prints Markdown tables: recall (planted outliers that are taken), precision (taken ones that were
planted) and seconds; the default detector beside others of scikit-learn; and the share of clean
images that are taken. The planted indices of the real file are read here only, to count.

    python benchmarks/outliers.py DATA.npz [--seeds 5]
"""

import argparse
import os
import time

os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor

from skmars.datasets import make_terrain
from skmars.datasets._outliers import OUTLIER_KINDS, plant_outliers
from skmars.outliers import OutlierRemover

DETECTORS = {
    "default": None,
    "IsolationForest": IsolationForest(random_state=0),
    "LocalOutlierFactor(100)": LocalOutlierFactor(n_neighbors=100),
    "EllipticEnvelope": EllipticEnvelope(random_state=0),
}


def judge(remover: OutlierRemover, X, y, planted: np.ndarray) -> tuple[float, float, int, float]:
    start = time.perf_counter()
    taken = remover.fit_predict(X, y) == -1
    seconds = time.perf_counter() - start
    hits = np.count_nonzero(taken & planted)
    recall = hits / max(planted.sum(), 1) if planted.any() else np.nan
    precision = hits / taken.sum() if taken.any() else np.nan
    return recall, precision, np.count_nonzero(taken & ~planted), seconds


def print_rows(title: str, rows: list) -> None:
    print(f"\n{title}\n\n| what | recall | precision | clean ones taken | seconds |")
    print("|---|---|---|---|---|")
    for name, (recall, precision, n_false, seconds) in rows:
        print(f"| {name} | {recall:.3f} | {precision:.3f} | {n_false} | {seconds:.1f} |")


def other_masks(y, planted: np.ndarray, seed: int) -> np.ndarray:
    """Give each planted image the mask of a clean tile of its own."""
    donors = np.random.default_rng(seed).choice(
        np.flatnonzero(~planted), planted.sum(), replace=False
    )
    y = y.copy()
    y[planted] = y[donors]
    return y


def real_tables(path: str, seeds: int) -> None:
    data = np.load(path)
    X, y = data["training_set"][:, 0], data["training_set"][:, 1]
    planted = np.zeros(len(X), dtype=bool)
    planted[data["training_outliers"]] = True

    rows = [("as they are", judge(OutlierRemover(), X, y, planted))]
    for seed in range(seeds):
        changed = other_masks(y, planted, seed)
        rows.append((f"no shared mask, seed {seed}", judge(OutlierRemover(), X, changed, planted)))
    rows += [
        (f"method {method!r}", judge(OutlierRemover(method=method), X, y, planted))
        for method in ("repeated_mask", "appearance")
    ]
    X_clean, y_clean = X[~planted], y[~planted]
    none = np.zeros(len(X_clean), dtype=bool)
    rows.append(("clean tiles only", judge(OutlierRemover(), X_clean, y_clean, none)))
    print_rows(f"Real tiles: {planted.sum()} of {len(X)} with a pasted sprite", rows)

    rows = []
    for name, detector in DETECTORS.items():
        for contamination in ("auto", planted.mean()):
            if contamination != "auto" and isinstance(detector, EllipticEnvelope):
                detector.set_params(contamination=contamination)
            remover = OutlierRemover(
                method="appearance", detector=detector, contamination=contamination
            )
            told = "" if contamination == "auto" else ", told their share"
            rows.append((name + told, judge(remover, X, y, planted)))
    print_rows("Real tiles, by appearance only, with several detectors", rows)

    rows = []
    for kind in OUTLIER_KINDS:
        # A smaller set, and less than 5 % of a kind in it.
        spoiled, masks = X_clean[::3].copy(), y_clean[::3].copy()
        kinds = plant_outliers(np.random.SeedSequence(1), spoiled[..., None], masks, {kind: 12})
        rows.append((kind, judge(OutlierRemover(random_state=0), spoiled, masks, kinds != "")))
    print_rows(f"{len(X_clean[::3])} real tiles, 12 of them spoiled", rows)


def generated_tables(seeds: int, n: int = 600, count: int = 8) -> None:
    taken = dict.fromkeys(OUTLIER_KINDS, 0)
    alone = {kind: [0, 0] for kind in OUTLIER_KINDS}
    total_clean = n_false = n_false_clean = 0
    for seed in range(300, 300 + seeds):
        counts = dict.fromkeys(OUTLIER_KINDS, count)
        X, y, kinds = make_terrain(n, outliers=counts, return_outliers=True, random_state=seed)
        found = OutlierRemover(random_state=0).fit(X, y).outlier_mask_
        n_false += np.count_nonzero(found & (kinds == ""))
        total_clean += np.count_nonzero(kinds == "")
        clean = kinds == ""
        n_false_clean += OutlierRemover().fit(X[clean], y[clean]).outlier_mask_.sum()
        for kind in OUTLIER_KINDS:
            taken[kind] += np.count_nonzero(found & (kinds == kind))
            chosen = clean | (kinds == kind)
            remover = OutlierRemover(random_state=0).fit(X[chosen], y[chosen])
            hits = np.count_nonzero(remover.outlier_mask_ & (kinds[chosen] == kind))
            alone[kind][0] += hits
            alone[kind][1] += remover.outlier_mask_.sum() - hits
    planted = seeds * count
    print(
        f"\nGenerated: {n} images, {count} of each kind together, and {count} of one kind alone, "
        f"{seeds} seeds\n\n| kind | recall, together | recall, alone | precision, alone |"
    )
    print("|---|---|---|---|")
    for kind in OUTLIER_KINDS:
        hits, false = alone[kind]
        precision = hits / (hits + false) if hits + false else np.nan
        print(f"| {kind} | {taken[kind] / planted:.3f} | {hits / planted:.3f} | {precision:.3f} |")
    hits = sum(taken.values())
    print(f"| all | {hits / planted / len(OUTLIER_KINDS):.3f} | | |")
    print(
        f"\nTogether: precision {hits / (hits + n_false):.3f}. Without any outliers "
        f"{n_false_clean} of {total_clean} clean images are taken."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="npz file with training_set and training_outliers")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    real_tables(options.data, options.seeds)
    generated_tables(options.seeds)


if __name__ == "__main__":
    main()
