"""Texts in the place of objects: a study keeps plain values, the same in every process."""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

__all__ = ["as_kept", "kept_choices", "name_of", "stays_as_it_is", "value_of"]


def is_plain(value: Any) -> bool:
    """Whether every storage gives a value back as it is."""
    return value is None or isinstance(value, bool | int | float | str)


def stays_as_it_is(value: Any) -> bool:
    """Whether every storage gives a value back that is equal to it, such as a list of numbers."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False


def name_of(value: Any) -> str:
    """Text for an object, without the addresses that some `repr` hold."""
    name = getattr(value, "__name__", None)
    if isinstance(name, str):
        return name
    text = repr(value)
    if type(value).__repr__ is object.__repr__:
        # Told by what it holds, where it has no text of its own.
        text = f"{type(value).__qualname__}({getattr(value, '__dict__', {})})"
    return " ".join(re.sub(r" at 0x[0-9A-Fa-f]+", "", text).split())


def kept_choices(choices: Sequence[Any]) -> list[Any]:
    """What a study keeps of choices: themselves, and a text for each that is not plain."""
    kept = [_kept(choice) for choice in choices]
    return [
        # Objects of one name are told apart by their places.
        name if is_plain(choice) or kept.count(name) == 1 else f"{place}: {name}"
        for place, (choice, name) in enumerate(zip(choices, kept, strict=True))
    ]


def _kept(choice: Any) -> Any:
    if isinstance(choice, np.generic):
        return choice.item()
    return choice if is_plain(choice) else name_of(choice)


def as_kept(how: BaseDistribution) -> BaseDistribution:
    """Distribution by which a study keeps what is chosen by another."""
    if isinstance(how, CategoricalDistribution):
        return CategoricalDistribution(kept_choices(how.choices))
    return how


def value_of(how: BaseDistribution | None, kept: Any) -> Any:
    """What a study's value of a parameter stands for in a space with this distribution."""
    if isinstance(how, CategoricalDistribution):
        return how.choices[int(as_kept(how).to_internal_repr(kept))]
    return kept
