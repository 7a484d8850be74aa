import ast
import re
from pathlib import Path

from skmars import MarsSegmenter

README = Path(__file__).parents[1] / "README.md"


def table_rows():
    text = README.read_text(encoding="utf-8").split("## Hyperparameters")[1].split("\n## ")[0]
    for line in text.splitlines():
        if line.startswith("| `"):
            names, defaults, _ = (re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:4])
            yield names, [ast.literal_eval(default) for default in defaults]


def test_table_has_every_hyperparameter():
    named = [name for names, _ in table_rows() for name in names]
    assert sorted(named) == sorted(MarsSegmenter().get_params())


def test_table_has_the_defaults():
    params = MarsSegmenter().get_params()
    for names, defaults in table_rows():
        if len(defaults) == len(names):
            assert [params[name] for name in names] == defaults
        elif defaults:  # one for all
            assert {params[name] for name in names} == set(defaults)
