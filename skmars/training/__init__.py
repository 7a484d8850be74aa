"""One training run: from hyperparameters to a net and a plan, and through its epochs."""
