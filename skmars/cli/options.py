"""Options of the command line that are derived from an estimator's parameters."""

import argparse
import ast
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["add_parameters", "chosen_parameters"]


def add_parameters(
    parser: argparse._ActionsContainer,
    estimator: Callable[..., Any],
    *,
    prefix: str = "",
    only: tuple[str, ...] | None = None,
    leave_out: tuple[str, ...] = (),
    names: Mapping[str, tuple[str, ...]] | None = None,
) -> None:
    """Add options for the parameters of an estimator, with its docstring as the help.

    Parameters
    ----------
    parser : ArgumentParser or group
        Gets options such as `--batch-size`.
    estimator : class
        With keyword arguments and a numpydoc docstring.
    prefix : str, default=""
        Put before names, such as "augmentation__" for `--augmentation-brightness`.
    only : tuple of str, default=None
        Parameters that get an option; by default all.
    leave_out : tuple of str, default=()
        Parameters that get no option.
    names : dict of str to tuple of str, default=None
        Names of options that are not those of the parameters, such as
        `{"n_trials": ("--trials", "--n-trials")}`.
    """
    texts = parameter_texts(inspect.getdoc(estimator) or "")
    for name, parameter in inspect.signature(estimator).parameters.items():
        if name in leave_out or (only is not None and name not in only):
            continue
        default = parameter.default
        option = "--" + (prefix + name).replace("__", "-").replace("_", "-")
        options = (names or {}).get(name, (option,))
        how: dict[str, Any] = {
            "dest": prefix + name,
            "default": argparse.SUPPRESS,
            "help": texts.get(name, f"(default={default!r})").replace("%", "%%"),
        }
        if name == "verbose":
            parser.add_argument("-v", *options, action="count", **how)
        elif isinstance(default, bool):
            parser.add_argument(*options, action=argparse.BooleanOptionalAction, **how)
        else:
            read = read_tuple if isinstance(default, tuple) else read_value
            parser.add_argument(*options, type=read, metavar="VALUE", **how)


def chosen_parameters(
    given: Mapping[str, Any], estimator: Callable[..., Any], *, prefix: str = ""
) -> dict[str, Any]:
    """Those parameters of an estimator that were given as options."""
    names = inspect.signature(estimator).parameters
    return {name: given[prefix + name] for name in names if prefix + name in given}


def parameter_texts(doc: str) -> dict[str, str]:
    """Text of each parameter in the section "Parameters" of a numpydoc docstring."""
    lines = doc.splitlines()
    starts = [i for i, line in enumerate(lines) if i and line and not line.strip("-")]
    texts: dict[str, str] = {}
    for start, end in zip(starts, [*starts[1:], len(lines) + 1], strict=False):
        if lines[start - 1] != "Parameters":
            continue
        names: list[str] = []
        for line in lines[start + 1 : end - 1]:
            if line and not line.startswith(" "):
                head, _, kind = line.partition(" : ")
                names = head.split(", ")
                texts |= dict.fromkeys(names, f"[{kind}]" if kind else "")
            else:
                texts |= {name: f"{texts[name]} {line.strip()}".strip() for name in names}
    # Without what only a page of documentation makes of them: code, and numbers of references.
    return {name: re.sub(r"`| \[[0-9]+\]_", "", text) for name, text in texts.items()}


def read_value(text: str) -> Any:
    """A number, None, a dict and so on as Python writes them; anything else is a string."""
    if text in {"none", "true", "false"}:
        text = text.capitalize()
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def read_tuple(text: str) -> Any:
    """Like `read_value`, with a single integer as a tuple of one."""
    value = read_value(text)
    return (value,) if isinstance(value, int) else value
