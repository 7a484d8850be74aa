"""Data sets: generated Martian terrain, real panoramas, and loaders for data of one's own."""

from skmars.datasets._an2dl import load_an2dl, save_submission
from skmars.datasets._folder import load_image_folder
from skmars.datasets._marsscapes import fetch_marsscapes
from skmars.datasets._terrain import make_terrain

__all__ = [
    "fetch_marsscapes",
    "load_an2dl",
    "load_image_folder",
    "make_terrain",
    "save_submission",
]
