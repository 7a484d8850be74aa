"""Peak memory of `fit` above the import, for several numbers of uint8 images.

Each number runs in a process of its own, which reports the growth of its largest resident size.

    python benchmarks/speed/memory.py [--images 250 2500 10000]
"""

import argparse
import resource
import subprocess
import sys


def peak_megabytes() -> float:
    """Largest resident size of this process so far; Linux counts kilobytes, macOS bytes."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def measure(n_images: int) -> None:
    """Fit for some seconds, long enough for validation, and print the growth."""
    import numpy as np

    from skmars import MarsSegmenter
    from skmars.datasets import make_terrain

    after_import = peak_megabytes()
    X, y = make_terrain(50, random_state=0)
    y[0, :8, :8] = 4
    copies = -(-n_images // len(X))
    X, y = (np.tile(array, (copies, 1, 1))[:n_images] for array in (X, y))
    segmenter = MarsSegmenter(time_limit=20, random_state=0).fit(X, y)
    data = (X.nbytes + y.nbytes) / 2**20
    growth = peak_megabytes() - after_import
    print(f"{n_images:7d}  {data:8.0f}  {growth:10.0f}  {len(segmenter.history_):6d}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[250, 2500, 10000])
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        measure(options.measure)
        return
    print(" images  data, MB  growth, MB  epochs", flush=True)
    for n_images in options.images:
        subprocess.run([sys.executable, __file__, "--measure", str(n_images)], check=True)


if __name__ == "__main__":
    main()
