"""What `fit` adds to the bare step of its net: the two in turns, step by step, within one fit.

    python benchmarks/speed/overhead.py [--images 640] [--epochs 5]

After each step of a fit one of a loop by hand is taken, on a net of its own, so that whatever
else the machine does slows both alike. A step of the fit is all of it from batch to batch: data
order, augmentation, loss, moving average, callbacks and history. What is done once a fit, before
the first batch, is printed beside it.
"""

import argparse
import os
import time
from statistics import median

# Before torch is loaded: another busy process must not bring the threads of both to a standstill.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from contestants import N_CLASSES, Loop, Skmars, seconds_of
from skorch.callbacks import Callback

from skmars.datasets import make_terrain
from skmars.device import choose_arithmetic, compute_settings
from skmars.nn import AttentionASPPUNet


class Turns(Callback):
    """Take a step by hand after each step of the fit, and time both."""

    def __init__(self, loop: Loop):
        self.loop = loop

    def on_train_begin(self, net, **kwargs):
        """Forget earlier fits."""
        self.fit_seconds_, self.bare_seconds_ = [], []
        self.began_ = time.perf_counter()

    def on_epoch_begin(self, net, **kwargs):
        """Start the clock of the first batch."""
        self.since_ = time.perf_counter()

    def on_batch_end(self, net, training=False, **kwargs):
        """Stop the clock, let the other one have its turn, and start again."""
        self.fit_seconds_.append(time.perf_counter() - self.since_)
        place = len(self.bare_seconds_) % len(self.loop.images)
        self.bare_seconds_.append(seconds_of(lambda: self.loop.step(place)))
        self.since_ = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    X, y = make_terrain(args.images, random_state=0)
    y[0, :8, :8] = 4
    with compute_settings("auto"):
        net = AttentionASPPUNet(1, N_CLASSES, dropout=0.1)
        turns = Turns(Loop(net, X, y, choose_arithmetic("cpu", "auto")))
        skmars = Skmars({}, X, y)
        skmars.segmenter.set_params(max_epochs=args.epochs, callbacks=[turns])
        started = time.perf_counter()
        skmars.train()
    # The first steps of each warm up.
    fit, bare = (1000 * median(s[5:]) for s in (turns.fit_seconds_, turns.bare_seconds_))
    print(f"step of fit {fit:.1f} ms, bare {bare:.1f} ms: {fit / bare - 1:+.1%}")
    before = 1000 * (turns.began_ - started)
    print(f"before the first batch {before:.0f} ms, {before / fit:.1f} steps, once a fit")


if __name__ == "__main__":
    main()
