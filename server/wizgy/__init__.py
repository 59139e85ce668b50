"""wizgy: a pure-Python WSGI server.

::

    import wizgy

    wizgy.serve(application, bind="127.0.0.1:8888", threads=8)      # as the wizgy command does

    with wizgy.make_server(("127.0.0.1", 0), application) as server:   # in this process, in any thread
        print(server.server_address)
        server.serve_forever()
"""

import os
import sys


def _leave_out_current_folder() -> None:
    """Take the folder away that ``python -m wizgy`` has put first, as long as wizgy imports its own modules.

    A file of the application may have the name of one of the standard library's. `wizgy.loader` puts the folder back.
    """
    is_command = sys.argv[:1] == ["-m"] and "wizgy" in sys.orig_argv[-len(sys.argv)]
    try:
        if is_command and sys.path[:1] == [os.getcwd()]:
            del sys.path[0]
    except FileNotFoundError:
        pass  # it has been removed, so there is nothing in it


_leave_out_current_folder()

from wizgy.server import Server, make_server, serve  # noqa: E402

__all__ = ["Server", "__version__", "make_server", "serve"]

__version__ = "0.1.0"
