"""The report of the matrix in a real browser: `tox -e browser`."""
