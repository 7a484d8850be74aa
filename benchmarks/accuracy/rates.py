"""How the learning rate falls, and over how many steps the weights are averaged.

    python benchmarks/accuracy/rates.py DATA.npz [--seeds 3] [--only ROW ...]
    python benchmarks/accuracy/rates.py --table

The first row is of the defaults, at 40 epochs unless a row says otherwise. Averages of the first
steps are shorter than `ema_decay` says: over a tenth of the steps so far. Runs go to
`results/rates.jsonl`; those that are there are not repeated.
"""

from protocol import run_table

CONSTANT = {"scheduler": None, "ema_decay": 0.999}
LONG = {"max_epochs": 120}
CONFIGURATIONS = {
    "cosine": {},
    "cosine down to a fifth, average of 0.999": {
        "scheduler_params": {"final": 0.2},
        "ema_decay": 0.999,
    },
    "constant, average of 0.999": CONSTANT,
    "... learning rate 4e-3": {**CONSTANT, "learning_rate": 4e-3},
    "... weight decay 0.1": {**CONSTANT, "weight_decay": 0.1},
    "... weight decay 0.3": {**CONSTANT, "weight_decay": 0.3},
    "120 epochs, cosine": LONG,
    "120 epochs, constant, average of 0.999": {**LONG, **CONSTANT},
}

if __name__ == "__main__":
    settings = {"dropout": 0.1, "n_threads": 1, "precision": "bfloat16"}
    run_table("rates", CONFIGURATIONS, settings=settings, baseline="cosine", epochs=40)
