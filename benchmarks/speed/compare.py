"""Fit and predict beside the machine's peak, the bare net, and what else one would write.

    python benchmarks/speed/compare.py [--net default report] [--images N] [--rounds 5] [--record]
    python benchmarks/speed/compare.py --history

All take their turns in one run, in another order each round, so that other work on the machine
slows all of them alike; what is printed are medians over the rounds. Shares of the peak are of
the best convolution that was measured. With MONAI installed, two of its nets take part.
`--record` adds a row to `results/history.jsonl`; `--history` prints all rows and marks what fell
by a tenth or more. What `fit` adds to the bare net's steps, `overhead.py` tells more exactly.
"""

import argparse
import json
import os
import platform
import random
import subprocess
from pathlib import Path
from statistics import median

# Before torch is loaded: another busy process must not bring the threads of both to a standstill.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import torch
from contestants import NETS, Peak, count_flops, make_contestants, seconds_of

from skmars.datasets import make_terrain
from skmars.device import choose_arithmetic, compute_settings

RECORD = Path(__file__).parent / "results" / "history.jsonl"
N_LATENCY = 20

# Work, and what each round measures of whom.
TASKS = {"train": "fit, images/s", "predict": "predict, images/s", "predict_one": "one image, ms"}


def measure(params: dict, n_images: int, n_rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each contestant for each task, in each round."""
    X, y = make_terrain(n_images, random_state=0)
    y[0, :8, :8] = 4
    contestants = make_contestants(params, X, y)
    seconds: dict[str, dict[str, list[float]]] = {
        task: {name: [] for name, contestant in contestants.items() if hasattr(contestant, task)}
        for task in TASKS
    }
    order, shuffle = list(contestants), random.Random(0).shuffle
    for number in range(n_rounds + 1):
        shuffle(order)
        for task, repeats in (("train", 1), ("predict", 1), ("predict_one", N_LATENCY)):
            for name in filter(seconds[task].__contains__, order):
                work = getattr(contestants[name], task)
                value = median(seconds_of(work) for _ in range(repeats))
                # The first round is a rehearsal.
                if number:
                    seconds[task][name].append(value)
    return seconds


def report(net: str, n_images: int, n_rounds: int, peak: float) -> dict[str, float]:
    """Print the tables of one net; the ratios that are worth keeping."""
    seconds = measure(NETS[net], n_images, n_rounds)
    flops = dict(zip(TASKS, count_flops(NETS[net], (64, 128)), strict=False))
    print(f"\n{net} net: {flops['train'] / 1e9:.2f} GFLOP an image in training, ", end="")
    print(f"{flops['predict'] / 1e9:.2f} in prediction")
    ratios: dict[str, float] = {}
    for task, title in TASKS.items():
        print(f"\n| {title} | | skmars is faster by | share of peak |\n| --- | --- | --- | --- |")
        own = seconds[task]["skmars"]
        for name, values in seconds[task].items():
            ratio = median(theirs / ours for theirs, ours in zip(values, own, strict=True))
            ratios[f"{net}: {title.split(',')[0]} against {name}"] = round(ratio, 3)
            if task == "predict_one":
                figure, share = f"{1000 * median(values):.2f}", ""
            else:
                figure = f"{n_images / median(values):.1f}"
                own_net = not name.startswith("MONAI")
                share = f"{flops[task] * n_images / median(values) / peak / 1e9:.0%}"
                share = share if own_net else ""
            print(f"| {name} | {figure} | {ratio:.2f} | {share} |")
    return ratios


def measure_peak(n_rounds: int) -> float:
    """Print what the machine can do; its best convolution in GFLOP/s."""
    best = 0.0
    print("| peak, GFLOP/s | matrix product | 3x3 convolution |\n| --- | --- | --- |")
    for precision in {"float32", choose_arithmetic("cpu", "auto").precision}:
        peak = Peak(precision)
        products = [peak.matrix_product() for _ in range(4 * n_rounds)]
        convolutions = [peak.convolution() for _ in range(4 * n_rounds)]
        best = max(best, *convolutions)
        print(f"| {precision} | {max(products):.0f} | {max(convolutions):.0f} |")
    return best


def print_history() -> None:
    """Each figure over the recorded runs, marked where it fell by a tenth or more."""
    rows = [json.loads(line) for line in RECORD.read_text(encoding="utf-8").splitlines()]
    for name in sorted({name for row in rows for name in row["ratios"]}):
        print(name)
        before = None
        for row in rows:
            ratio = row["ratios"].get(name)
            if ratio is None:
                continue
            mark = "  slower" if before is not None and ratio < 0.9 * before else ""
            print(f"  {row['commit']}  {row['precision']:8}  {ratio:6.3f}{mark}")
            before = ratio


def commit() -> str:
    """The state of the code that is measured."""
    words = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--history", action="store_true")
    args = parser.parse_args()
    if args.history:
        print_history()
        return
    arithmetic = choose_arithmetic("cpu", "auto")
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, {arithmetic}\n")
    ratios: dict[str, float] = {}
    with compute_settings("auto"):
        peak = measure_peak(args.rounds)
        for net in args.net:
            ratios |= report(net, args.images, args.rounds, peak)
    if args.record:
        RECORD.parent.mkdir(exist_ok=True)
        row = {"commit": commit(), "precision": arithmetic.precision, "ratios": ratios}
        with RECORD.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
