"""The images and the compose services, with a real Docker engine."""
