"""What the tests share: the frameworks of `matrix.toml`, a server process, and the target."""
