"""``python -m wizgy`` is the same as the ``wizgy`` command."""

from wizgy.cli import main

main()
