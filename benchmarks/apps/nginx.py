"""Serve one folder with nginx, one worker, by a configuration of its own: `nginx.py HOST PORT FOLDER`.

It needs no rights: everything that nginx writes goes to the temporary folder that `TMPDIR` names.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {temporary}/nginx.pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    default_type application/octet-stream;
    client_body_temp_path {temporary}/body;
    proxy_temp_path {temporary}/proxy;
    fastcgi_temp_path {temporary}/fastcgi;
    uwsgi_temp_path {temporary}/uwsgi;
    scgi_temp_path {temporary}/scgi;
    server {{
        listen {host}:{port};
        location = /file {{ alias {folder}/mebibyte.bin; }}
    }}
}}
"""


def find_nginx() -> str | None:
    """Return where nginx is; on Debian it is not on a user's PATH."""
    return shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))


if __name__ == "__main__":
    host, port, folder = sys.argv[1:]
    program = find_nginx()
    if program is None:
        sys.exit("nginx is not installed: apt-get install nginx-light")
    temporary = tempfile.gettempdir()
    path = Path(temporary, "nginx.conf")
    path.write_text(CONFIGURATION.format(host=host, port=port, folder=folder, temporary=temporary), encoding="utf-8")
    os.execv(program, [program, "-e", "stderr", "-p", temporary, "-c", str(path)])
