"""Checks that hold segmenters and samplers to scikit-learn's contract.

scikit-learn's own `check_estimator` leaves out nearly all of its checks for estimators of images.
"""

from skmars.utils.estimator_checks._runner import (
    check_sampler,
    check_segmenter,
    estimator_checks_generator,
    parametrize_with_checks,
)

__all__ = [
    "check_sampler",
    "check_segmenter",
    "estimator_checks_generator",
    "parametrize_with_checks",
]
