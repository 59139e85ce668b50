"""The plain WSGI compat app: PEP 3333 and the standard library, with no framework."""

from wsgiapp.routes import router

app = router

__all__ = ["app"]
