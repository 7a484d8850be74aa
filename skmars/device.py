"""Where and how the net computes: device, precision, memory layout and threads."""

import contextlib
import functools
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from skmars.nn import AttentionASPPUNet

__all__ = [
    "Arithmetic",
    "choose_arithmetic",
    "choose_device",
    "compute_settings",
    "forward",
    "random_numbers",
    "set_layout",
]

PRECISIONS = ("float32", "bfloat16")

# A candidate has to beat the one before it by this much: near ties must not depend on chance.
PRECISION_MARGIN = 1.15
# Layouts differ little where channels last is supported at all, and round differently.
LAYOUT_MARGIN = 1.5

# Slower than the fastest by this much: out of the race at once. Where bfloat16 is imitated, a step
# takes seconds.
HOPELESS = 3.0

# Images `(n, C, H, W)` of each lap, and how often a candidate takes it: first a glance, to find
# the hopeless.
LAPS = (((1, 1, 32, 64), 2), ((4, 1, 64, 128), 5))

# No round begins later than this: on slow machines the glance has to do.
MAX_SECONDS = 2.0


class Arithmetic(NamedTuple):
    """How convolutions are computed on a device."""

    precision: str
    """"float32", or "bfloat16" where float32 weights are cast for each forward pass."""
    channels_last: bool
    """Whether tensors are laid out with the channels of a pixel side by side."""


def choose_device(device: str) -> str:
    """Resolve "auto" to the accelerator if there is one, else to the CPU.

    Parameters
    ----------
    device : str
        "auto" or a torch device such as "cpu" or "cuda:1".

    Returns
    -------
    device : str
        A torch device.

    Raises
    ------
    ValueError
        If torch does not know or does not have the device.
    """
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return "cpu" if accelerator is None else str(accelerator)
    try:
        # Devices without data, such as "meta", cannot give a number back.
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={device!r} cannot be used by torch: {reason}") from error
    return device


def choose_arithmetic(device: str, precision: str) -> Arithmetic:
    """Pick the fastest layout for a precision, and the fastest precision for "auto".

    Measured once a process for each device and number of threads, and remembered.

    Parameters
    ----------
    device : str
        A torch device.
    precision : {"auto", "float32", "bfloat16"}
        What the user asked for.

    Returns
    -------
    arithmetic : Arithmetic
    """
    allowed = PRECISIONS if precision == "auto" else (precision,)
    return _fastest(device, torch.get_num_threads(), allowed)


@functools.cache
def _fastest(device: str, n_threads: int, precisions: tuple[str, ...]) -> Arithmetic:
    candidates = [Arithmetic(*pair) for pair in itertools.product(precisions, (True, False))]
    probes = [_Probe(device, arithmetic) for arithmetic in candidates]
    deadline = time.perf_counter() + MAX_SECONDS
    for shape, n_rounds in LAPS:
        if time.perf_counter() < deadline:
            images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
            probes = _lap(probes, images, n_rounds, deadline)
    chosen, *others = probes
    for candidate in others:
        same = candidate.arithmetic.precision == chosen.arithmetic.precision
        margin = LAYOUT_MARGIN if same else PRECISION_MARGIN
        if candidate.seconds * margin < chosen.seconds:
            chosen = candidate
    return chosen.arithmetic


def _lap(probes: list["_Probe"], images: Tensor, n_rounds: int, deadline: float) -> list["_Probe"]:
    """Time all candidates on the same images; those that are not hopeless."""
    for probe in probes:
        probe.seconds = math.inf
    for _ in range(n_rounds):
        # In turns, so that other work of the machine slows all of them alike.
        for probe in probes:
            probe.step(images)
        if time.perf_counter() > deadline:
            break
    limit = HOPELESS * min(probe.seconds for probe in probes)
    return [probe for probe in probes if probe.seconds < limit]


class _Probe:
    """A small net that times its fastest training step."""

    def __init__(self, device: str, arithmetic: Arithmetic):
        self.arithmetic = arithmetic
        with random_numbers(0, "cpu"):
            self.net = AttentionASPPUNet(1, 4, depth=2).float().to(device)
        set_layout(self.net, arithmetic)
        self.seconds = math.inf

    def step(self, images: Tensor) -> None:
        start = time.perf_counter()
        loss = forward(self.net, images, self.arithmetic).square().mean()
        loss.backward()
        # Reading a number back waits for devices that compute asynchronously.
        loss.item()
        self.seconds = min(self.seconds, time.perf_counter() - start)


def set_layout(module: nn.Module, arithmetic: Arithmetic) -> None:
    """Lay out a module's weights as its convolutions are computed."""
    # torch's annotations lack the keyword.
    module.to(memory_format=_memory_format(arithmetic))  # type: ignore[call-overload]


def _memory_format(arithmetic: Arithmetic) -> torch.memory_format:
    return torch.channels_last if arithmetic.channels_last else torch.contiguous_format


def forward(module: Callable[[Tensor], Tensor], images: Tensor, arithmetic: Arithmetic) -> Tensor:
    """Logits in float32 of scaled images `(n, C, H, W)`."""
    images = images.contiguous(memory_format=_memory_format(arithmetic))
    if images.shape[1] == 1:
        # The stride of an axis of length 1 may be anything, and yet chooses among kernels.
        images = images.squeeze(1).unsqueeze(1)
    with torch.autocast(
        images.device.type, torch.bfloat16, enabled=arithmetic.precision == "bfloat16"
    ):
        return module(images).float()


@contextlib.contextmanager
def compute_settings(n_threads: int | str) -> Iterator[None]:
    """Set torch's threads and default device and flush denormals; leave all as they were.

    Weights that decay towards zero end up as denormal numbers, which the CPU computes with many
    times slower. Threads that torch started before keep their own setting.

    Parameters
    ----------
    n_threads : int or "auto"
        Threads within an operation; "auto" keeps what torch is set to.
    """
    threads_before = torch.get_num_threads()
    flushed_before = sys.float_info.min * 0.5 == 0.0
    if n_threads != "auto":
        torch.set_num_threads(int(n_threads))
    torch.set_flush_denormal(True)
    try:
        with contextlib.ExitStack() as stack:
            # Only where it has to be set, since every call of torch is slower then.
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            yield
    finally:
        torch.set_flush_denormal(flushed_before)
        if n_threads != "auto":
            torch.set_num_threads(threads_before)


@contextlib.contextmanager
def random_numbers(seed: int, device: str) -> Iterator[None]:
    """Seed torch's random numbers of the CPU and of a device; leave both as they were.

    Other devices are not touched: asking each of them for its state takes time and memory there.

    Parameters
    ----------
    seed : int
        At least 0.
    device : str
        A torch device.
    """
    kind = torch.device(device).type
    devices = [] if kind == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type=kind):
        torch.default_generator.manual_seed(seed)
        for name in devices:
            state = torch.Generator(name).manual_seed(seed).get_state()
            torch.get_device_module(name).set_rng_state(state, name)
        yield
