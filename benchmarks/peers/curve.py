"""Mean IoU over seconds of training, of MarsSegmenter and of each peer in its better arithmetic.

    python benchmarks/peers/curve.py PICTURE.png [--test] [--machine NAME]

Shows what `compare.py` left in `results/` at all budgets: each point is the mean over seeds of
runs whose schedule ended there; bars reach from the lowest to the highest seed. A peer is shown in
the setting, of its own recipe, that has the highest score at the longest budget; a forest stands
where its training ended.
"""

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "accuracy"))

import matplotlib.pyplot as plt
import numpy as np
from protocol import RESULTS, iou_of, read_runs

# The defaults, and those with a dropout of 0.1: what has been run at more budgets is shown.
OURS = ("skmars", "skmars, dropout 0.1")
# By budget: seconds that a run took, and its score.
Scores = dict[int, list[tuple[float, float]]]


def scores_by_setting(*, test: bool, machine: str | None) -> dict[str, Scores]:
    """Seconds and mean IoU of each seed, by setting and by budget."""
    settings: dict[str, Scores] = defaultdict(lambda: defaultdict(list))
    suffix = "_test" * test + (f"_{machine}" if machine else "")
    for record in RESULTS.glob("peers_*.jsonl"):
        if match := re.fullmatch(r"peers_(\d+)" + re.escape(suffix), record.stem):
            for run in read_runs(record):
                score = float(np.nanmean(iou_of(run)))
                settings[run["configuration"]][int(match[1])].append((run["seconds"], score))
    return settings


def best_of_each_net(settings: dict[str, Scores]) -> dict[str, Scores]:
    """The setting of each net that is best where most time is given."""
    best: dict[str, Scores] = {}
    for name, scores in settings.items():
        net = name.split(",")[0]
        if "trained by skmars" in name or net == "skmars":
            continue
        if net not in best or _merit(scores) > _merit(best[net]):
            best[net] = scores
    ours = max(OURS, key=lambda name: len(settings.get(name, ())))
    return {**best, ours: settings[ours]} if ours in settings else best


def _merit(scores: Scores) -> tuple[int, float]:
    longest = max(scores)
    return longest, float(np.mean([score for _, score in scores[longest]]))


def draw(curves: dict[str, Scores], path: str) -> None:
    """Draw one line a net, ours on top."""
    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for name in sorted(curves, key=lambda name: (name in OURS, _merit(curves[name]))):
        groups = [np.array(runs) for _, runs in sorted(curves[name].items())]
        seconds, means = np.array([group.mean(axis=0) for group in groups]).T
        low, high = (np.array([f(group[:, 1]) for group in groups]) for f in (np.min, np.max))
        bars = [means - low, high - means]
        style = {"linewidth": 2.5, "color": "black"} if name in OURS else {"linewidth": 1.2}
        axes.errorbar(seconds, means, bars, marker="o", capsize=3, label=name, **style)
    axes.set(xscale="log", xlabel="seconds of training on 2 cores", ylabel="mean IoU")
    ticks = sorted({time for scores in curves.values() for time in scores})
    axes.set_xticks(ticks, [str(time) for time in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1], labels[::-1], fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5)
    )
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", metavar="PICTURE.png")
    parser.add_argument("--test", action="store_true", help="of the sols of the test set")
    parser.add_argument("--machine", help="whose record to show")
    args = parser.parse_args()
    settings = scores_by_setting(test=args.test, machine=args.machine)
    draw(best_of_each_net(settings), args.picture)
