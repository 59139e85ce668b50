"""What the harness takes from `matrix.toml`; `matrix.manifest` reads it."""

from __future__ import annotations

from matrix.manifest import ROOT, Framework, KnownDeviation, Matrix, MatrixError, Version, load_matrix

__all__ = ["ROOT", "Framework", "KnownDeviation", "Matrix", "MatrixError", "Version", "load_matrix"]
