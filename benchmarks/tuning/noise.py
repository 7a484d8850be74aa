"""How much a score depends on the seed of its training alone: differences below are chance.

python benchmarks/tuning/noise.py [DATA.npz] [--seeds 6]
"""

import numpy as np
from problem import SMALL, arguments, load, split

from skmars import MarsSegmenter


def main() -> None:
    args = arguments(__doc__, seeds=6)
    X, y, groups = load(args.data)
    train, scored = split(y, groups)
    scores = []
    for seed in range(args.seeds):
        params = {**SMALL, "class_weight": "sqrt", "learning_rate": 5e-3, "random_state": seed}
        segmenter = MarsSegmenter(**params, n_threads=1)
        segmenter.fit(X[train], y[train], groups=groups[train])
        scores.append(segmenter.score(X[scored], y[scored]))
        print(f"seed {seed}: {scores[-1]:.3f}", flush=True)
    print(f"mean {np.mean(scores):.3f}, standard deviation {np.std(scores, ddof=1):.3f}")


if __name__ == "__main__":
    main()
