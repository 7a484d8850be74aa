"""What pruning saves: the same number of trials with and without, and what is found.

    python benchmarks/tuning/pruning.py [DATA.npz] [--trials 40] [--seeds 3]

Also prints which share of the time goes into other things than fits: the study's overhead.
"""

from problem import arguments, of, run_missing


def main() -> None:
    args = arguments(__doc__, trials=40, seeds=3)
    settings = {
        "none": {"pruner": None, "n_trials": args.trials},
        "hyperband": {"pruner": "hyperband", "n_trials": args.trials},
    }
    table = run_missing("pruning", args.data, settings, args.seeds)
    print("\n| pruner | seconds | of those without | best score, each seed | mean |")
    print("|---|---|---|---|---|")
    full = of(table, "none", "seconds")
    for setting in settings:
        seconds, best = of(table, setting, "seconds"), of(table, setting, "best")
        each = ", ".join(f"{value:.3f}" for value in best)
        ratio = (seconds / full[: len(seconds)]).mean()
        print(f"| {setting} | {seconds.mean():.0f} | {ratio:.2f} | {each} | {best.mean():.3f} |")
    overhead = 1 - of(table, "none", "seconds_in_fits") / full
    print(f"\nnot in fits, without pruning: {overhead.mean():.1%} (at most {overhead.max():.1%})")


if __name__ == "__main__":
    main()
