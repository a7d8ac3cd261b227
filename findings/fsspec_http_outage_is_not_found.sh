#!/usr/bin/env bash
# Package:   fsspec 2026.9.0, HTTPFileSystem
# Behaviour: info(), size(), open() and isfile() say of every failure that the file is not there: of a
#            server error, of a lack of rights and of a server that nobody runs. exists() says False.
#            cat_file() of the same address raises what happened.
# Seen:      500, 403 and a closed port: FileNotFoundError with the address alone, exists() False;
#            cat_file(): ClientResponseError 500 and 403, ClientConnectorError. S3 by s3fs: a 403 is a
#            PermissionError, a 500 an OSError.
# Hurts:     what tries again after errors of the network, and gives up at FileNotFoundError, gives up
#            at the first 500 of a server. "if not fs.exists(url): leave it out" makes a data set
#            shorter for as long as a server is down, without a word.
# Way out:   error.__cause__, which is aiohttp's; its status is 404 where the file is not there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check fsspec==2026.9.0 aiohttp==3.14.5

cat > see.py <<'PYTHON'
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec


class Failing(BaseHTTPRequestHandler):
    """Answers with the status that is in the path."""

    def do_GET(self):
        self.send_response(int(self.path[1:]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Failing)
threading.Thread(target=server.serve_forever, daemon=True).start()
with socket.create_server(("127.0.0.1", 0)) as free:
    closed = free.getsockname()[1]
here = f"http://127.0.0.1:{server.server_port}"
addresses = {
    "404": f"{here}/404",
    "403": f"{here}/403",
    "500": f"{here}/500",
    "closed": f"http://127.0.0.1:{closed}/file",
}
files = fsspec.filesystem("http")


def outcome(call, address):
    try:
        return call(address)
    except Exception as error:
        cause = type(error.__cause__).__name__
        return f"{type(error).__name__} of {cause}" if error.__cause__ else type(error).__name__


seen = {
    name: [
        outcome(call, address)
        for call in (files.info, files.open, files.exists, files.isfile, files.cat_file)
    ]
    for name, address in addresses.items()
}
for name, row in seen.items():
    print(f"{name:6} {row}")
for name, cause in (
    ("404", "ClientResponseError"),
    ("403", "ClientResponseError"),
    ("500", "ClientResponseError"),
    ("closed", "ClientConnectorError"),
):
    missing = f"FileNotFoundError of {cause}"
    assert seen[name][:4] == [missing, missing, False, False], "the behaviour has changed"
    read = "FileNotFoundError" if name == "404" else cause
    assert seen[name][4].partition(" ")[0] == read, "the behaviour has changed"
PYTHON
env/bin/python see.py
