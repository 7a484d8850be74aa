"""What it costs to import the package, beside torch and scikit-learn, and to ask for help.

python benchmarks/speed/imports.py [--rounds 7]

Each in a process of its own, in turns; medians, after a rehearsal that fills the disk's cache.
"""

import argparse
import subprocess
import sys
from statistics import median

from contestants import seconds_of

COMMANDS = {
    "import torch, sklearn.base, sklearn.utils": [
        "-c",
        "import torch, sklearn.base, sklearn.utils",
    ],
    "import skmars": ["-c", "import skmars"],
    "from skmars import MarsSegmenter": ["-c", "from skmars import MarsSegmenter"],
    "skmars --help": ["-c", "from skmars.cli import main; main()", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(args.rounds + 1):
        for name, words in COMMANDS.items():
            command = [sys.executable, *words]
            value = seconds_of(
                lambda command=command: subprocess.run(command, check=True, capture_output=True)
            )
            if number:
                seconds[name].append(value)
    first = next(iter(seconds.values()))
    print("| | seconds | of the first |\n|---|---|---|")
    for name, values in seconds.items():
        ratio = median(own / base for own, base in zip(values, first, strict=True))
        print(f"| {name} | {median(values):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
