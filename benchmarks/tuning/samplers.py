"""TPE against chance, with the same number of trials over the default space.

python benchmarks/tuning/samplers.py [DATA.npz] [--trials 40] [--seeds 5]
"""

import numpy as np
from problem import arguments, of, run_missing


def main() -> None:
    args = arguments(__doc__, trials=40, seeds=5)
    settings = {
        name: {"sampler": name, "pruner": None, "n_trials": args.trials}
        for name in ("tpe", "random")
    }
    table = run_missing("samplers", args.data, settings, args.seeds)
    print(f"\n| sampler | best of {args.trials}, each seed | mean | spread | of the first half |")
    print("|---|---|---|---|---|")
    for setting in settings:
        best = of(table, setting, "best")
        half = np.array([row[args.trials // 2 - 1] for row in of(table, setting, "best_so_far")])
        each = ", ".join(f"{value:.3f}" for value in best)
        print(
            f"| {setting} | {each} | {best.mean():.3f} | {np.ptp(best):.3f} | {half.mean():.3f} |"
        )
    gains = of(table, "tpe", "best") - of(table, "random", "best")
    print(f"\nTPE minus random, each seed: {', '.join(f'{gain:+.3f}' for gain in gains)}")


if __name__ == "__main__":
    main()
