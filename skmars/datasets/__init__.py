"""Data sets: generated Martian terrain, and loaders for data of one's own."""

from skmars.datasets._an2dl import load_an2dl, save_submission
from skmars.datasets._folder import load_image_folder
from skmars.datasets._terrain import make_terrain

__all__ = ["load_an2dl", "load_image_folder", "make_terrain", "save_submission"]
