"""Two workers with a core each against one with both, in trials an hour.

    python benchmarks/tuning/workers.py [DATA.npz] [--trials 16] [--rounds 3]

Both take turns, with trials of the same parameters; the start of the processes is included.
"""

from problem import arguments, of, run_missing


def main() -> None:
    args = arguments(__doc__, trials=16, rounds=3)
    # Chance chooses by the number of a trial alone, so that both train the same nets.
    shared = {"sampler": "random", "pruner": None, "n_threads": "auto", "n_trials": args.trials}
    settings = {"one": {**shared, "n_workers": 1}, "two": {**shared, "n_workers": 2}}
    table = run_missing("workers", args.data, settings, args.rounds)
    one, two = of(table, "one", "seconds"), of(table, "two", "seconds")
    for name, seconds in (("one worker, all cores", one), ("two workers, half of them", two)):
        print(f"{name:<26} {3600 * args.trials / seconds.mean():6.0f} trials an hour")
    ratios = one / two
    print(f"ratio {ratios.mean():.2f} ({ratios.min():.2f} to {ratios.max():.2f})")


if __name__ == "__main__":
    main()
