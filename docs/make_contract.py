"""Write `contract.md`, the page on the contract, from the catalogue of checks.

Usage: python docs/make_contract.py
"""

from collections import Counter
from pathlib import Path

from skmars.utils.estimator_checks._catalogue import (
    WRITTEN_FOR,
    Entry,
    catalogue,
    summary,
)
from skmars.utils.estimator_checks._selection import own_checks

PAGE = Path(__file__).with_name("contract.md")

INTRODUCTION = """\
% Written by make_contract.py.

# Estimator checks

The estimators of skmars keep scikit-learn's contract. scikit-learn tests it by `check_estimator`,
which is made for tables: next to none of its checks runs on estimators of images.
`skmars.utils.estimator_checks` runs them on images and masks. {called} checks of scikit-learn are
called as they are, {ported} of scikit-learn and imbalanced-learn are ported to images and masks,
{not_meaningful} have no meaning here, and {own} are added. The table below has each of them, as of
{versions}.

## Your own segmenter

It need not inherit from anything of skmars. It takes images `(n, H, W)` or `(n, H, W, C)` and
masks `(n, H, W)`, in `fit(X, y)`, `predict(X)` and `score(X, y)`, and has `classes_` and
`n_channels_in_` after fit. What else it has is checked as well: `predict_proba`, `partial_fit`,
weights of images in `fit` and `score`, the parameters `class_weight` and `ignore_label`. This one
passes:

```{{literalinclude}} ../tests/grey_levels.py
```

All checks at once, up to the first that fails, or one test for each with pytest:

```python
from skmars.utils.estimator_checks import check_segmenter, parametrize_with_checks

check_segmenter(GreyLevels())


@parametrize_with_checks([GreyLevels()])
def test_contract(estimator, check):
    check(estimator)
```

Give them an estimator whose parameters make a fit short: there are some 200 fits, most to 12
images of 16x24 pixels, a few to 48 or 64. Samplers, which have `fit_resample(X, y)` and
`sample_indices_`, go to `check_sampler`, or to `parametrize_with_checks` as well. A check that
you know to fail can be named, with the reason, in `expected_failed_checks`.

```{{eval-rst}}
.. automodule:: skmars.utils.estimator_checks
   :members:
```

## Each check

| check | from | what happens here | our check and in what it differs, or the reason |
|---|---|---|---|
"""

OURS = """
## What our checks look at

| check | what has to hold |
|---|---|
"""


def render() -> str:
    """Text of the page."""
    entries = catalogue()
    counts = Counter(entry.what for entry in entries)
    introduction = INTRODUCTION.format(
        called=counts["called"],
        ported=counts["ported"],
        own=counts["own"],
        not_meaningful=counts["not meaningful"],
        versions=" and ".join(f"{name} {version}" for name, version in WRITTEN_FOR.items()),
    )
    table = "".join(map(_row, entries))
    ours = "".join(f"| `{name}` | {summary(check)} |\n" for name, check in own_checks().items())
    return introduction + table + OURS + ours


def _row(entry: Entry) -> str:
    ports = ", ".join(f"`{port}`" for port in entry.ports)
    last = "; ".join(filter(None, [ports, entry.reason]))
    return f"| `{entry.check}` | {entry.source} | {entry.what} | {last} |\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
