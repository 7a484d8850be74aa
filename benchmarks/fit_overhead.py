"""Cost of `fit` over a bare torch loop with the same net, precision, layout and batch size.

Prints seconds an epoch of both, in turns in one run, and their ratio.

    python benchmarks/fit_overhead.py [--images 480] [--rounds 5]
"""

import argparse
import os
import statistics
import time

# Before torch is loaded: another busy process must not bring the threads of both to a standstill.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np
import torch
from torch.nn import functional as F

from skmars import MarsSegmenter
from skmars.datasets import make_terrain
from skmars.device import choose_arithmetic
from skmars.nn import AttentionASPPUNet


class BareLoop:
    """What one would write by hand, with all images converted beforehand."""

    def __init__(self, X: np.ndarray, y: np.ndarray, batch_size: int):
        arithmetic = choose_arithmetic("cpu", "auto")
        self.bfloat16 = arithmetic.precision == "bfloat16"
        self.layout = torch.channels_last if arithmetic.channels_last else torch.contiguous_format
        images = torch.from_numpy(X).float().unsqueeze(1)
        self.images = (images - images.mean()) / images.std()
        self.target = torch.from_numpy(y).long()
        self.batch_size = batch_size
        torch.manual_seed(0)
        self.net = AttentionASPPUNet(1, 5, dropout=0.1).to(memory_format=self.layout)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-3, fused=True)

    def epoch(self) -> None:
        """Train on each image once."""
        self.net.train()
        for rows in torch.randperm(len(self.images)).split(self.batch_size):
            images = self.images[rows].contiguous(memory_format=self.layout)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
                logits = self.net(images)
            loss = F.cross_entropy(logits.float(), self.target[rows])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    X, y = make_terrain(options.images, random_state=0)
    y[0, :8, :8] = 4
    segmenter = MarsSegmenter(
        max_epochs=1, warm_start=True, validation_fraction=None, random_state=0
    )
    bare = BareLoop(X, y, segmenter.batch_size)
    segmenter.fit(X, y)
    bare.epoch()

    ratios = []
    print("round  fit s/epoch  bare s/epoch  ratio")
    for number in range(1, options.rounds + 1):
        segmenter.fit(X, y)
        fit_seconds = segmenter.history_[-1]["seconds"]
        start = time.perf_counter()
        bare.epoch()
        bare_seconds = time.perf_counter() - start
        ratios.append(fit_seconds / bare_seconds)
        print(f"{number:5d}  {fit_seconds:11.3f}  {bare_seconds:12.3f}  {ratios[-1]:5.3f}")
    print(
        f"median ratio {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}), {segmenter.precision_}, "
        f"{options.images / fit_seconds:.0f} images/s"
    )


if __name__ == "__main__":
    main()
