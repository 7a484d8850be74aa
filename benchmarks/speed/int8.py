"""Prediction in 8-bit integers by onnxruntime, beside the segmenter's own.

    python benchmarks/speed/int8.py [DATA.npz] [--seconds 60] [--rounds 5]

Trains a segmenter, exports it, and quantises the exported net with some training images for its
ranges (static, a scale for each output channel). All take their turns in one run; scores are of
images that were not trained on, generated ones without a file.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "accuracy"))

import numpy as np
import onnxruntime
from contestants import seconds_of
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from protocol import BACKGROUND, make_split

from skmars import MarsSegmenter
from skmars.datasets import make_terrain
from skmars.metrics import mean_iou_score

N_CALIBRATION = 128
BATCH_SIZE = 16


class Ranges(CalibrationDataReader):
    """Images whose activations tell the range of each tensor."""

    def __init__(self, images: np.ndarray):
        self.batches = iter(np.array_split(images.astype(np.float32), len(images) // BATCH_SIZE))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input, until there is none."""
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def load(path: str | None) -> tuple[np.ndarray, ...]:
    """Images and masks to train on, and to score."""
    if path is not None:
        split = make_split(path, 0)
        return split.X, split.y, split.X_scored, split.y_scored
    X, y = make_terrain(600, random_state=0)
    return X[:400], y[:400], X[400:], y[400:]


def runner(model: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Labels by onnxruntime, a batch at a time."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])

    def predict(images: np.ndarray) -> np.ndarray:
        parts = np.array_split(images.astype(np.float32), -(-len(images) // BATCH_SIZE))
        return np.concatenate([session.run(["labels"], {"images": part})[0] for part in parts])

    return predict


def quantised(model: Path, images: np.ndarray) -> Path:
    """Write the same net in 8-bit integers."""
    prepared, target = model.with_name("prepared.onnx"), model.with_name("int8.onnx")
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(target),
        Ranges(images),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "Concat", "Add", "MaxPool", "Relu", "Resize"],
    )
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", metavar="DATA.npz")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    X, y, X_scored, y_scored = load(args.data)
    segmenter = MarsSegmenter(
        ignore_label=BACKGROUND, time_limit=args.seconds, tta=False, random_state=0
    ).fit(X, y)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        segmenter.export_onnx(model)
        contestants = {
            f"skmars, {segmenter.precision_}": segmenter.predict,
            "onnxruntime, float32": runner(model),
            "onnxruntime, int8": runner(quantised(model, X[:N_CALIBRATION])),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(args.rounds + 1):
            for name, predict in contestants.items():
                value = seconds_of(lambda predict=predict: predict(X_scored))
                if number:
                    seconds[name].append(value)
        print("| | images/s | skmars is faster by | mean IoU |\n|---|---|---|---|")
        own = next(iter(seconds.values()))
        for name, predict in contestants.items():
            ratio = median(b / a for a, b in zip(own, seconds[name], strict=True))
            score = mean_iou_score(
                y_scored,
                predict(X_scored),
                labels=segmenter.classes_,
                ignore_label=BACKGROUND,
            )
            speed = len(X_scored) / median(seconds[name])
            print(f"| {name} | {speed:.1f} | {ratio:.2f} | {score:.4f} |")


if __name__ == "__main__":
    main()
