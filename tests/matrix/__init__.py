"""The matrix itself, with no cell run: its manifest, its environments, what is made from it, its results."""
