"""Peak memory of `fit` and `predict` above the import, for several numbers of uint8 images.

    python benchmarks/speed/memory.py [--images 250 2500 10000 20000]

Each row runs in a process of its own, which reports the growth of its largest resident size; the
images and their masks, which the user holds anyway, are part of it. Labels that `predict` returns
are as large as the images.
"""

import argparse
import os
import resource
import subprocess
import sys

# Before torch is loaded: another busy process must not bring the threads of both to a standstill.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

FIT_SECONDS = 20


def peak_megabytes() -> float:
    """Largest resident size of this process so far; Linux counts kilobytes, macOS bytes."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def measure(task: str, n_images: int) -> None:
    """Fit for some seconds, long enough for a validation, or predict; print the growth."""
    import numpy as np

    from skmars import MarsSegmenter
    from skmars.datasets import make_terrain

    before = peak_megabytes()
    few = make_terrain(50, random_state=0)
    few[1][0, :8, :8] = 4
    copies = -(-n_images // len(few[0]))
    X, y = (np.tile(array, (copies, 1, 1))[:n_images] for array in few)
    if task == "fit":
        MarsSegmenter(time_limit=FIT_SECONDS, random_state=0).fit(X, y)
        held = X.nbytes + y.nbytes
    else:
        del y
        segmenter = MarsSegmenter(max_epochs=1, tta=False, random_state=0).fit(
            few[0][:16], few[1][:16]
        )
        held = X.nbytes + segmenter.predict(X).nbytes
    growth = peak_megabytes() - before
    print(f"| {task} | {n_images:,} | {held / 2**20:.0f} | {growth:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[250, 2500, 10000, 20000])
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure is not None:
        measure(args.measure[0], int(args.measure[1]))
        return
    print(
        "| task | images | images and masks, MB | growth, MB |\n| --- | --- | --- | --- |",
        flush=True,
    )
    for task in ("fit", "predict"):
        for n_images in args.images:
            command = [sys.executable, __file__, "--measure", task, str(n_images)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
