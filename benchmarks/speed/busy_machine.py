"""Training throughput beside another busy process, for three ways in which threads wait.

GNU OpenMP reads how long a thread spins before it sleeps when it is loaded, so each setting runs
in a process of its own, once on the machine as it is and once beside an endless loop.

    python benchmarks/speed/busy_machine.py
"""

import os
import subprocess
import sys

SETTINGS = {
    "default": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
}

N_IMAGES = 96


def measure() -> None:
    """Print the images a second of the faster of two epochs."""
    from skmars import MarsSegmenter
    from skmars.datasets import make_terrain

    X, y = make_terrain(N_IMAGES, random_state=0)
    y[0, :8, :8] = 4
    segmenter = MarsSegmenter(max_epochs=2, validation_fraction=None, precision="bfloat16")
    seconds = [row["seconds"] for row in segmenter.fit(X, y).history_]
    print(N_IMAGES / min(seconds))


def images_per_second(setting: dict[str, str]) -> float:
    """Run `measure` in a new process."""
    command = [sys.executable, __file__, "--measure"]
    output = subprocess.run(
        command, env={**os.environ, **setting}, check=True, capture_output=True, text=True
    )
    return float(output.stdout)


def main() -> None:
    if "--measure" in sys.argv:
        measure()
        return
    print("images/s                   as it is  beside a loop  ratio", flush=True)
    for name, setting in SETTINGS.items():
        alone = images_per_second(setting)
        loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            beside = images_per_second(setting)
        finally:
            loop.kill()
            loop.wait()
        print(f"{name:25s}  {alone:8.1f}  {beside:13.1f}  {beside / alone:5.2f}", flush=True)


if __name__ == "__main__":
    main()
