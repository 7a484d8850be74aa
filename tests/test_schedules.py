import math

import numpy as np
import pytest
import torch

from skmars.schedules import (
    ConstantRate,
    CosineDecay,
    ReduceOnPlateau,
    make_schedule,
)


def torch_plateau(losses, *, factor, patience, threshold, final):
    """The rate after each loss by torch's scheduler, starting from 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=factor, patience=patience, threshold=threshold, min_lr=final
    )
    rates = []
    for loss in losses:
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("level", [-0.5, -1e3, 0.0])
def test_plateau_of_losses_that_are_not_positive(level):
    schedule = ReduceOnPlateau(factor=0.5, patience=2, threshold=1e-3)
    falling = [level + 1.0, level + 0.5, level]
    for loss in [*falling, level, level, level]:
        schedule.update(loss)
    assert schedule.factor(0.5) == 0.5
    # As much lower as the threshold asks is an improvement again.
    schedule.update(level - 2e-3 * abs(level) - 1e-9)
    for _ in range(2):
        schedule.update(level)
    assert schedule.factor(0.5) == 0.5


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("final", [0.0, 0.01, 0.3, 1.0])
def test_cosine_against_its_formula(warmup, final):
    schedule = CosineDecay(warmup=warmup, final=final)
    for progress in np.linspace(0, 1, 41):
        if progress < warmup:
            expected = max(progress / warmup, 0.01)
        else:
            angle = math.pi * (progress - warmup) / (1 - warmup)
            expected = (1 + final) / 2 + (1 - final) / 2 * math.cos(angle)
        assert schedule.factor(progress) == pytest.approx(expected, abs=1e-12)


def test_cosine_decay_against_torch():
    n = 20
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n, eta_min=0.01)
    schedule = CosineDecay(warmup=0, final=0.01)
    for step in range(n + 1):
        expected = optimizer.param_groups[0]["lr"]
        assert schedule.factor(step / n) == pytest.approx(expected, abs=1e-9)
        optimizer.step()
        scheduler.step()


def test_cosine_rises_then_falls_and_ends_where_it_says():
    schedule = CosineDecay(warmup=0.1, final=0.02)
    factors = [schedule.factor(progress) for progress in np.linspace(0, 1, 101)]
    assert factors[0] > 0
    assert max(factors) == schedule.factor(0.1) == 1
    assert np.all(np.diff(factors[:11]) > 0)
    assert np.all(np.diff(factors[10:]) < 0)
    assert schedule.factor(1.0) == pytest.approx(0.02)
    assert schedule.factor(1.7) == schedule.factor(1.0)


def test_constant_rate_is_constant():
    schedule = ConstantRate()
    schedule.update(3.0)
    assert {schedule.factor(progress) for progress in (0, 0.3, 1)} == {1.0}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "params",
    [
        {"factor": 0.5, "patience": 3, "threshold": 1e-3, "final": 0.01},
        {"factor": 0.1, "patience": 0, "threshold": 0.0, "final": 0.0},
        {"factor": 0.7, "patience": 2, "threshold": 0.1, "final": 0.2},
    ],
    ids=str,
)
def test_plateau_against_torch(params, seed):
    rng = np.random.default_rng(seed)
    losses = np.exp(-np.arange(60) / 20) + rng.uniform(0, 0.5, 60)
    schedule = ReduceOnPlateau(**params)
    rates = []
    for loss in losses:
        schedule.update(loss)
        rates.append(schedule.factor(0.5))
    np.testing.assert_allclose(rates, torch_plateau(losses, **params), rtol=1e-6, atol=1e-7)
    assert rates[-1] < 1


def test_plateau_has_the_defaults_it_documents():
    losses = [1.0, 1.0, 1.0, 1.0, 0.9995, 0.5, 0.5, 0.5, 0.5, 0.5]
    schedule = ReduceOnPlateau()
    rates = []
    for loss in losses:
        schedule.update(loss)
        rates.append(schedule.factor(0))
    expected = torch_plateau(losses, factor=0.5, patience=3, threshold=1e-3, final=0.01)
    np.testing.assert_allclose(rates, expected)


@pytest.mark.parametrize(
    ("scheduler", "params"),
    [
        ("cosine", {"warmup": -0.1}),
        ("cosine", {"warmup": 1.0}),
        ("cosine", {"warmup": math.nan}),
        ("cosine", {"final": -0.1}),
        ("cosine", {"final": 1.1}),
        ("cosine", {"patience": 3}),
        ("cosine", {"warmup": "long"}),
        ("plateau", {"factor": 0.0}),
        ("plateau", {"factor": 1.0}),
        ("plateau", {"patience": -1}),
        ("plateau", {"patience": math.nan}),
        ("plateau", {"patience": "long"}),
        ("plateau", {"threshold": 1.0}),
        ("plateau", {"threshold": -0.1}),
        ("plateau", {"final": 2}),
        ("plateau", {"warmup": 0.1}),
        (None, {"warmup": 0.1}),
    ],
    ids=str,
)
def test_parameters_that_fit_no_schedule_are_rejected(scheduler, params):
    (name,) = params
    with pytest.raises(ValueError, match=f"{name}|scheduler_params"):
        make_schedule(scheduler, params)


def test_unknown_schedules_are_rejected():
    with pytest.raises(ValueError, match=r"scheduler must be among .*'plateau'.*'step'"):
        make_schedule("step", None)


def test_each_phase_starts_its_schedule_anew():
    # The other schedules remember nothing.
    make = make_schedule("plateau", None)
    first, second = make(), make()
    for _ in range(20):
        first.update(1.0)
    assert first.factor(0.5) < 1
    assert second.factor(0.5) == make().factor(0.5) == 1


def test_parameters_reach_the_schedule():
    assert make_schedule("cosine", {"final": 0.25})().factor(1) == 0.25
    schedule = make_schedule("plateau", {"patience": 0, "factor": 0.25})()
    schedule.update(1.0)
    schedule.update(1.0)
    assert schedule.factor(0) == 0.25
