"""Mean IoU over seconds of training, of MarsSegmenter and of each peer in its better arithmetic.

    python benchmarks/peers/curve.py PICTURE.png [--test]

Shows what `compare.py` left in `results/` at all budgets: each point is the mean over seeds of
runs whose schedule ended there; bars reach from the lowest to the highest seed. A peer is shown in
the setting, of its own recipe, that has the highest score at the longest budget.
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

Scores = dict[int, list[float]]


def scores_by_setting(*, test: bool) -> dict[str, Scores]:
    """Mean IoU of each seed, by setting and by seconds."""
    settings: dict[str, Scores] = defaultdict(lambda: defaultdict(list))
    for record in RESULTS.glob("peers_*.jsonl"):
        match = re.fullmatch(r"peers_(\d+)(_test)?", record.stem)
        if match and bool(match[2]) == test:
            for run in read_runs(record):
                settings[run["configuration"]][int(match[1])].append(np.nanmean(iou_of(run)))
    return settings


def best_of_each_net(settings: dict[str, Scores]) -> dict[str, Scores]:
    """The setting of each net that is best where most time is given."""
    best: dict[str, Scores] = {}
    for name, scores in settings.items():
        net = name.split(",")[0]
        if "trained by skmars" in name or "early_stopping" in name:
            continue
        if net not in best or _merit(scores) > _merit(best[net]):
            best[net] = scores
    return best


def _merit(scores: Scores) -> tuple[int, float]:
    longest = max(scores)
    return longest, float(np.mean(scores[longest]))


def draw(curves: dict[str, Scores], path: str) -> None:
    """Draw one line a net, ours on top."""
    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for name in sorted(curves, key=lambda name: (name == "skmars", _merit(curves[name]))):
        seconds = sorted(curves[name])
        groups = [curves[name][time] for time in seconds]
        means = np.array([np.mean(group) for group in groups])
        bars = [means - [min(group) for group in groups], [max(group) for group in groups] - means]
        style = {"linewidth": 2.5, "color": "black"} if name == "skmars" else {"linewidth": 1.2}
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
    args = parser.parse_args()
    draw(best_of_each_net(scores_by_setting(test=args.test)), args.picture)
