"""What pruning saves: the same number of trials with and without, and what is found.

    python benchmarks/tuning/pruning.py [DATA.npz] [--trials 40] [--seeds 3] [--only SETTING ...]

Both search with TPE. Also prints which share of the time goes into other things than fits: the
study's overhead.
"""

from problem import arguments, of, run_missing, searches


def main() -> None:
    names = ("tpe", "tpe, hyperband")
    args = arguments(__doc__, names, trials=40, seeds=3)
    settings = searches(args.only, args.trials)
    table = run_missing("searches", args.data, settings, args.seeds)
    table = [row for row in table if row["seed"] < args.seeds]
    print("\n| pruner | seconds | of those without | best score, each seed | mean |")
    print("|---|---|---|---|---|")
    full = of(table, "tpe", "seconds")
    for name, pruner in zip(names, ("none", "hyperband"), strict=True):
        seconds, best = of(table, name, "seconds"), of(table, name, "best")
        each = ", ".join(f"{value:.3f}" for value in best)
        ratio = (seconds / full[: len(seconds)]).mean()
        print(f"| {pruner} | {seconds.mean():.0f} | {ratio:.2f} | {each} | {best.mean():.3f} |")
    overhead = 1 - of(table, "tpe", "seconds_in_fits") / full
    print(f"\nnot in fits, without pruning: {overhead.mean():.1%} (at most {overhead.max():.1%})")


if __name__ == "__main__":
    main()
