"""The experiments of the student report, each as one call, at one budget of seconds.

    python benchmarks/accuracy/report.py DATA.npz [--seconds 300] [--seeds 3] [--only ROW ...]
    python benchmarks/accuracy/report.py --table [--seconds 300]

Rows 1 to 5 are the report's Table 1, each with what the one before has. The control is a second
phase of the same length in which nothing is frozen. What the defaults do beyond the report is off:
patches, class weights, moving averages and changes of the light. Runs go to
`results/report_<seconds>.jsonl`; those that are there are not repeated.
"""

from protocol import run_table

PLAIN = {"patch_size": 1, "class_weight": None, "augmentation": None, "ema_decay": None}
BARE = {"depth": 3, "attention": False, "aspp": False}
FULL = {"depth": 3}
CONFIGURATIONS = {
    "2 blocks": {**BARE, "depth": 2},
    "3 blocks": BARE,
    "+ ASPP": {**BARE, "aspp": True},
    "+ attention": FULL,
    "+ fine tuning, encoder frozen": {**FULL, "freeze": "encoder"},
    "control: fine tuning, nothing frozen": {
        **FULL,
        "then": {"learning_rate": 2e-4, "time_share": 0.2},
    },
    "4 blocks": {"depth": 4},
    "weighted cross entropy": {"class_weight": "sqrt"},
    "focal": {"loss": "focal"},
    "Dice": {"loss": "dice"},
    "boundary": {"loss": "cross_entropy+boundary"},
    "focal + Dice": {"loss": "focal+dice"},
    "plateau": {"scheduler": "plateau"},
    "skips added": {"skip": "add"},
    "skips fused": {"skip": "fusion"},
    "plain blocks": {"block": "plain"},
    "no dropout": {"dropout": 0.0},
    "dropout 0.5": {"dropout": 0.5},
}


if __name__ == "__main__":
    run_table("report", CONFIGURATIONS, settings=PLAIN, baseline="+ attention")
