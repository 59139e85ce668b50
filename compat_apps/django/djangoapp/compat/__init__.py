"""A Django app with the routes that every compat app has, and one model."""
