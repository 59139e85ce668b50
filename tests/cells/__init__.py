"""Cells that run on apps and servers of a few lines: verdicts, blame, runs that are stopped, cases made again."""
