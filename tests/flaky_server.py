"""A web server on this machine that fails as it is told to."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(files):
    """A server of `files`, a dict of path to bytes, in a thread that ends with the block."""
    server = Server(files)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Server(ThreadingHTTPServer):
    """Serves `files`, keeps a list of `requests`, and does what `faults[path]` says, in turn.

    A fault is a status, "wrong" (one byte changed), "shifted" (another range than asked for),
    "page" (another document), a number of bytes after which the connection is cut, or a pair of
    that number and an event that is awaited before the cut.
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.requests, self.ranges = files, {}, [], True
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server, span = self.server, self.headers.get("Range")
        server.requests.append((self.path, span))
        faults = server.faults.get(self.path)
        fault = faults.pop(0) if faults else None
        content = server.files.get(self.path)
        if content is None or (isinstance(fault, int) and 400 <= fault < 600):
            self.send_error(fault or 404)
            return
        if fault == "page":
            content = b"<html>Please log in"
        elif fault == "wrong":
            content = content[:-1] + bytes([content[-1] ^ 1])
        whole = fault == "page" or not server.ranges
        begin = 0 if whole or not span else int(span.removeprefix("bytes=").rstrip("-"))
        if begin >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        if begin:
            begin -= fault == "shifted"
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        n_bytes, event = fault if isinstance(fault, tuple) else (fault, None)
        self.wfile.write(content[begin:][: n_bytes if isinstance(n_bytes, int) else None])
        self.wfile.flush()
        if event is not None:
            event.wait(30)
