"""The command line: `skmars demo|fit|tune|outliers|predict|score|report|export|info`.

Thin: it reads arguments and files, and calls the package. Nothing outside the standard library is
imported until a command is named that has the parameters of an estimator, or another one runs, so
that `skmars --help` answers at once.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

from skmars import __version__
from skmars.cli import commands

__all__ = ["main"]

# What the package raises for wrong input; anything else is a bug, and shows its traceback.
ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError)

# In a RuntimeError of torch, by device and system.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")

DATA_HELP = "npz file in the layout of the AN2DL challenge"
MODEL_HELP = "file that fit has saved"

# What an Augmenter needs only as a step of a Pipeline.
PIPELINE_ONLY = ("n_copies", "ignore_label")

# Objects, which a shell has none of, and what has an option of another kind.
NOT_OF_SEARCH = ("estimator", "space", "scoring", "study_name", "refit", "random_state", "verbose")
NOT_OF_REMOVER = ("detector", "segmenter", "random_state")

PREDICTING = ("predict", "score", "report")

# Hyperparameters that another prediction can have than the training.
OF_PREDICTION = ("batch_size", "tta", "window", "overlap", "device", "precision", "n_threads")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are exceptions, so that all errors are told in one way."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str):
        raise ValueError(message)

    def _match_arguments_partial(self, actions, arg_strings_pattern):
        counts = super()._match_arguments_partial(actions, arg_strings_pattern)
        # An argument that may be missing can still come, after an option ("O").
        while "O" in arg_strings_pattern and counts and counts[-1] == 0:
            counts.pop()
        return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, default=None
        Arguments; by default those of the process.

    Returns
    -------
    status : int
        0, 2 after an error, 130 after Ctrl-C, 141 if nobody reads the output any more.
    """
    # Before torch is loaded: OpenMP threads that wait for each other busily come nearly to a
    # standstill beside any other busy process.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    argv = sys.argv[1:] if argv is None else list(argv)
    command = argv[0] if argv else None
    try:
        args = _make_parser(command).parse_args(argv)
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has what it wanted, as `head` has. What is left would be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ERRORS as error:
        print(f"skmars: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        print(f"skmars: error: out of memory{_way_out(command)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("skmars: interrupted", file=sys.stderr)
        return 130
    return 0


def _print_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Print a warning as errors are, without the line of code that nobody at a shell asked for."""
    print(f"skmars: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)


def _way_out(command: str | None) -> str:
    """How a command needs less memory."""
    if command in PREDICTING:
        return ": give --window, which predicts large images in parts, or a smaller --batch-size"
    return ": give a smaller --batch-size" if command in {"fit", "tune"} else ""


def _make_parser(command: str | None) -> argparse.ArgumentParser:
    """Make the parser, with parameters of estimators only for the command that is to run."""
    parser = _Parser(prog="skmars", description="Semantic segmentation, made for Martian terrain.")
    parser.add_argument("--version", action="version", version=f"skmars {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run, text: str) -> argparse.ArgumentParser:
        added = subparsers.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    _add_demo(add("demo", commands.demo, "train on generated terrain or a file, score, and draw"))

    fit = add("fit", commands.fit, "train a model")
    _add_pairs(fit, grouped=True)
    fit.add_argument("--output", required=True, metavar="MODEL", help="file to save the model to")
    if command == "fit":
        _add_hyperparameters(fit)

    tune = add("tune", commands.tune, "search for the best hyperparameters, and train a model")
    _add_pairs(tune, grouped=True)
    if command == "tune":
        _add_search(tune)
        _add_hyperparameters(tune, fixed=True)

    outliers = add("outliers", commands.outliers, "list images that do not belong in the data")
    if command == "outliers":
        _add_outliers(outliers)

    _add_predict(add("predict", commands.predict, "predict masks"))

    score = add("score", commands.score, "IoU of a model's masks")
    score.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    _add_pairs(score)

    report = add("report", commands.report, "write what a model is and does as one HTML file")
    report.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    _add_pairs(report)
    report.add_argument("--output", required=True, metavar="FILE.html", help="file to write")

    if command in PREDICTING:
        _add_prediction(subparsers.choices[command])

    export = add("export", commands.export, "write a model as an ONNX file")
    export.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    export.add_argument("output", metavar="FILE.onnx", help="file to write")

    info = add("info", commands.info, "versions and hardware, or what a model is")
    info.add_argument("model", nargs="?", metavar="MODEL", help=MODEL_HELP)
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="?", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--output", default="demo", metavar="DIR", help="default: demo")
    parser.add_argument(
        "--time-limit", type=float, metavar="SECONDS", help="default: 240, for a file 285"
    )
    parser.add_argument("--random-state", type=int, default=0, metavar="N", help="default: 0")


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("data", metavar="DATA", help=f"folder of images, or {DATA_HELP}")
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="submission.csv, masks.npz, or a folder for one PNG file an image",
    )
    there = parser.add_mutually_exclusive_group()
    there.add_argument(
        "--overwrite", action="store_true", help="replace masks that are in the folder already"
    )
    there.add_argument(
        "--resume",
        action="store_true",
        help="go on with a folder: keep the masks that are in it, predict the other images",
    )


def _add_pairs(parser: argparse.ArgumentParser, *, grouped: bool = False) -> None:
    parser.add_argument("data", nargs="?", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--images", metavar="DIR", help="folder of images, instead of DATA")
    parser.add_argument("--masks", metavar="DIR", help="folder of masks of the same names")
    if grouped:
        parser.add_argument(
            "--group-pattern",
            metavar="REGEX",
            help="what in the names of images tells which belong together, such as '^[^_]+' or "
            "'(.+)_'; these are not split between training and validation",
        )


def _add_search(parser: argparse.ArgumentParser) -> None:
    from skmars.cli.options import add_parameters
    from skmars.tuning import SegmenterSearchCV

    add = parser.add_argument
    add("--study", "--study-name", metavar="NAME", help="default: skmars; needs --storage")
    add(
        "--resume",
        action="store_true",
        help="go on with the study, or begin it if there is "
        "none: the same command can run on any number of machines at the same time",
    )
    add(
        "--scoring",
        metavar="NAME[,NAME]",
        help="what to make best, such as "
        "iou_4, boundary_f1, or mean_iou,n_parameters for both; default: mean IoU",
    )
    add("--outliers", action="store_true", help="search also for how to remove outliers")
    add(
        "--outliers-ignore-label",
        type=int,
        metavar="N",
        help="label of pixels that were not annotated, for the removal of outliers",
    )
    add(
        "--random-state",
        type=int,
        default=0,
        metavar="N",
        help="of the search, the folds and each training; default: 0",
    )
    add("--quiet", action="store_true", help="no progress bar")
    add(
        "--output",
        metavar="MODEL",
        help="file to save the best model to, trained on all images; default: none is trained",
    )
    text = "with --timeout, the default of --trials is none"
    group = parser.add_argument_group("search", text)
    names = {"n_trials": ("--trials", "--n-trials"), "n_workers": ("--workers", "--n-workers")}
    add_parameters(group, SegmenterSearchCV, leave_out=NOT_OF_SEARCH, names=names)


def _add_outliers(parser: argparse.ArgumentParser) -> None:
    from skmars.cli.options import add_parameters
    from skmars.outliers import OutlierRemover

    add = parser.add_argument
    add("data", metavar="DATA", help=DATA_HELP)
    add("--random-state", type=int, default=0, metavar="N", help="default: 0")
    add(
        "--output",
        metavar="FILE",
        help="outliers.csv with their places, scores and reasons, or "
        "clean.npz with all other images",
    )
    add("--picture", metavar="FILE", help="sheet.png that shows the clearest ones")
    add_parameters(parser, OutlierRemover, leave_out=NOT_OF_REMOVER)


def _add_prediction(parser: argparse.ArgumentParser) -> None:
    from skmars.cli.options import add_parameters
    from skmars.segmenter import MarsSegmenter

    text = "by default as the model was saved; the defaults below are those of training"
    group = parser.add_argument_group("prediction", text)
    add_parameters(group, MarsSegmenter, only=OF_PREDICTION)


def _add_hyperparameters(parser: argparse.ArgumentParser, *, fixed: bool = False) -> None:
    from skmars.augmentation import Augmenter
    from skmars.cli.options import add_parameters
    from skmars.segmenter import MarsSegmenter

    # Callbacks are objects, which a shell has none of.
    text = "those given are not searched" if fixed else None
    group = parser.add_argument_group("hyperparameters", text)
    # A search has one seed for everything.
    leave_out = ("callbacks", *(("random_state",) if fixed else ()))
    add_parameters(group, MarsSegmenter, leave_out=leave_out)
    text = "any of these replaces the default by an Augmenter of these, and of horizontal flips"
    text += ", which is not searched" if fixed else ""
    group = parser.add_argument_group("augmentation", text)
    add_parameters(group, Augmenter, prefix="augmentation__", leave_out=PIPELINE_ONLY)
