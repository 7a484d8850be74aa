"""What `compare.py` compares: skmars, the bare net, and what else one would write."""

import copy
import time
from collections.abc import Callable

import numpy as np
import skorch
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from skmars import MarsSegmenter
from skmars.augmentation import choose_augmenter
from skmars.device import Arithmetic, choose_arithmetic, forward, set_layout
from skmars.nn import AttentionASPPUNet

N_CLASSES = 5
BATCH_SIZE = 16
PLAIN = Arithmetic("float32", channels_last=False)

NETS = {
    "default": {},
    "patch_size=1": {"patch_size": 1},
    "report": {"base_channels": 32, "patch_size": 1, "block": "plain"},
}


def seconds_of(work: Callable[[], object]) -> float:
    """Time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Loop:
    """A loop by hand over batches that lie ready in memory, as logits are computed."""

    def __init__(self, net: nn.Module, X: np.ndarray, y: np.ndarray, arithmetic: Arithmetic):
        torch.manual_seed(0)
        self.net, self.arithmetic = net, arithmetic
        set_layout(net, arithmetic)
        images = torch.from_numpy(X).float().unsqueeze(1)
        self.images = ((images - images.mean()) / images.std()).split(BATCH_SIZE)
        self.target = torch.from_numpy(y).long().split(BATCH_SIZE)
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)

    def train(self) -> None:
        """One epoch."""
        self.net.train()
        for place in range(len(self.images)):
            self.step(place)

    def step(self, place: int) -> None:
        """One step on one batch."""
        logits = forward(self.net, self.images[place], self.arithmetic)
        loss = F.cross_entropy(logits, self.target[place])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def predict(self) -> None:
        """Class indices of all images."""
        self.net.eval()
        with torch.inference_mode():
            for images in self.images:
                forward(self.net, images, self.arithmetic).argmax(1).numpy()

    def predict_one(self) -> None:
        """Logits of one image."""
        self.net.eval()
        with torch.inference_mode():
            forward(self.net, self.images[0][:1], self.arithmetic)


class PlainSkorch:
    """The same net in skorch as it comes: default data loader, float32, channels first."""

    def __init__(self, params: dict, X: np.ndarray, y: np.ndarray):
        torch.manual_seed(0)
        self.X = ((X[:, None] - X.mean()) / X.std()).astype(np.float32)
        self.y = y.astype(np.int64)
        self.net = skorch.NeuralNet(
            AttentionASPPUNet(1, N_CLASSES, dropout=0.1, **params),
            nn.CrossEntropyLoss,
            optimizer=torch.optim.AdamW,
            lr=1e-3,
            batch_size=BATCH_SIZE,
            iterator_train__shuffle=True,
            train_split=None,
            verbose=0,
        ).initialize()

    def train(self) -> None:
        """One epoch."""
        self.net.partial_fit(self.X, self.y, epochs=1)

    def predict(self) -> None:
        """Class indices of all images."""
        self.net.predict_proba(self.X).argmax(1)


class Skmars:
    """The estimator."""

    def __init__(self, params: dict, X: np.ndarray, y: np.ndarray):
        self.X, self.y = X, y
        # The default but its random windows and mirror images: all see as many pixels.
        augmenter = choose_augmenter("auto").set_params(random_crop=1.0)
        self.segmenter = MarsSegmenter(
            **params,
            max_epochs=1,
            warm_start=True,
            validation_fraction=None,
            augmentation=augmenter,
            tta=False,
            random_state=0,
        ).fit(X, y)

    def train(self) -> None:
        """One call of `fit`, of one epoch."""
        self.segmenter.fit(self.X, self.y)

    def predict(self) -> None:
        """Labels of all images."""
        self.segmenter.predict(self.X)

    def predict_one(self) -> None:
        """Labels of one image."""
        self.segmenter.predict(self.X[:1])


class Mirrored:
    """The estimator's prediction as it comes, of an image and its mirror image."""

    def __init__(self, own: Skmars):
        self.X = own.X
        self.segmenter = copy.copy(own.segmenter).set_params(tta=True)

    def predict(self) -> None:
        """Labels of all images."""
        self.segmenter.predict(self.X)

    def predict_one(self) -> None:
        """Labels of one image."""
        self.segmenter.predict(self.X[:1])


def make_contestants(params: dict, X: np.ndarray, y: np.ndarray) -> dict[str, object]:
    """All that are compared, by name; peers are left out if MONAI is not installed."""
    fastest = choose_arithmetic("cpu", "auto")

    def make_net() -> nn.Module:
        return AttentionASPPUNet(1, N_CLASSES, dropout=0.1, **params)

    own = Skmars(params, X, y)
    contestants = {
        "skmars": own,
        "skmars, mirror images": Mirrored(own),
        "bare net": Loop(make_net(), X, y, fastest),
        "bare net, float32, channels first": Loop(make_net(), X, y, PLAIN),
        "plain skorch": PlainSkorch(params, X, y),
    }
    for name, net in _peers().items():
        contestants[name] = Loop(net, X, y, PLAIN)
    return contestants


def _peers() -> dict[str, nn.Module]:
    try:
        from monai.networks.nets import AttentionUnet, DynUNet
    except ImportError:
        return {}
    kernels, strides = [3, 3, 3, 3], [1, 2, 2, 2]
    return {
        "MONAI AttentionUnet": AttentionUnet(2, 1, N_CLASSES, (16, 32, 64, 128), (2, 2, 2)),
        "MONAI DynUNet": DynUNet(2, 1, N_CLASSES, kernels, strides, strides[1:]),
    }


def count_flops(params: dict, shape: tuple[int, int]) -> tuple[float, float]:
    """Floating point operations for an image of the net: of a training step, of a prediction."""
    net = AttentionASPPUNet(1, N_CLASSES, **params)
    images = torch.zeros(2, 1, *shape)
    with FlopCounterMode(display=False) as counter:
        net(images).sum().backward()
    step = counter.get_total_flops() / len(images)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(images)
    return step, counter.get_total_flops() / len(images)


class Peak:
    """What the machine can do at most: matrix products and 3x3 convolutions, in GFLOP/s."""

    def __init__(self, precision: str):
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.matrix = torch.randn(1024, 1024).to(dtype)
        layout = torch.channels_last
        self.maps = torch.randn(BATCH_SIZE, 64, 32, 64).to(dtype, memory_format=layout)
        self.kernel = torch.randn(64, 64, 3, 3).to(dtype).contiguous(memory_format=layout)

    def matrix_product(self) -> float:
        """Of 1024x1024 matrices."""
        seconds = seconds_of(lambda: self.matrix @ self.matrix)
        return 2 * self.matrix.shape[0] ** 3 / seconds / 1e9

    def convolution(self) -> float:
        """3x3, of 64 channels at 32x64, a batch of 16."""
        with torch.inference_mode():
            seconds = seconds_of(lambda: F.conv2d(self.maps, self.kernel, padding=1))
        return 2 * self.kernel.numel() * self.maps[:, 0].numel() / seconds / 1e9
