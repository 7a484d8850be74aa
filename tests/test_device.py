"""How precision and memory layout are chosen, on machines that are fast in different ways."""

import itertools
import time
from collections import Counter

import pytest
import torch
from clocks import Clock

from skmars.device import Arithmetic, choose_arithmetic, compute_settings, random_numbers

# In this order machines are told how long a step takes.
ARITHMETICS = [
    Arithmetic("float32", channels_last=True),
    Arithmetic("float32", channels_last=False),
    Arithmetic("bfloat16", channels_last=True),
    Arithmetic("bfloat16", channels_last=False),
]

# The process remembers by the device what it has measured: each machine has one of its own.
DEVICES = map("cpu:{}".format, itertools.count(1))


class Machine:
    """A device that takes some milliseconds for a step in each arithmetic, and counts them."""

    def __init__(self, milliseconds):
        self.device = next(DEVICES)
        self.milliseconds = dict(zip(ARITHMETICS, milliseconds, strict=True))
        self.clock = Clock()
        self.n_steps = Counter()

    def forward(self, module, images, arithmetic):
        self.n_steps[arithmetic] += 1
        self.clock.advance(self.milliseconds[arithmetic] / 1000)
        return torch.zeros(1, requires_grad=True)


@pytest.fixture
def build(monkeypatch):
    def build(*milliseconds):
        machine = Machine(milliseconds)
        monkeypatch.setattr(time, "perf_counter", machine.clock)
        monkeypatch.setattr("skmars.device.forward", machine.forward)
        return machine

    return build


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [
        ((10, 10, 10, 10), ("float32", True)),
        ((10, 10, 9, 9), ("float32", True)),
        ((10, 10, 8, 8), ("bfloat16", True)),
        ((10, 10, 5, 5), ("bfloat16", True)),
        ((10, 10, 5, 4), ("bfloat16", True)),
        ((10, 10, 20, 5), ("bfloat16", False)),
        ((10, 8, 10, 10), ("float32", True)),
        ((10, 5, 9, 9), ("float32", False)),
        ((10, 5, 4.8, 4.8), ("float32", False)),
    ],
)
def test_what_is_clearly_faster_is_chosen(build, milliseconds, expected):
    assert choose_arithmetic(build(*milliseconds).device, "auto") == expected


@pytest.mark.parametrize(("first", "expected"), [(8, True), (7, True), (6, False), (5, False)])
def test_layout_of_a_precision_that_was_asked_for(build, first, expected):
    machine = build(1, 1, 10, first)
    assert choose_arithmetic(machine.device, "bfloat16") == ("bfloat16", expected)
    assert {arithmetic.precision for arithmetic in machine.n_steps} == {"bfloat16"}


def test_the_hopeless_are_tried_only_at_a_glance(build):
    machine = build(10, 10, 31, 29)
    choose_arithmetic(machine.device, "auto")
    n_glances = machine.n_steps.pop(ARITHMETICS[2])
    (n_others,) = set(machine.n_steps.values())
    assert n_glances < n_others


def test_slow_machines_take_one_step_of_each(build):
    machine = build(2000, 2000, 1000, 1000)
    assert choose_arithmetic(machine.device, "auto") == ("bfloat16", True)
    assert machine.n_steps == dict.fromkeys(ARITHMETICS, 1)


def test_measured_once_for_each_number_of_threads(build):
    machine = build(10, 10, 5, 5)
    choose_arithmetic(machine.device, "auto")
    n_steps = machine.n_steps.total()
    assert choose_arithmetic(machine.device, "auto") == ("bfloat16", True)
    assert machine.n_steps.total() == n_steps
    with compute_settings(torch.get_num_threads() + 1):
        choose_arithmetic(machine.device, "auto")
    assert machine.n_steps.total() == 2 * n_steps


def test_devices_that_are_not_measured_are_left_alone(build, monkeypatch):
    def refuse(*args):
        raise AssertionError("a device was asked")

    machine = build(10, 10, 5, 5)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("get_rng_state", "set_rng_state", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    before = torch.get_rng_state()
    assert choose_arithmetic(machine.device, "auto") == ("bfloat16", True)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_numbers_are_those_of_torch_with_this_seed():
    before = torch.get_rng_state()
    with random_numbers(7, "cpu"):
        drawn = torch.rand(5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn, torch.rand(5, generator=torch.Generator().manual_seed(7)))
