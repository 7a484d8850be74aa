"""Write a file for the benchmarks from the public MarsScapes panoramas, which are downloaded.

    python benchmarks/accuracy/make_data.py DATA.npz

In AN2DL's layout, with the sol of each tile. Training tiles overlap by half, test tiles do not.
"""

import sys

import numpy as np

from skmars.datasets import fetch_marsscapes


def main(path: str) -> None:
    train = fetch_marsscapes(subset="train", overlap=0.5)
    test = fetch_marsscapes(subset="test")
    np.savez_compressed(
        path,
        training_set=np.stack([train.images, train.target], axis=1),
        training_sol=train.groups,
        test_set=test.images,
        test_masks=test.target,
        test_sol=test.groups,
    )
    print(f"{len(train.images)} training and {len(test.images)} test tiles written to {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
