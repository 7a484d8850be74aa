"""What a Pipeline costs over its steps: seconds and peak memory, for several numbers of images.

Each row runs in a process of its own, which reports the growth of its largest resident size.

    python benchmarks/speed/pipeline.py [--images 2500 10000] [--seconds 20]

The segmenter trains for a fixed time, so that memory and the steps before it are what differs.
"""

import argparse
import os
import subprocess
import sys
import time

# Before torch is loaded: another busy process must not bring the threads of both to a standstill.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from memory import peak_megabytes

CASES = ("segmenter", "nothing changed", "outliers removed", "and copies added")


def measure(case: str, n_images: int, seconds: float) -> None:
    """Fit one case and print what it took."""
    import numpy as np

    from skmars import Augmenter, MarsSegmenter, OutlierRemover, make_pipeline
    from skmars.datasets import make_terrain

    X, y = make_terrain(n_images, outliers={"sprite": n_images // 25}, random_state=0)
    if case == "nothing changed":
        # Without repeated masks there is nothing that this method takes.
        y = np.array([np.roll(mask, k, axis=1) for k, mask in enumerate(y)])
    segment = MarsSegmenter(time_limit=seconds, random_state=0)
    steps = {
        "segmenter": [],
        "nothing changed": [OutlierRemover(method="repeated_mask"), Augmenter(n_copies=0)],
        "outliers removed": [OutlierRemover()],
        "and copies added": [OutlierRemover(), Augmenter(n_copies=1)],
    }[case]
    names = dict(zip(("outliers", "augment"), [*steps, None, None], strict=False))
    pipeline = make_pipeline(segment=segment, **names)
    before = peak_megabytes()
    started = time.perf_counter()
    pipeline.fit(X, y)
    whole = time.perf_counter() - started
    growth = peak_megabytes() - before
    alone = seconds
    for step in steps:
        started = time.perf_counter()
        X, y = step.fit_resample(X, y)
        alone += time.perf_counter() - started
    print(
        f"{n_images:7d}  {case:<18} {(X.nbytes + y.nbytes) / 2**20:9.0f} {growth:11.0f} "
        f"{whole:9.1f} {alone:12.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[2500, 10000])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        measure(options.case, options.images[0], options.seconds)
        return
    print(" images  pipeline            data, MB  growth, MB  fit, s  steps alone, s", flush=True)
    for n_images in options.images:
        for case in CASES:
            words = ["--images", str(n_images), "--seconds", str(options.seconds), "--case", case]
            subprocess.run([sys.executable, __file__, *words], check=True)


if __name__ == "__main__":
    main()
