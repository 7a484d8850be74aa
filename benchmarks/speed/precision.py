"""`precision="auto"` against both precisions that it chooses from, for `fit` and `predict`.

    python benchmarks/speed/precision.py [--images N] [--rounds 5]
    ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/speed/precision.py

The second imitates a CPU on which bfloat16 is slow. All take their turns in one run; printed are
medians over the rounds, and the speed of "auto" as a share of that of the better of the two. What
the choice itself takes, once a process, is told apart.
"""

import argparse
import os
import time
from statistics import median

# Before torch is loaded: another busy process must not bring the threads of both to a standstill.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch

from skmars import MarsSegmenter
from skmars.datasets import make_terrain
from skmars.device import choose_arithmetic

PRECISIONS = ("float32", "bfloat16", "auto")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    X, y = make_terrain(args.images, random_state=0)
    started = time.perf_counter()
    chosen = choose_arithmetic("cpu", "auto")
    print(f"{torch.get_num_threads()} threads; chose {chosen}", end=" ")
    print(f"in {time.perf_counter() - started:.1f} s\n")
    segmenters = {
        precision: MarsSegmenter(
            precision=precision,
            max_epochs=1,
            warm_start=True,
            validation_fraction=None,
            tta=False,
            random_state=0,
        ).fit(X, y)
        for precision in PRECISIONS
    }
    print("| | " + " | ".join(f"{name}, images/s" for name in PRECISIONS) + ' | "auto" / better |')
    print("|---|---|---|---|---|")
    for task, works in {
        "fit": {name: lambda s=s: s.fit(X, y) for name, s in segmenters.items()},
        "predict": {name: lambda s=s: s.predict(X) for name, s in segmenters.items()},
    }.items():
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(args.rounds):
            for name, work in works.items():
                started = time.perf_counter()
                work()
                seconds[name].append(time.perf_counter() - started)
        rates = {name: len(X) / median(values) for name, values in seconds.items()}
        share = rates["auto"] / max(rates["float32"], rates["bfloat16"])
        figures = " | ".join(f"{rates[name]:.0f}" for name in PRECISIONS)
        print(f"| {task} | {figures} | {share:.2f} |", flush=True)


if __name__ == "__main__":
    main()
