"""Views that do what applications do in the wild: fork, start pools, stream files, leave work for the exit.

The plain app mounts each at ``/behaviour/<name>``. A view takes what it needs from the query string and answers with
what it saw. What a server has to keep is written in ``tests/contract/test_application_behaviour.py``. No process that
a view starts outlives ``CHILD_SECONDS``, whatever the server makes of it.
"""

from wsgiapp.behaviour import files, patches, processes, threads
from wsgiapp.behaviour.registry import BEHAVIOURS

__all__ = ["BEHAVIOURS", "files", "patches", "processes", "threads"]
