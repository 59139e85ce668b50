"""The compatibility matrix: every server under every framework version and Python, as `matrix.toml` names them."""
