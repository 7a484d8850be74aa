"""Prediction of one large image: throughput, memory and growth; and what windows cost in IoU.

    python benchmarks/speed/mosaic.py [--megapixels 1 10 50 200] [--window 768 768]
    python benchmarks/speed/mosaic.py --panorama IMAGE.png MASK.png MODEL.skmars [--picture FILE]

The first writes mosaics of generated terrain to memory maps, predicts each in a process of its
own, which after each strip also predicts some separate tiles of the size of its windows, so that
other work on the machine slows both alike; their ratio is one of processor time. Memory is that
above the import, as Linux tells it.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

# Before torch is loaded: another busy process must not bring the threads of both to a standstill.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np

SHAPE = (1, 1.4)

KINDS = ("VmRSS", "RssAnon")


def megabytes(kind: str) -> float:
    """Resident memory of this process now, of a kind that Linux tells."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(kind + ":")).split()[1]) / 2**10


class Peak(threading.Thread):
    """Growth of memory, all of it and without mapped files, which the system takes back."""

    def __init__(self):
        super().__init__(daemon=True)
        self.before, self.stopped = [megabytes(kind) for kind in KINDS], threading.Event()
        self.growth = [0.0, 0.0]
        self.start()

    def run(self):
        """Look every now and then."""
        while not self.stopped.wait(0.02):
            now = [megabytes(kind) - old for kind, old in zip(KINDS, self.before, strict=True)]
            self.growth = [max(pair) for pair in zip(self.growth, now, strict=True)]


def write_mosaic(path: Path, megapixels: float) -> None:
    """Tile generated terrain over a memory map."""
    from skmars.datasets import make_terrain

    X, _ = make_terrain(32, random_state=0)
    block = np.vstack([np.hstack(X[row : row + 4]) for row in range(0, 32, 4)])
    scale = np.sqrt(megapixels * 1e6 / (SHAPE[0] * SHAPE[1]))
    height, width = (round(scale * side) for side in SHAPE)
    mosaic = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(height, width))
    columns = -(-width // block.shape[1])
    strip = np.tile(block, (1, columns))[:, :width]
    for start in range(0, height, len(strip)):
        rows = mosaic[start : start + len(strip)]
        rows[:] = strip[: len(rows)]
    mosaic.flush()


class Turns:
    """A target that predicts separate tiles whenever a strip has been written to it."""

    def __init__(self, array, segmenter, tiles: list[np.ndarray], share: float):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.segmenter, self.tiles, self.share = segmenter, itertools.cycle(tiles), share
        self.due, self.pixels, self.seconds, self.cpu = 0.0, 0, 0.0, 0.0

    def __getitem__(self, region):
        return self.array[region]

    def __setitem__(self, region, labels):
        self.array[region] = labels
        self.due += self.share * labels.size
        started, cpu = time.perf_counter(), time.process_time()
        while self.due > self.pixels:
            tile = next(self.tiles)
            self.segmenter.predict(tile[None])
            self.pixels += tile.size
        self.seconds += time.perf_counter() - started
        self.cpu += time.process_time() - cpu

    def flush(self):
        """Write what is in memory to the disk."""
        self.array.flush()


def measure(folder: Path, window: list[int] | None, share: float) -> dict[str, float]:
    """Predict the mosaic in a folder, in turns with tiles of it."""
    from skmars import MarsSegmenter
    from skmars.prediction.mosaics import fitting_side

    peak = Peak()
    segmenter = MarsSegmenter.load(folder / "model.skmars")
    segmenter.set_params(window=window and tuple(window))
    mosaic = np.load(folder / "mosaic.npy", mmap_mode="r")
    labels = np.lib.format.open_memmap(
        folder / "labels.npy", mode="w+", dtype=np.uint8, shape=mosaic.shape
    )
    grid = 2**segmenter.depth
    height, width = window or (fitting_side(side, grid) for side in mosaic.shape)
    tiles = [
        mosaic[a : a + height, b : b + width]
        for a in range(0, mosaic.shape[0] - height + 1, height)
        for b in range(0, mosaic.shape[1] - width + 1, width)
    ]
    segmenter.predict(tiles[0][None])
    target = Turns(labels, segmenter, tiles, share)
    started, cpu = time.perf_counter(), time.process_time()
    segmenter.predict_large(mosaic, target, checkpoint=folder / "checkpoint", progress=True)
    taken = time.perf_counter() - started - target.seconds
    cpu = time.process_time() - cpu - target.cpu
    peak.stopped.set()
    return {
        "megapixels": mosaic.size / 1e6,
        "seconds": taken,
        "rate": mosaic.size / 1e6 / taken,
        "tiles": target.pixels / 1e6 / target.seconds,
        "ratio": mosaic.size / cpu / (target.pixels / target.cpu),
        "growth": peak.growth[0],
        "anonymous": peak.growth[1],
    }


def sizes(options) -> None:
    """Measure each size in a process of its own."""
    from skmars import MarsSegmenter
    from skmars.datasets import make_terrain

    X, y = make_terrain(16, random_state=0)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        segmenter = MarsSegmenter(
            base_channels=options.base_channels,
            precision=options.precision,
            tta=False,
            max_epochs=1,
            random_state=0,
        ).fit(X, y)
        segmenter.save(folder / "model.skmars")
        print(f"precision {segmenter.precision_}, {segmenter.n_parameters_:,} parameters")
        print(
            "| megapixels | seconds | MP/s | separate tiles, MP/s | ratio | MB | without files |"
        )
        print("|---|---|---|---|---|---|---|", flush=True)
        for megapixels in options.megapixels:
            write_mosaic(folder / "mosaic.npy", megapixels)
            command = [sys.executable, __file__, "--measure", name]
            command += ["--share", str(options.share)]
            if options.window:
                command += ["--window", *map(str, options.window)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            row = json.loads(done.stdout)
            print(
                f"| {row['megapixels']:.0f} | {row['seconds']:.1f} | {row['rate']:.2f} "
                f"| {row['tiles']:.2f} | {row['ratio']:.2f} "
                f"| {row['growth']:.0f} | {row['anonymous']:.0f} |",
                flush=True,
            )


def panorama(image_path: str, mask_path: str, model: str, picture: str | None) -> None:
    """Whole against windows of several sizes, in mean IoU and in labels, and a picture."""
    from PIL import Image

    from skmars import MarsSegmenter
    from skmars.metrics import mean_iou_score

    image, mask = (np.asarray(Image.open(path))[None] for path in (image_path, mask_path))
    segmenter = MarsSegmenter.load(model).set_params(window=None)
    whole = segmenter.predict(image)
    if picture is not None:
        draw(picture, image, mask, whole, segmenter.ignore_label)

    def show(name: str, labels: np.ndarray) -> None:
        ignored = segmenter.ignore_label
        iou = mean_iou_score(mask, labels, labels=segmenter.classes_, ignore_label=ignored)
        print(f"| {name} | {iou:.4f} | {np.mean(labels == whole):.4f} |", flush=True)

    print(f"| {Path(image_path).name}, {image.shape[1]}x{image.shape[2]} | mean IoU | as whole |")
    print("|---|---|---|")
    show("whole", whole)
    for window in ((64, 128), (128, 128), (128, 256), (256, 512)):
        for overlap in (0.0, 0.25, 0.5, 0.75):
            segmenter.set_params(window=window, overlap=overlap)
            show(f"{window[0]}x{window[1]}, overlap {overlap}", segmenter.predict(image))


def draw(picture: str, image: np.ndarray, mask: np.ndarray, labels: np.ndarray, ignored) -> None:
    """Draw a panorama, its true and its predicted mask, one above the other."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from skmars.inspection import MaskDisplay

    names = ["background", "soil", "bedrock", "sand", "big rock"]
    figure, axes = plt.subplots(3, 1, figsize=(11, 6.4), layout="constrained")
    MaskDisplay.from_predictions(
        image, mask, labels, labels=range(5), target_names=names, ignore_label=ignored, ax=axes
    )
    figure.savefig(picture, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 10, 50])
    parser.add_argument("--window", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--base-channels", type=int, default=16)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--share", type=float, default=0.5, help="of separate tiles, in pixels")
    parser.add_argument("--folder", help="for the memory maps; default: that of temporary files")
    parser.add_argument("--panorama", nargs=3, metavar=("IMAGE", "MASK", "MODEL"))
    parser.add_argument("--picture", metavar="FILE", help="of the panorama and its masks")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.measure, options.window, options.share)))
    elif options.panorama:
        panorama(*options.panorama, options.picture)
    else:
        sizes(options)


if __name__ == "__main__":
    main()
