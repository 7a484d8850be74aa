"""bfloat16 against float32, in accuracy: the same segmenter, images, order and epochs.

    python benchmarks/accuracy/precision.py DATA.npz [--seeds 3]
    python benchmarks/accuracy/precision.py --table

The weights are those of the best of twelve epochs, images are predicted whole, all else is as it
comes. Runs go to `results/precision.jsonl`.
"""

from protocol import run_table

CONFIGURATIONS = {"float32": {"precision": "float32"}, "bfloat16": {"precision": "bfloat16"}}

if __name__ == "__main__":
    settings = {"dropout": 0.1, "early_stopping": True, "tta": False}
    run_table("precision", CONFIGURATIONS, settings=settings, baseline="float32", epochs=12)
