"""wizgy: a pure-Python WSGI server.

::

    import wizgy

    wizgy.serve(application, bind="127.0.0.1:8888", threads=8)      # as the wizgy command does

    with wizgy.make_server(("127.0.0.1", 0), application) as server:   # in this process, in any thread
        print(server.server_address)
        server.serve_forever()
"""

from wizgy.server import Server, make_server, serve

__all__ = ["Server", "__version__", "make_server", "serve"]

__version__ = "0.1.0"
