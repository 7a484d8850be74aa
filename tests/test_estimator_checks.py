import importlib.util
import inspect
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from broken_estimators import (
    SAMPLERS,
    SEGMENTERS,
    ChangesParameter,
    Darkest,
    IgnoresWeights,
    Incremental,
    Mirrored,
    PartlyLabelled,
    Probable,
    Seeded,
    SeedsNumpy,
    Undecided,
    Unrepeatable,
    Warns,
    Weighted,
)
from grey_levels import GreyLevels
from sklearn.exceptions import SkipTestWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks as scikit_learn
from sklearn.utils.fixes import parse_version

import skmars
from skmars import Augmenter, Ensemble, MarsSegmenter, OutlierRemover
from skmars.tuning import SegmenterSearchCV
from skmars.utils import estimator_checks as suite
from skmars.utils.estimator_checks import _catalogue as book
from skmars.utils.estimator_checks import (
    check_sampler,
    check_segmenter,
    estimator_checks_generator,
    parametrize_with_checks,
)
from skmars.utils.estimator_checks._selection import CALLED, own_checks
from skmars.utils.estimator_checks._tools import LABELS, assert_same, make_images, refused

DOCS = Path(__file__).parents[1] / "docs"
FAST = {
    "depth": 2,
    "base_channels": 4,
    "batch_size": 8,
    "precision": "float32",
    "n_threads": 1,
    "random_state": 0,
}

# What the package offers. A new segmenter or sampler is one line here.
ESTIMATORS = [
    MarsSegmenter(**FAST, max_epochs=2),
    Ensemble(MarsSegmenter(**FAST, max_epochs=2), n_members=2, random_state=0),
    skmars.make_pipeline(augment=Augmenter(), segment=MarsSegmenter(**FAST, max_epochs=1)),
    SegmenterSearchCV(GreyLevels(), {}, n_trials=2, cv=2, random_state=0),
    OutlierRemover(),
    OutlierRemover(contamination=0.1),
    Augmenter(),
    Augmenter(vertical_flip=True, brightness=0.2, contrast=0.2, crop_scale=0.7, n_copies=2),
]
# What others might, in the ways that the suite has to let pass.
SOUND = [
    GreyLevels(),
    Weighted(),
    Probable(),
    Seeded(),
    Unrepeatable(),
    Incremental(),
    PartlyLabelled(),
    make_pipeline(FunctionTransformer(np.asarray), GreyLevels()),
    Mirrored(),
    Darkest(),
    Undecided(),
]


def check_any(estimator, **options):
    return (check_sampler if hasattr(estimator, "fit_resample") else check_segmenter)(
        estimator, **options
    )


def named(results, *statuses):
    return [result["check_name"] for result in results if result["status"] in statuses]


@parametrize_with_checks(ESTIMATORS)
def test_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: type(estimator).__name__)
def test_at_least_45_checks_run(estimator):
    assert len(list(estimator_checks_generator(estimator))) >= 45


@pytest.mark.parametrize("estimator", SOUND, ids=lambda estimator: type(estimator).__name__)
def test_sound_estimators_of_others_pass(estimator):
    results = check_any(estimator, on_skip=None)
    assert len(named(results, "passed")) >= 45


def test_warnings_are_no_printing(monkeypatch):
    def show(message, *args, **kwargs):
        print(message, file=sys.stderr)

    # As without pytest, which keeps warnings from stderr.
    monkeypatch.setattr(warnings, "showwarning", show)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        check_segmenter(Warns(), on_skip=None)


def test_sound_segmenter_knows_nothing_of_this_package():
    modules = {cls.__module__ for cls in GreyLevels.__mro__}
    assert not any(module.startswith("skmars") for module in modules)


@pytest.mark.parametrize("broken", [*SEGMENTERS, *SAMPLERS], ids=lambda cls: cls.__name__)
def test_broken_estimator_is_caught_by_the_check_meant_for_it(broken):
    meant = {**SEGMENTERS, **SAMPLERS}[broken]
    checks = {check.func.__name__: check for _, check in estimator_checks_generator(broken())}
    with pytest.raises(AssertionError, match=broken.__name__):
        checks[meant](broken())


# Running checks


def test_first_failure_is_raised():
    with pytest.raises(AssertionError, match=r"ChangesParameter\.fit must not change"):
        check_segmenter(ChangesParameter())


def test_failures_can_be_warned_of_or_reported():
    with pytest.warns(UserWarning, match="check_global_random_state of SeedsNumpy failed"):
        warned = check_segmenter(SeedsNumpy(), on_fail="warn")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        reported = check_segmenter(SeedsNumpy(), on_fail=None)
    assert named(warned, "failed") == named(reported, "failed") == ["check_global_random_state"]
    assert set(named(reported, "passed", "failed")) == {row["check_name"] for row in reported}


def test_results_are_those_of_scikit_learns_runner():
    seen = []
    results = check_segmenter(
        SeedsNumpy(),
        on_fail=None,
        callback=lambda **result: seen.append(result),
        expected_failed_checks={"check_global_random_state": "a reason"},
    )
    assert seen == results
    theirs = scikit_learn.check_estimator(FunctionTransformer(), on_fail=None, on_skip=None)
    assert set(results[0]) == set(theirs[0])
    (expected,) = [result for result in results if result["status"] == "xfail"]
    assert expected["expected_to_fail"]
    assert expected["expected_to_fail_reason"] == "a reason"
    assert isinstance(expected["exception"], AssertionError)
    others = [result for result in results if result is not expected]
    assert not any(result["expected_to_fail"] or result["exception"] for result in others)


def test_expected_failure_is_not_raised():
    expected = {"check_estimators_overwrite_params": "it counts its fits"}
    results = check_segmenter(ChangesParameter(), expected_failed_checks=expected)
    assert named(results, "xfail") == list(expected)


def test_missing_package_skips_a_check(monkeypatch):
    monkeypatch.setitem(sys.modules, "imblearn.pipeline", None)
    with pytest.warns(SkipTestWarning, match="imblearn is not installed"):
        results = check_sampler(Darkest())
    assert named(results, "skipped") == ["check_samplers_in_pipeline"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", SkipTestWarning)
        check_sampler(Darkest(), on_skip=None)


def test_wrong_use_is_refused():
    with pytest.raises(TypeError, match="instance of GreyLevels"):
        check_segmenter(GreyLevels)
    with pytest.raises(TypeError, match="instance of Darkest"):
        check_sampler(Darkest)
    with pytest.raises(TypeError, match="instance of GreyLevels"):
        parametrize_with_checks([GreyLevels])
    with pytest.raises(TypeError, match="use check_sampler"):
        check_segmenter(Darkest())
    with pytest.raises(TypeError, match="use check_segmenter"):
        check_sampler(GreyLevels())
    with pytest.raises(ValueError, match="on_fail"):
        check_segmenter(GreyLevels(), on_fail="explode")
    with pytest.raises(ValueError, match="on_skip"):
        check_segmenter(GreyLevels(), on_skip="explode")
    with pytest.raises(ValueError, match="callback"):
        check_segmenter(GreyLevels(), callback=print)


def test_parametrization_has_ids_and_marks():
    mark = parametrize_with_checks(
        [GreyLevels(smoothing=0.5), Darkest()],
        expected_failed_checks=lambda estimator: (
            {"check_score": "it scores pixels"} if isinstance(estimator, GreyLevels) else {}
        ),
        xfail_strict=True,
    ).mark
    name_case = mark.kwargs["ids"]
    ids = ["-".join(map(name_case, case.values)) for case in mark.args[1]]
    assert ids[0] == "GreyLevels(smoothing=0.5)-check_estimator_cloneable"
    assert len(ids) == len(set(ids))
    assert "Darkest()-check_samplers_sample_indices" in ids
    (marked,) = [case for case in mark.args[1] if case.marks]
    assert name_case(marked.values[1]) == "check_score"
    assert marked.marks[0].kwargs == {"reason": "it scores pixels", "strict": True}


def test_weights_are_checked_only_where_there_are_some():
    names = [check.func.__name__ for _, check in estimator_checks_generator(GreyLevels())]
    weighted = [check.func.__name__ for _, check in estimator_checks_generator(IgnoresWeights())]
    assert not any("sample_weight" in name for name in names)
    assert set(weighted) - set(names) == {name for name in weighted if "sample_weight" in name}


def test_import_needs_neither_pytest_nor_torch_nor_extras():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['imblearn', 'pytest'])); "
        "import skmars.utils.estimator_checks; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# What the checks are made of


def test_images_can_be_told_apart_and_are_no_reflections_of_themselves():
    X, y = make_images(20, n_channels=2)
    assert X.shape == (20, 16, 24, 2)
    assert X.dtype == np.uint8
    assert np.array_equal(np.unique(y), LABELS)
    means = [X[y == label].mean() for label in LABELS]
    assert np.all(np.diff(means) > 40)
    for mask in y:
        for axes in (0, 1, (0, 1)):
            assert not np.array_equal(mask, np.flip(mask, axes))
    assert np.array_equal(X, make_images(20, n_channels=2)[0])


def test_comparison_says_what_differs():
    labels = {"predict": np.zeros((2, 3), int)}
    assert_same(labels, {"predict": np.zeros((2, 3), int)}, "the same")
    with pytest.raises(AssertionError, match=r"U must.* predict differs in 6 of 6 values"):
        assert_same(labels, {"predict": np.ones((2, 3), int)}, "U must")
    with pytest.raises(AssertionError, match=r"shape \(2, 3\), not \(3, 2\)"):
        assert_same(labels, {"predict": np.zeros((3, 2), int)}, "U must")
    proba = {"predict_proba": np.full((2, 3), 0.5)}
    close = {"predict_proba": np.full((2, 3), 0.501)}
    assert_same(proba, close, "U must", exact=False)
    with pytest.raises(AssertionError):
        assert_same(proba, close, "U must")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (None, "raised nothing"),
        (KeyError("a"), "KeyError"),
        (ValueError(), "says why"),
        (ValueError("too short"), "the error says: too short"),
        (TypeError("wrong depth"), None),
    ],
)
def test_refusal_has_to_be_of_the_kind_and_to_say_something(error, says):
    def fail():
        if error is not None:
            raise error

    def check():
        with refused("U must", match="depth"):
            fail()

    if says is None:
        check()
        return
    with pytest.raises(AssertionError, match=f"U must.*{says}"):
        check()


# The catalogue and its page


def installed_checks(source):
    if source == "scikit-learn":
        module = scikit_learn
    else:
        module = pytest.importorskip("imblearn.utils.estimator_checks")
    return {
        name
        for name, function in vars(module).items()
        if name.startswith("check_") and inspect.unwrap(function).__module__ == module.__name__
    }


@pytest.mark.parametrize("source", book.WRITTEN_FOR)
def test_catalogue_has_every_check_of_the_installed_version(source):
    listed = [entry.check for entry in book.catalogue() if entry.source == source]
    assert len(listed) == len(set(listed))
    installed = installed_checks(source)
    missing = sorted(installed - set(listed))
    assert not missing, (
        f"{source} has checks that _catalogue.py does not know: {missing}. Call or port them, or "
        "say there why they are not meaningful; then set WRITTEN_FOR"
    )
    version = importlib.metadata.version(source)
    if parse_version(version) >= parse_version(book.WRITTEN_FOR[source]):
        gone = sorted(set(listed) - installed)
        assert not gone, f"{source} {version} no longer has {gone}: take them out of _catalogue.py"


def test_every_entry_says_what_became_of_the_check():
    for entry in book.catalogue():
        assert entry.what in {"called", "ported", "not meaningful", "own"}
        assert bool(entry.ports) == (entry.what == "ported")
        assert bool(entry.reason) == (entry.what in {"not meaningful", "own"}) or entry.ports
    for source, differences in book.DIFFERENCES.items():
        assert set(differences) <= set(book.PORTED[source])


def test_ports_exist_and_run():
    run = {
        check.func.__name__
        for estimator in [*ESTIMATORS, *SOUND]
        for _, check in estimator_checks_generator(estimator)
    }
    ports = {port for entry in book.catalogue() for port in entry.ports}
    assert ports <= run | set(suite.__all__)
    assert set(own_checks()) <= run
    assert set(CALLED) <= run | {"check_outlier_contamination"}
    assert run <= set(own_checks()) | set(CALLED)


def test_every_check_is_documented_in_a_line():
    for name, check in own_checks().items():
        assert re.fullmatch(r".{20,110}\.", inspect.getdoc(check)), name


@pytest.fixture(scope="module")
def make_contract():
    path = DOCS / "make_contract.py"
    if not path.exists():
        pytest.skip("the documentation is not at hand")
    spec = importlib.util.spec_from_file_location("make_contract", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_what_the_catalogue_makes(make_contract):
    committed = make_contract.PAGE.read_text(encoding="utf-8")
    assert committed == make_contract.render(), "run python docs/make_contract.py"


def test_example_of_the_page_runs(make_contract):
    (code,) = re.findall(r"```python\n(.*?)```", make_contract.render(), flags=re.DOTALL)
    names = {"GreyLevels": GreyLevels}
    exec(code, names)
    (mark,) = names["test_contract"].pytestmark
    assert len(mark.args[1]) >= 45
    included = re.search(r"\{literalinclude\} (\S+)", make_contract.render())[1]
    assert (DOCS / included).resolve() == Path(inspect.getfile(GreyLevels)).resolve()
