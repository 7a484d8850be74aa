"""What tests read off a figure."""

import numpy as np


def shown(panel):
    """Values of the picture in a panel."""
    return np.asarray(panel.images[0].get_array())
