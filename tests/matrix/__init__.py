"""The matrix itself: its manifest, its environments, its cells and verdicts, on small apps and servers of its own."""
