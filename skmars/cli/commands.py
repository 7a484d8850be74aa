"""What each command of the command line does.

Nothing outside the standard library is imported before a command runs.
"""

import argparse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skmars import __version__
from skmars.cli.files import check_output, load_model, load_pairs, write_outliers
from skmars.cli.masks import (
    check_can_hold,
    check_not_replaced,
    kind_of_output,
    load_images,
    write_file,
    write_folder,
)

if TYPE_CHECKING:
    from sklearn.utils import Bunch

__all__ = ["demo", "export", "fit", "info", "outliers", "predict", "report", "score", "tune"]

# More are not told one by one, and many more are hardly meant to be classes.
MANY_LABELS, TOO_MANY_LABELS = 12, 50


def demo(args: argparse.Namespace) -> None:
    """Train on generated terrain or a file, score, and draw pictures."""
    from skmars.cli.demo import run_demo

    run_demo(args.data, args.output, time_limit=args.time_limit, random_state=args.random_state)


def fit(args: argparse.Namespace) -> None:
    """Train a model."""
    from skmars.segmenter import MarsSegmenter

    output = check_output("--output", args.output, args.data)
    params = _hyperparameters(args)
    data = load_pairs(args)
    _print_labels(data.target, params.get("ignore_label"))
    segmenter = MarsSegmenter(**params).fit(data.images, data.target, groups=data.groups)
    segmenter.save(output)
    iou = segmenter.history_[segmenter.best_epoch_].get("valid_mean_iou")
    print("no validation" if iou is None else f"validation mean IoU  {iou:.4f}")
    print(f"saved to             {output}")


def _print_labels(masks: Any, ignore_label: int | None) -> None:
    """Tell what is trained on, before hours of training on other masks than were meant."""
    from skmars._validation import labelled_classes
    from skmars.model_selection import class_counts

    labels = labelled_classes(masks, ignore_label)
    if len(labels) > MANY_LABELS:
        told = f"{len(labels)} of them: {', '.join(map(str, labels[:MANY_LABELS]))}, ..."
    else:
        counts = class_counts(masks, labels).sum(axis=0)
        percent = 100 * counts / counts.sum()
        told = ", ".join(f"{name}: {p:.3g} %" for name, p in zip(labels, percent, strict=True))
    print(f"labels               {told}", flush=True)
    if len(labels) > TOO_MANY_LABELS:
        warnings.warn(
            f"the masks have {len(labels)} labels, and each becomes a class: are these the right "
            "masks?",
            stacklevel=2,
        )


def _hyperparameters(args: argparse.Namespace) -> dict[str, Any]:
    """Parameters of the segmenter that were given as options."""
    from skmars.augmentation import Augmenter
    from skmars.cli.options import chosen_parameters
    from skmars.segmenter import MarsSegmenter

    params = chosen_parameters(vars(args), MarsSegmenter)
    augmentation = chosen_parameters(vars(args), Augmenter, prefix="augmentation__")
    if augmentation and "augmentation" in params:
        raise ValueError("--augmentation cannot be given together with options of its own")
    if augmentation:
        params["augmentation"] = Augmenter(**augmentation)
    return params


def tune(args: argparse.Namespace) -> None:
    """Search for the best hyperparameters, and train a model with them."""
    from sklearn.exceptions import FitFailedWarning

    output = None if args.output is None else check_output("--output", args.output, args.data)
    search = _make_search(args, refit=output is not None)
    data = load_pairs(args)
    if search.storage is not None and not args.resume:
        _check_is_new(search)
    # How many failed, and why the last one, is printed at the end.
    warnings.simplefilter("ignore", FitFailedWarning)
    with _study_errors():
        search.fit(data.images, data.target, groups=data.groups)
    if output is not None:
        best = search.best_estimator_
        # Only training data go through the steps before it.
        (best.named_steps["segment"] if args.outliers else best).save(output)
    _print_search(search)
    if output is not None:
        print(f"saved to    {output}")


def _make_search(args: argparse.Namespace, *, refit: bool) -> Any:
    """The search that the options ask for, checked before any image is read."""
    from skmars.cli.options import chosen_parameters
    from skmars.tuning import SegmenterSearchCV, default_space

    estimator, fixed = _searched(args)
    params = chosen_parameters(vars(args), SegmenterSearchCV)
    if params.get("storage") is None:
        for option in ("resume", "study"):
            if getattr(args, option):
                raise ValueError(f"--{option} needs the --storage that has the study")
    if params.get("timeout") is not None:
        params.setdefault("n_trials", None)
    if args.scoring is not None:
        names = [name.strip() for name in args.scoring.split(",")]
        params["scoring"] = names if len(names) > 1 else names[0]
    params["study_name"] = args.study or "skmars"
    params["verbose"] = 0 if args.quiet else 1
    space = default_space(estimator, fixed=fixed)
    search = SegmenterSearchCV(estimator, space, refit=refit, **params)
    search._validate_params()
    return search


def _searched(args: argparse.Namespace) -> tuple[Any, list[str]]:
    """The estimator whose hyperparameters are searched, and names of those that are given."""
    from skmars.outliers import OutlierRemover
    from skmars.pipeline import make_pipeline
    from skmars.segmenter import MarsSegmenter

    params = _hyperparameters(args)
    segmenter = MarsSegmenter(**params)
    if not args.outliers:
        if args.outliers_ignore_label is not None:
            raise ValueError("--outliers-ignore-label needs --outliers")
        return segmenter, list(params)
    remover = OutlierRemover(
        ignore_label=args.outliers_ignore_label, random_state=args.random_state
    )
    pipeline = make_pipeline(outliers=remover, segment=segmenter)
    return pipeline, [f"segment__{name}" for name in params]


@contextmanager
def _study_errors() -> Iterator[None]:
    """Tell of a storage that fails as of a file that fails."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError) as error:
        raise OSError(f"the storage of the study has failed: {error}") from error


def _check_is_new(search: Any) -> None:
    from optuna.study import get_all_study_names

    from skmars.tuning.storages import open_storage

    with _study_errors():
        storage = open_storage(search.storage, n_workers=search.n_workers)
        if search.study_name in get_all_study_names(storage):
            raise ValueError(
                f"the storage already has a study {search.study_name!r}: give --resume to go on "
                "with it, or another --study"
            )


def _print_search(search: Any) -> None:
    # By default it is the segmenter's own score.
    scoring = search.scoring or "mean_iou"
    objectives = [scoring] if isinstance(scoring, str) else scoring
    results = search.cv_results_
    number = results["trial_number"][search.best_index_]
    print(f"best {objectives[0]}  {search.best_score_:.4f} (trial {number})")
    width = max(map(len, search.best_params_), default=0)
    for name, value in search.best_params_.items():
        print(f"  {name:<{width}}  {value!r}")
    if len(objectives) > 1:
        print(f"front       {'trial':>5}  {objectives[0]}  {objectives[1]}")
        for row in search.pareto_front_:
            values = [
                f"{results[f'mean_test_{objective}'][row]:>{len(objective)}.6g}"
                for objective in objectives
            ]
            print(f"            {results['trial_number'][row]:>5}  {'  '.join(values)}")
    states = list(results["state"])
    counts = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
    told = ", ".join(f"{states.count(state)} {what}" for what, state in counts.items())
    print(f"trials      {told}")
    errors = [error for error in results["error"] if error]
    if errors:
        print(f"last error  {' '.join(errors[-1].split())}")


def outliers(args: argparse.Namespace) -> None:
    """List the images that have no place in a training set, and write those that have."""
    from skmars.cli.options import chosen_parameters
    from skmars.datasets import load_an2dl
    from skmars.datasets._an2dl import find_image_arrays, write_subset
    from skmars.outliers import OutlierRemover

    output = None if args.output is None else check_output("--output", args.output, args.data)
    if output is not None and output.suffix.lower() not in {".csv", ".npz"}:
        raise ValueError(f"--output must end in .csv or .npz; got {output}")
    if output is not None and output.suffix.lower() == ".npz":
        # What cannot be written should show before the search.
        find_image_arrays(args.data)
    if args.picture is not None:
        _check_picture(args.picture)
    data: Any = load_an2dl(args.data)
    remover = OutlierRemover(**chosen_parameters(vars(args), OutlierRemover))
    remover.fit(data.images, data.target)
    rows = remover.outlier_mask_.nonzero()[0]
    width = len(str(len(data.images) - 1))
    for row in rows:
        print(f"{row:>{width}}  {remover.reasons_[row]}")
    print(f"{len(rows)} outliers of {len(data.images)} images of {args.data}")
    if args.picture is not None:
        _draw_outliers(remover, data, args.picture)
        print(f"picture   {args.picture}")
    if output is not None:
        if output.suffix.lower() == ".csv":
            write_outliers(remover, output)
        else:
            write_subset(args.data, remover.sample_indices_, output)
        print(f"saved to  {output}")


def _check_picture(path: str) -> None:
    from skmars.inspection._figures import require_matplotlib

    require_matplotlib("--picture")
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = sorted(FigureCanvasBase.filetypes)
    if check_output("--picture", path).suffix.lower().lstrip(".") not in kinds:
        raise ValueError(f"--picture must end in one of {', '.join(kinds)}; got {path}")


def _draw_outliers(remover: Any, data: "Bunch", path: str) -> None:
    import matplotlib.pyplot as plt

    from skmars.inspection import OutlierDisplay

    display = OutlierDisplay.from_estimator(remover, data.images, data.target)
    display.figure_.savefig(path, dpi=120)
    plt.close(display.figure_)


def predict(args: argparse.Namespace) -> None:
    """Predict masks."""
    output, data = Path(args.output), Path(args.data)
    kind = kind_of_output(output, data, args.model)
    if args.resume and kind != "folder":
        raise ValueError("--resume needs a folder as --output")
    done_in = output if args.resume else None
    names, parts, what = load_images(data, whole=kind != "folder", done_in=done_in)
    if kind == "folder" and not args.overwrite:
        check_not_replaced(output, names)
    segmenter = _load_to_predict(args)
    check_can_hold(kind, segmenter.classes_)
    masks = map(segmenter.predict, parts)
    if kind == "folder":
        write_folder(chain.from_iterable(masks), names, output, segmenter.classes_)
    else:
        write_file(next(masks), output)
    print(f"predicted {what} of {args.data}; saved to {args.output}")


def _load_to_predict(args: argparse.Namespace) -> Any:
    """The model, with the parameters of prediction that were given as options."""
    from skmars.cli.options import chosen_parameters
    from skmars.segmenter import MarsSegmenter

    return load_model(args.model, chosen_parameters(vars(args), MarsSegmenter))


def score(args: argparse.Namespace) -> None:
    """Print the IoU of each class."""
    from skmars.inspection import class_names, iou_table
    from skmars.metrics import iou_per_class

    segmenter, images, target, names, what = _model_and_masks(args)
    labels, ignored = segmenter.classes_, segmenter.ignore_label
    iou = iou_per_class(target, segmenter.predict(images), labels=labels, ignore_label=ignored)
    left_out = "" if ignored is None else f"; pixels labelled {ignored} are left out"
    print(f"{what}{left_out}\n")
    print(iou_table({"IoU": iou}, class_names(labels, names)))


def report(args: argparse.Namespace) -> None:
    """Write what a model is and does as one HTML file."""
    from skmars.inspection import write_report

    output = check_output("--output", args.output, args.model, args.data)
    segmenter, images, target, names, what = _model_and_masks(args)
    write_report(
        output, segmenter, images, target, target_names=names, title=f"{args.model}, {what}"
    )
    print(f"{what}; report saved to {args.output}")


def _model_and_masks(args: argparse.Namespace) -> tuple[Any, Any, Any, Any, str]:
    """The model, images and masks to score it on, names of their labels, and what they are."""
    from skmars._validation import check_labels

    data = load_pairs(args)
    images, target, what = data.images, data.target, "training images"
    if data.get("test_target") is not None:
        images, target, what = data.test_images, data.test_target, "test images"
    elif args.data is None:
        what = "images"
    segmenter = _load_to_predict(args)
    check_labels(target, segmenter.classes_, segmenter.ignore_label)
    what = f"{len(images)} {what} of {args.data or args.images}"
    # The names are of labels 0, 1, 2, ..., which those of another model need not be.
    names = data.target_names
    if names is not None and not set(segmenter.classes_) <= set(range(len(names))):
        names = None
    return segmenter, images, target, names, what


def export(args: argparse.Namespace) -> None:
    """Write a model as an ONNX file."""
    output = check_output("FILE.onnx", args.output, args.model)
    segmenter = load_model(args.model)
    if not hasattr(segmenter, "export_onnx"):
        raise ValueError(f"{args.model} is an ensemble, of which only members can be exported")
    segmenter.export_onnx(output)
    print(f"{args.model} exported to {args.output}")


def info(args: argparse.Namespace) -> None:
    """Print versions and hardware, or what a model is."""
    facts = _model_facts(args.model) if args.model else _system_facts()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")


def _system_facts() -> dict[str, Any]:
    import platform

    import sklearn
    import skorch
    import torch

    from skmars.device import choose_arithmetic, choose_device

    device = choose_device("auto")
    arithmetic = choose_arithmetic(device, "auto")
    return {
        "skmars": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "skorch": skorch.__version__,
        "device": device,
        "precision": arithmetic.precision,
        "layout": "channels last" if arithmetic.channels_last else "channels first",
        "threads": torch.get_num_threads(),
    }


def _model_facts(path: str) -> dict[str, Any]:
    from skmars._fitted import changed_parameters

    segmenter = load_model(path)
    facts = {
        "model": path,
        **{name: repr(value) for name, value in changed_parameters(segmenter).items()},
        "classes": ", ".join(map(str, segmenter.classes_.tolist())),
        "channels": segmenter.n_channels_in_,
    }
    if not hasattr(segmenter, "history_"):
        return facts
    kept = segmenter.best_epoch_
    iou = segmenter.history_[kept].get("valid_mean_iou")
    return {
        **facts,
        "parameters": f"{segmenter.n_parameters_:,}",
        "kept epoch": f"{kept + 1} of {segmenter.n_iter_}",
        "validation mean IoU": "no validation" if iou is None else f"{iou:.4f}",
    }
