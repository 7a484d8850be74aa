"""The command line of skmars."""

from skmars.cli.parser import main

__all__ = ["main"]
