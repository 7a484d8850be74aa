"""TPE against chance, with the same number of trials over the default space.

python benchmarks/tuning/samplers.py [DATA.npz] [--trials 40] [--seeds 5] [--only SETTING ...]
"""

import numpy as np
from problem import arguments, of, run_missing, searches


def main() -> None:
    names = ("tpe", "random")
    args = arguments(__doc__, names, trials=40, seeds=5)
    settings = searches(args.only, args.trials)
    table = run_missing("searches", args.data, settings, args.seeds)
    print(f"\n| sampler | best of {args.trials}, each seed | mean | spread | of the first half |")
    print("|---|---|---|---|---|")
    for name in names:
        best = of(table, name, "best")
        half = np.array([row[args.trials // 2 - 1] for row in of(table, name, "best_so_far")])
        each = ", ".join(f"{value:.3f}" for value in best)
        print(f"| {name} | {each} | {best.mean():.3f} | {np.ptp(best):.3f} | {half.mean():.3f} |")
    n_both = min(len(of(table, name, "best")) for name in names)
    tpe, chance = (of(table, name, "best")[:n_both] for name in names)
    print(f"\nTPE minus random, each seed: {', '.join(f'{gain:+.3f}' for gain in tpe - chance)}")


if __name__ == "__main__":
    main()
