import importlib
import inspect
import os
import subprocess
import sys

import pytest

import skmars

PUBLIC = {
    "skmars": {
        "Augmenter",
        "Ensemble",
        "MarsSegmenter",
        "OutlierRemover",
        "__version__",
        "make_pipeline",
    },
    "skmars.inspection": {
        "AttentionDisplay",
        "ConfusionDisplay",
        "HeatMapDisplay",
        "LearningCurveDisplay",
        "MaskDisplay",
        "OutlierDisplay",
        "ReliabilityDisplay",
        "SparsificationDisplay",
        "StudyDisplay",
        "UncertaintyDisplay",
        "class_names",
        "iou_table",
        "write_report",
    },
    "skmars.nn": {
        "ASPP",
        "BLOCKS",
        "FREEZABLE",
        "PATCH_SIZES",
        "SKIPS",
        "AddSkip",
        "AttentionASPPUNet",
        "AttentionGate",
        "ConcatSkip",
        "FusionSkip",
        "PlainBlock",
        "ResidualBlock",
        "fold_batch_norms",
    },
    "skmars.losses": {
        "IGNORE_INDEX",
        "LOSSES",
        "CombinedLoss",
        "boundary_loss",
        "cross_entropy",
        "dice_loss",
        "focal_loss",
        "make_loss",
    },
    "skmars.metrics": {
        "ReliabilityCurve",
        "SegmentationScorer",
        "SparsificationCurve",
        "boundary_f1_score",
        "boundary_f1_scorer",
        "class_iou_scorer",
        "confusion_counts",
        "expected_calibration_error",
        "iou_from_counts",
        "iou_per_class",
        "make_scorers",
        "mean_iou_score",
        "mean_iou_scorer",
        "pixel_accuracy_score",
        "pixel_accuracy_scorer",
        "predictive_entropy",
        "reliability_curve",
        "sparsification_curve",
        "sparsification_error",
        "weighted_iou_score",
        "weighted_iou_scorer",
    },
    "skmars.datasets": {
        "fetch_marsscapes",
        "load_an2dl",
        "load_image_folder",
        "make_terrain",
        "save_submission",
    },
    "skmars.schedules": {
        "SCHEDULERS",
        "ConstantRate",
        "CosineDecay",
        "ReduceOnPlateau",
        "Schedule",
        "make_schedule",
    },
    "skmars.model_selection": {
        "SegmentationKFold",
        "class_counts",
        "holdout_split",
        "train_val_test_split",
    },
    "skmars.pipeline": {"SegmentationPipeline", "make_pipeline"},
    "skmars.tuning": {
        "PruningCallback",
        "SegmenterSearchCV",
        "default_space",
        "open_storage",
        "suggest_params",
    },
    "skmars.utils.estimator_checks": {
        "check_sampler",
        "check_segmenter",
        "estimator_checks_generator",
        "parametrize_with_checks",
    },
}

PARAMETERS = [
    "depth",
    "base_channels",
    "patch_size",
    "block",
    "skip",
    "attention",
    "aspp",
    "dilation_rates",
    "dropout",
    "loss",
    "loss_params",
    "class_weight",
    "max_class_weight",
    "ignore_label",
    "learning_rate",
    "weight_decay",
    "batch_size",
    "max_epochs",
    "ema_decay",
    "scheduler",
    "scheduler_params",
    "time_limit",
    "validation_fraction",
    "early_stopping",
    "patience",
    "calibration",
    "freeze",
    "fine_tune_epochs",
    "fine_tune_learning_rate",
    "augmentation",
    "tta",
    "window",
    "overlap",
    "device",
    "precision",
    "compile",
    "n_threads",
    "warm_start",
    "random_state",
    "verbose",
    "callbacks",
]

METHODS = {
    "fit": ["X", "y", "sample_weight", "groups", "validation_data"],
    "partial_fit": ["X", "y", "classes", "sample_weight"],
    "predict": ["X"],
    "predict_proba": ["X"],
    "predict_large": [
        "source",
        "target",
        "nodata",
        "nodata_label",
        "uncertainty",
        "checkpoint",
        "progress",
    ],
    "score": ["X", "y", "sample_weight"],
    "save": ["path"],
    "load": ["path"],
    "export_onnx": ["path"],
}

SUBMODULES = """
import skmars
print(skmars.metrics.mean_iou_score.__name__)
"""


def test_submodules_come_with_the_package():
    result = subprocess.run([sys.executable, "-c", SUBMODULES], capture_output=True, text=True)
    assert result.stdout == "mean_iou_score\n", result.stderr


# What only some users have, and what costs seconds to import.
NOT_IMPORTED = {"matplotlib", "optuna", "PIL", "imblearn", "torch._dynamo", "torch._inductor"}


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_these(module):
    names = importlib.import_module(module).__all__
    assert set(names) == PUBLIC[module]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_exist_and_are_documented(module):
    imported = importlib.import_module(module)
    assert imported.__doc__
    for name in imported.__all__:
        value = getattr(imported, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name


def test_package_lists_its_names_and_no_others():
    modules = set(dir(skmars)) - PUBLIC["skmars"]
    assert PUBLIC["skmars"] <= set(dir(skmars))
    assert {name.split(".")[1] for name in PUBLIC if "." in name} <= modules
    assert all(inspect.ismodule(getattr(skmars, name)) for name in modules)
    with pytest.raises(AttributeError, match="unheard_of"):
        _ = skmars.unheard_of


def test_hyperparameters_are_these():
    assert list(inspect.signature(skmars.MarsSegmenter).parameters) == PARAMETERS


@pytest.mark.parametrize("method", METHODS)
def test_methods_have_these_arguments(method):
    signature = inspect.signature(getattr(skmars.MarsSegmenter(), method))
    assert list(signature.parameters) == METHODS[method]
    assert getattr(skmars.MarsSegmenter, method).__doc__


def test_every_parameter_and_attribute_is_documented(terrain, fast):
    text = inspect.getdoc(skmars.MarsSegmenter)
    for name in PARAMETERS:
        assert f"\n{name} : " in text, name
    fitted = vars(skmars.MarsSegmenter(**fast).fit(*terrain))
    attributes = text.split("Attributes\n")[1].split("See Also")[0].replace(",", " ").split()
    for name in fitted:
        if name.endswith("_") and not name.startswith("_"):
            assert name in attributes, name


def imported_by(statement):
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    # The environment of a user, not one that an earlier test has changed.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_of_the_package_is_light():
    modules = imported_by("import skmars")
    assert "skmars" in modules
    assert not modules & {*NOT_IMPORTED, "torch", "sklearn", "skorch", "numpy", "scipy"}


def test_import_of_the_segmenter_brings_no_extras():
    modules = imported_by("import skmars, skmars.segmenter, skmars.nn, skmars.datasets")
    assert {"torch", "skmars.segmenter", "skmars.datasets"} <= modules
    assert not modules & NOT_IMPORTED


def test_name_of_the_package_gives_the_class_of_the_module():
    from skmars.segmenter import MarsSegmenter

    assert skmars.MarsSegmenter is MarsSegmenter
