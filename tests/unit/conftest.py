"""How hypothesis looks for examples here: the same ones each time, and with no time limit for one of them."""

from hypothesis import settings

# A deadline would measure the machine, and not the code.
settings.register_profile("wizgy", deadline=None, derandomize=True)
settings.load_profile("wizgy")
