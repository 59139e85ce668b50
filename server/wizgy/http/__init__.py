"""HTTP/1 as pure functions: bytes in, values out. Nothing here does input or output, or knows of WSGI."""
