"""MarsSegmenter beside nets of other libraries: the same images, the same seconds of training.

    python benchmarks/peers/compare.py DATA.npz [--seconds 300] [--seeds 3] [--only ROW ...]
        [--test] [--machine NAME]
    python benchmarks/peers/compare.py --table [--seconds 300] [--test] [--machine NAME]

Peers are trained as their users would: AdamW, cosine decay to the end of the time, horizontal
flips, no gradient from the background; in float32, and in bfloat16 with channels last, each at two
learning rates, so that the better ones can be chosen; and once more trained by MarsSegmenter with
all of its defaults but the net. "Whole images" are predicted at once, without other views of them;
a peer's score with the mirror images is noted beside its own. Those not installed are left
out; see the requirements beside this file. With `--test` the sols of the test set are scored. Runs
go to `results/` in the folder of the accuracy benchmarks; those that are there are not repeated.
"""

import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "accuracy"))

import numpy as np
import torch
from nets import NETS, is_installed
from protocol import LABELS, Split, iou_of, run_segmenter, run_table
from recipe import segmenter_with
from torch import Tensor
from torch.nn import functional as F

from skmars import MarsSegmenter
from skmars.augmentation import choose_augmenter

BATCH_SIZE = 16
WEIGHT_DECAY = 1e-2
RATES = (1e-3, 3e-4)
ARITHMETIC = {
    "float32": (torch.float32, torch.contiguous_format),
    "bfloat16": (torch.bfloat16, torch.channels_last),
}
IGNORED = -100
FOREST = "scikit-image random forest"
FOREST_PIXELS = 200_000
DROPOUT = {"dropout": 0.1}
LOWER_CONTRAST = choose_augmenter("auto").set_params(contrast=(0.55, 1.0))


def rows() -> dict[str, dict[str, Any]]:
    """MarsSegmenter as it comes; each peer in each arithmetic at each rate, and in our recipe."""
    table: dict[str, dict[str, Any]] = {
        "skmars": {},
        "skmars, dropout 0.1": DROPOUT,
        "skmars, dropout 0.1, contrast of 0.55 to 1": {**DROPOUT, "augmentation": LOWER_CONTRAST},
        "skmars, dropout 0.1, whole images": {**DROPOUT, "tta": False},
        "skmars, dropout 0.1, whole images, early_stopping": {
            **DROPOUT,
            "tta": False,
            "early_stopping": True,
        },
        FOREST: {"forest": True},
    }
    for net in NETS:
        for arithmetic in ARITHMETIC:
            for rate in RATES:
                table[f"{net}, {arithmetic}, {rate:g}"] = {
                    "net": net,
                    "arithmetic": arithmetic,
                    "learning_rate": rate,
                }
        table[f"{net}, trained by skmars"] = {"net": net}
        table[f"{net}, trained by skmars, whole images"] = {"net": net, "tta": False}
    return table


def run(split: Split, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train what a row says, and score it."""
    if params.get("forest"):
        return run_forest(split, seed)
    if "arithmetic" not in params:
        ours = dict(params)
        net = ours.pop("net", None)
        kind = MarsSegmenter if net is None else segmenter_with(net)
        return run_segmenter(split, ours, seed, kind)
    return run_peer(split, params, seed)


def run_peer(split: Split, params: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train a net of another library until the time is over."""
    torch.manual_seed(seed)
    net = NETS[params["net"]][1](len(LABELS))
    dtype, layout = ARITHMETIC[params["arithmetic"]]
    net.to(memory_format=layout)
    mean, scale = float(split.X.mean()), float(split.X.std())

    def logits_of(images: np.ndarray) -> Tensor:
        x = ((torch.from_numpy(images).float() - mean) / scale).unsqueeze(1)
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            return net(x.contiguous(memory_format=layout)).float()

    started = time.perf_counter()
    n_images = train(net, logits_of, split, params, seed)
    seconds = time.perf_counter() - started
    net.eval()
    with torch.inference_mode():
        parts = np.array_split(split.X_scored, math.ceil(len(split.X_scored) / BATCH_SIZE))
        own = torch.cat([logits_of(part).softmax(1) for part in parts])
        flipped = [logits_of(part[:, :, ::-1].copy()).softmax(1).flip(3) for part in parts]
    counts, both = (
        split.counts_by_sol(np.array(LABELS)[p.argmax(1).numpy()])
        for p in (own, own + torch.cat(flipped))
    )
    return {
        "seconds": round(seconds, 1),
        "epochs": round(n_images / len(split.X), 2),
        "images_per_second": round(n_images / seconds, 1),
        "n_parameters": sum(weight.numel() for weight in net.parameters()),
        "precision": params["arithmetic"],
        "scores": {"with mirror images": float(np.nanmean(iou_of({"counts_by_sol": both})))},
        "counts_by_sol": counts,
    }


def train(net, logits_of, split: Split, params: Mapping[str, Any], seed: int) -> int:
    """Train for the seconds given; how many images that were."""
    # Background has no class; the others are numbered in the order of their labels.
    target = torch.from_numpy(np.searchsorted(LABELS, split.y))
    target[torch.from_numpy(~np.isin(split.y, LABELS))] = IGNORED
    rng = np.random.default_rng(seed)
    rate, limit = params["learning_rate"], params["time_limit"]
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=WEIGHT_DECAY, fused=True)
    n_images, started = 0, time.perf_counter()
    net.train()
    while True:
        order = rng.permutation(len(split.X))
        for batch in np.array_split(order, math.ceil(len(order) / BATCH_SIZE)):
            elapsed = (time.perf_counter() - started) / limit
            if elapsed >= 1:
                return n_images
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 + math.cos(math.pi * elapsed)) / 2
            images, truth = split.X[batch], target[batch].clone()
            flipped = rng.random(len(batch)) < 0.5
            images[flipped] = images[flipped, :, ::-1]
            truth[torch.from_numpy(flipped)] = truth[torch.from_numpy(flipped)].flip(-1)
            loss = F.cross_entropy(logits_of(images), truth, ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            n_images += len(batch)


def run_forest(split: Split, seed: int) -> dict[str, Any]:
    """Train scikit-image's random forest on the filter responses of some pixels."""
    from skimage.feature import multiscale_basic_features
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(seed)
    started = time.perf_counter()
    labelled = np.isin(split.y, LABELS)
    share = min(1.0, FOREST_PIXELS / labelled.sum())
    features, labels = [], []
    for image, mask, known in zip(split.X, split.y, labelled, strict=True):
        chosen = known & (rng.random(mask.shape) < share)
        if chosen.any():
            features.append(multiscale_basic_features(image, sigma_max=16)[chosen])
            labels.append(mask[chosen])
    forest = RandomForestClassifier(
        n_estimators=100, max_depth=20, max_samples=0.2, n_jobs=-1, random_state=seed
    ).fit(np.concatenate(features), np.concatenate(labels))
    seconds = time.perf_counter() - started
    predicted = [
        forest.predict(
            multiscale_basic_features(image, sigma_max=16).reshape(image.size, -1)
        ).reshape(image.shape)
        for image in split.X_scored
    ]
    return {
        "seconds": round(seconds, 1),
        "epochs": 1,
        "images_per_second": round(len(split.X) / seconds, 1),
        "n_parameters": sum(tree.tree_.node_count for tree in forest.estimators_),
        "precision": "float32",
        "counts_by_sol": split.counts_by_sol(np.array(predicted)),
    }


def is_ready(params: Mapping[str, Any]) -> bool:
    """Whether what a row needs is installed."""
    if params.get("forest"):
        return is_installed("skimage")
    return "net" not in params or is_installed(NETS[params["net"]][0])


if __name__ == "__main__":
    ready = {name: params for name, params in rows().items() if is_ready(params)}
    run_table("peers", ready, baseline="skmars", run=run)
