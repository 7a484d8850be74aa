"""From images of any size to labels and probabilities."""
