"""The command line: `skmars demo|fit|predict|score|info`.

Thin: it reads arguments and files, and calls the package. Nothing outside the standard library is
imported before a command runs, so that `skmars --help` answers at once.
"""

import argparse
import ast
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skmars import __version__

if TYPE_CHECKING:
    import numpy as np
    from sklearn.utils import Bunch

__all__ = ["main"]

# What the package raises for wrong input; anything else is a bug, and shows its traceback.
ERRORS = (ValueError, TypeError, OSError, ImportError, FloatingPointError)

DATA_HELP = "npz file in the layout of the AN2DL challenge"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are exceptions, so that all errors are told in one way."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str):
        raise ValueError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, default=None
        Arguments; by default those of the process.

    Returns
    -------
    status : int
        0, 2 after an error, 130 after Ctrl-C.
    """
    # Before torch is loaded: OpenMP threads that wait for each other busily come nearly to a
    # standstill beside any other busy process.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        args = _make_parser(with_hyperparameters=argv[:1] == ["fit"]).parse_args(argv)
        args.run(args)
    except ERRORS as error:
        print(f"skmars: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("skmars: interrupted", file=sys.stderr)
        return 130
    return 0


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _make_parser(*, with_hyperparameters: bool) -> argparse.ArgumentParser:
    parser = _Parser(prog="skmars", description="Semantic segmentation, made for Martian terrain.")
    parser.add_argument("--version", action="version", version=f"skmars {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    demo = add("demo", _demo, "train on generated terrain or a file, score, and draw pictures")
    demo.add_argument("data", nargs="?", metavar="DATA", help=DATA_HELP)
    demo.add_argument("--output", default="demo", metavar="DIR", help="default: demo")
    demo.add_argument(
        "--time-limit", type=float, metavar="SECONDS", help="default: 240, for a file 285"
    )
    demo.add_argument("--random-state", type=int, default=0, metavar="N", help="default: 0")

    fit = add("fit", _fit, "train a model")
    _add_pairs(fit)
    fit.add_argument("--output", required=True, metavar="MODEL", help="file to save the model to")
    if with_hyperparameters:
        _add_hyperparameters(fit)

    predict = add("predict", _predict, "predict masks")
    predict.add_argument("model", metavar="MODEL", help="file that fit has saved")
    predict.add_argument("data", metavar="DATA", help=f"folder of images, or {DATA_HELP}")
    predict.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="submission.csv, masks.npz, or a folder for one PNG file an image",
    )

    score = add("score", _score, "IoU of a model's masks")
    score.add_argument("model", metavar="MODEL", help="file that fit has saved")
    _add_pairs(score)

    info = add("info", _info, "versions and hardware, or what a model is")
    info.add_argument("model", nargs="?", metavar="MODEL", help="file that fit has saved")
    return parser


def _add_pairs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="?", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--images", metavar="DIR", help="folder of images, instead of DATA")
    parser.add_argument("--masks", metavar="DIR", help="folder of masks of the same names")


def _hyperparameters() -> dict[str, inspect.Parameter]:
    from skmars.segmenter import MarsSegmenter

    parameters = dict(inspect.signature(MarsSegmenter).parameters)
    del parameters["callbacks"]  # Objects, which a shell has none of.
    return parameters


def _add_hyperparameters(parser: argparse.ArgumentParser) -> None:
    """Add an option for each parameter of the segmenter, with its docstring as the help."""
    from skmars.segmenter import MarsSegmenter

    texts = _parameter_texts(inspect.getdoc(MarsSegmenter) or "")
    group = parser.add_argument_group("hyperparameters")
    for name, parameter in _hyperparameters().items():
        default = parameter.default
        text = texts.get(name, f"(default={default!r})").replace("%", "%%")
        option = "--" + name.replace("_", "-")
        how: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": text}
        if name == "verbose":
            group.add_argument("-v", option, action="count", **how)
        elif isinstance(default, bool):
            group.add_argument(option, action=argparse.BooleanOptionalAction, **how)
        else:
            read = _read_tuple if isinstance(default, tuple) else _read_value
            group.add_argument(option, type=read, metavar="VALUE", **how)


def _parameter_texts(doc: str) -> dict[str, str]:
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
    return {name: text.replace("`", "") for name, text in texts.items()}


def _read_value(text: str) -> Any:
    """A number, None, a dict and so on as Python writes them; anything else is a string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _read_tuple(text: str) -> Any:
    value = _read_value(text)
    return (value,) if isinstance(value, int) else value


def _demo(args: argparse.Namespace) -> None:
    from skmars.demo import run_demo

    run_demo(args.data, args.output, time_limit=args.time_limit, random_state=args.random_state)


def _fit(args: argparse.Namespace) -> None:
    from skmars.segmenter import MarsSegmenter

    output = Path(args.output)
    # Not after hours of training.
    if output.is_dir() or not output.parent.is_dir():
        raise ValueError(f"--output must be a file in a folder that exists; got {args.output}")
    given = vars(args)
    params = {name: given[name] for name in _hyperparameters() if name in given}
    data = _load_pairs(args)
    segmenter = MarsSegmenter(**params).fit(data.images, data.target, groups=data.groups)
    segmenter.save(output)
    iou = segmenter.history_[segmenter.best_epoch_].get("valid_mean_iou")
    print("no validation" if iou is None else f"validation mean IoU  {iou:.4f}")
    print(f"saved to             {output}")


def _predict(args: argparse.Namespace) -> None:
    from skmars.segmenter import MarsSegmenter

    write = _choose_writer(Path(args.output), Path(args.data))
    images, names, what = _load_images(Path(args.data))
    masks = MarsSegmenter.load(args.model).predict(images)
    write(masks, names)
    print(f"predicted {what} of {args.data}; saved to {args.output}")


def _score(args: argparse.Namespace) -> None:
    from skmars._validation import check_labels
    from skmars.inspection import class_names, iou_table
    from skmars.metrics import iou_per_class
    from skmars.segmenter import MarsSegmenter

    data = _load_pairs(args)
    images, target, what = data.images, data.target, "training images"
    if data.get("test_target") is not None:
        images, target, what = data.test_images, data.test_target, "test images"
    elif args.data is None:
        what = "images"
    segmenter = MarsSegmenter.load(args.model)
    labels, ignored = segmenter.classes_, segmenter.ignore_label
    check_labels(target, labels, ignored)
    iou = iou_per_class(target, segmenter.predict(images), labels=labels, ignore_label=ignored)
    left_out = "" if ignored is None else f"; pixels labelled {ignored} are left out"
    print(f"{len(images)} {what} of {args.data or args.images}{left_out}\n")
    print(iou_table({"IoU": iou}, class_names(labels, data.target_names)))


def _info(args: argparse.Namespace) -> None:
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
    from skmars.segmenter import MarsSegmenter

    segmenter = MarsSegmenter.load(path)
    defaults = MarsSegmenter().get_params(deep=False)
    best = segmenter.best_epoch_
    iou = segmenter.history_[best].get("valid_mean_iou")
    return {
        "model": path,
        **{
            name: repr(value)
            for name, value in segmenter.get_params(deep=False).items()
            if value != defaults[name]
        },
        "classes": ", ".join(map(str, segmenter.classes_.tolist())),
        "channels": segmenter.n_channels_in_,
        "parameters": f"{segmenter.n_parameters_:,}",
        "best epoch": f"{best + 1} of {segmenter.n_iter_}",
        "validation mean IoU": "no validation" if iou is None else f"{iou:.4f}",
    }


def _load_pairs(args: argparse.Namespace) -> "Bunch":
    """Images and masks of an npz file or of two folders."""
    from skmars.datasets import load_an2dl, load_image_folder

    folders = [folder for folder in (args.images, args.masks) if folder is not None]
    if args.data is not None and not folders:
        return load_an2dl(args.data)
    if args.data is None and len(folders) == 2:
        return load_image_folder(args.images, args.masks)
    raise ValueError("give either DATA, or both --images and --masks")


def _load_images(path: Path) -> tuple[Any, list[str], str]:
    """Images to predict, their names, and what they are."""
    from skmars.datasets import load_an2dl, load_image_folder

    data: Any
    if path.is_dir():
        data = load_image_folder(path)
        names = [Path(name).stem for name in data.filenames]
        return data.images, names, f"{len(names)} images"
    data = load_an2dl(path)
    images, what = data.images, "training images"
    if data.test_images is not None:
        images, what = data.test_images, "test images"
    digits = len(str(len(images) - 1))
    return images, [f"{i:0{digits}}" for i in range(len(images))], f"{len(images)} {what}"


def _choose_writer(output: Path, data: Path):
    """The function of `(masks, names)` that writes what the name of the output says."""
    suffix = output.suffix.lower()
    if output.is_dir() or not suffix:
        if output.exists() and output.samefile(data):
            raise ValueError(f"--output must be another folder than that of the images: {data}")
        return lambda masks, names: _write_folder(masks, names, output)
    if suffix not in {".csv", ".npz"}:
        raise ValueError(f"--output must end in .csv or .npz, or be a folder; got {output}")
    if not output.parent.is_dir():
        raise ValueError(f"there is no folder {output.parent} to write to")
    return lambda masks, names: _write_file(masks, output)


def _write_file(masks: Any, path: Path) -> None:
    import numpy as np

    from skmars.datasets import save_submission

    if isinstance(masks, list):
        raise ValueError(f"images of different sizes need a folder as --output, not {path}")
    if path.suffix.lower() == ".csv":
        save_submission(masks, path)
    else:
        with open(path, "wb") as file:
            np.savez_compressed(file, masks=masks)


def _write_folder(masks: Sequence["np.ndarray"], names: Sequence[str], folder: Path) -> None:
    import numpy as np
    from PIL import Image

    low, high = min(mask.min() for mask in masks), max(mask.max() for mask in masks)
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise ValueError(f"PNG files hold labels from 0 to 65535; got {low} to {high}")
    folder.mkdir(parents=True, exist_ok=True)
    dtype = np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16
    for mask, name in zip(masks, names, strict=True):
        Image.fromarray(mask.astype(dtype)).save(folder / f"{name}.png")
