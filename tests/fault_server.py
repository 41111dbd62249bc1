"""A web server on this machine that answers badly on purpose, and remembers everything it was asked.

``server.serve("/file", content, cut, cut)`` answers two requests half, and every later one honestly;
``then=`` gives the answer to all later ones. An answer is a function of an `Exchange`.
"""

from __future__ import annotations

import email.utils
import gzip as gzip_format
import hashlib
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

LAST_MODIFIED = "Wed, 01 Jan 2025 00:00:00 GMT"

Answer = Callable[["Exchange"], None]
Headers = dict[str, str]


def etag_of(content: bytes) -> str:
    """Return a strong ETag for content."""
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


@dataclass
class Request:
    """What a client asked, and how many bytes of a body were handed to the network in answer."""

    method: str
    path: str
    headers: Headers
    sent: int = 0

    @property
    def range(self) -> str | None:
        """The Range header."""
        return self.headers.get("Range")

    @property
    def if_range(self) -> str | None:
        """The If-Range header."""
        return self.headers.get("If-Range")


@dataclass
class Resource:
    """A byte string under a path; ``answers`` are used up one by one, then ``then`` answers."""

    content: bytes
    answers: list[Answer]
    then: Answer
    etag: str | None
    last_modified: str | None


class Exchange:
    """One request and the means to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler, resource: Resource, request: Request, closing: threading.Event):
        self.handler, self.resource, self.request, self.closing = handler, resource, request, closing

    def honest(self, *, ignore_range: bool = False, ignore_if_range: bool = False) -> tuple[int, Headers, bytes]:
        """Return the status, the headers and the body that the request deserves."""
        resource, content = self.resource, self.resource.content
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if resource.etag:
            headers["ETag"] = resource.etag
        if resource.last_modified:
            headers["Last-Modified"] = resource.last_modified
        wanted = re.fullmatch(r"bytes=(\d+)-", self.request.range or "")
        is_same = self.request.if_range in (None, resource.etag, resource.last_modified)
        if (self.request.if_range or "").startswith("W/"):
            is_same = False
        if wanted is None or ignore_range or not (is_same or ignore_if_range):
            return 200, headers | {"Content-Length": str(len(content))}, content
        start = int(wanted[1])
        if start >= len(content):
            return 416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"}, b""
        body = content[start:]
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return 206, headers | {"Content-Range": span, "Content-Length": str(len(body))}, body

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status line and the headers."""
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name, value)
        if self.handler.close_connection and "Connection" not in headers:
            self.handler.send_header("Connection", "close")
        self.handler.end_headers()

    def body(self, data: bytes) -> None:
        """Send bytes of the body."""
        for start in range(0, len(data), 1 << 16):
            block = data[start : start + (1 << 16)]
            self.handler.wfile.write(block)
            self.request.sent += len(block)

    def hang_up(self) -> None:
        """Close the connection once the answer returns."""
        self.handler.close_connection = True


class FaultServer:
    """Serves on 127.0.0.1 while it is entered; with a certificate, over TLS."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.resources: dict[str, Resource] = {}
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self._turn = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._scheme = "http" if certificate is None else "https"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> FaultServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, path: str) -> str:
        """Return the address of a path."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_address[1]}{path}"

    def serve(
        self,
        path: str,
        content: bytes,
        *answers: Answer,
        then: Answer | None = None,
        etag: str | None = "",
        last_modified: str | None = LAST_MODIFIED,
    ) -> str:
        """Put content under a path and return its address; without an ``etag`` it gets a strong one."""
        etag = etag_of(content) if etag == "" else etag
        self.resources[path] = Resource(content, list(answers), then or good, etag, last_modified)
        return self.url(path)

    def asked(self, path: str) -> list[Request]:
        """Return the requests for a path, in order."""
        return [request for request in self.requests if request.path == path]

    def sent(self, path: str) -> int:
        """Return how many bytes of bodies were sent for a path, once the count stands still.

        A client may have all bytes before the thread that sent them has counted the last ones.
        """
        while True:
            before = sum(request.sent for request in self.asked(path))
            time.sleep(0.05)
            if sum(request.sent for request in self.asked(path)) == before:
                return before

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        request = Request(handler.command, handler.path, dict(handler.headers))
        with self._turn:
            self.requests.append(request)
            resource = self.resources.get(handler.path)
            if resource is None:
                resource = Resource(b"", [], status(404), None, None)
            answer = resource.answers.pop(0) if resource.answers else resource.then
        answer(Exchange(handler, resource, request, self.closing))


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error here."""


def _handler_of(server: FaultServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def do_GET(self) -> None:
            try:
                server.answer(self)
                self.wfile.flush()
            except OSError:  # the client has gone
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
            """Be quiet."""

    return Handler


# Answers.


def good(exchange: Exchange) -> None:
    """Answer honestly."""
    code, headers, body = exchange.honest()
    exchange.head(code, headers)
    exchange.body(body)


def cut(exchange: Exchange) -> None:
    """Announce everything, send half, and close."""
    code, headers, body = exchange.honest()
    exchange.head(code, headers)
    exchange.body(body[: len(body) // 2])
    exchange.hang_up()


def cut_no_length(exchange: Exchange) -> None:
    """Send half without having said how much there is, and close."""
    code, headers, body = exchange.honest()
    del headers["Content-Length"]
    exchange.head(code, headers | {"Connection": "close"})
    exchange.body(body[: len(body) // 2])
    exchange.hang_up()


def chunked(exchange: Exchange) -> None:
    """Send everything in chunks, its length untold."""
    _send_chunks(exchange, half=False)


def chunked_cut(exchange: Exchange) -> None:
    """Send half in chunks, and close without the last one."""
    _send_chunks(exchange, half=True)


def _send_chunks(exchange: Exchange, *, half: bool) -> None:
    code, headers, body = exchange.honest()
    del headers["Content-Length"]
    exchange.head(code, headers | {"Transfer-Encoding": "chunked"})
    body = body[: len(body) // 2] if half else body
    for start in range(0, len(body), 50_000):
        block = body[start : start + 50_000]
        exchange.handler.wfile.write(f"{len(block):x}\r\n".encode())
        exchange.body(block)
        exchange.handler.wfile.write(b"\r\n")
    if half:
        exchange.hang_up()
    else:
        exchange.handler.wfile.write(b"0\r\n\r\n")


def stall(exchange: Exchange) -> None:
    """Send half, then nothing, and keep the connection."""
    code, headers, body = exchange.honest()
    exchange.head(code, headers)
    exchange.body(body[: len(body) // 2])
    exchange.closing.wait(30)
    exchange.hang_up()


def silence(exchange: Exchange) -> None:
    """Send nothing at all, and keep the connection."""
    exchange.closing.wait(30)
    exchange.hang_up()


def no_end(exchange: Exchange) -> None:
    """Send everything without having said how much there is, and keep the connection."""
    code, headers, body = exchange.honest()
    del headers["Content-Length"]
    exchange.head(code, headers)
    exchange.body(body)
    exchange.closing.wait(30)
    exchange.hang_up()


def head_by_bytes(interval_s: float = 0.05) -> Answer:
    """Send a header that does not end, a byte at a time."""

    def answer(exchange: Exchange) -> None:
        exchange.handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not exchange.closing.wait(interval_s):
            exchange.handler.wfile.write(b"x")

    return answer


def continue_for_ever(exchange: Exchange) -> None:
    """Say ``100 Continue`` until nobody listens."""
    while not exchange.closing.is_set():
        exchange.handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def continue_once(exchange: Exchange) -> None:
    """Say ``100 Continue``, then answer honestly."""
    exchange.handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    good(exchange)


def chunk_size_by_bytes(exchange: Exchange) -> None:
    """Begin a chunked body with a size that does not end, a byte at a time."""
    exchange.head(200, {"Content-Type": "application/octet-stream", "Transfer-Encoding": "chunked"})
    while not exchange.closing.wait(0.05):
        exchange.handler.wfile.write(b"0")


def trailers_for_ever(exchange: Exchange) -> None:
    """Send all of the body in chunks, and trailers until nobody listens."""
    code, headers, body = exchange.honest()
    del headers["Content-Length"]
    exchange.head(code, headers | {"Transfer-Encoding": "chunked"})
    exchange.handler.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n")
    while not exchange.closing.is_set():
        exchange.handler.wfile.write(b"X-More: x\r\n" * 100)


def hang_up_at_once(exchange: Exchange) -> None:
    """Close the connection without a word."""
    exchange.hang_up()


def no_http(exchange: Exchange) -> None:
    """Answer in another language."""
    exchange.handler.wfile.write(b"220 mail.example ready\r\n")
    exchange.hang_up()


def trickle(block_bytes: int = 1, interval_s: float = 0.02) -> Answer:
    """Send few bytes at a time, with a pause after each."""

    def answer(exchange: Exchange) -> None:
        code, headers, body = exchange.honest()
        exchange.head(code, headers)
        for start in range(0, len(body), block_bytes):
            exchange.body(body[start : start + block_bytes])
            if exchange.closing.wait(interval_s):
                break

    return answer


def oversized(extra: bytes, *, announced: bool) -> Answer:
    """Send more than the file, with or without announcing it."""

    def answer(exchange: Exchange) -> None:
        code, headers, body = exchange.honest()
        del headers["Content-Length"]
        headers |= {"Content-Length": str(len(body) + len(extra))} if announced else {"Connection": "close"}
        exchange.head(code, headers)
        exchange.body(body + extra)
        exchange.hang_up()

    return answer


def endless(exchange: Exchange) -> None:
    """Send chunks until nobody listens."""
    exchange.head(200, {"Content-Type": "application/octet-stream", "Transfer-Encoding": "chunked"})
    while not exchange.closing.is_set():
        exchange.handler.wfile.write(b"10000\r\n")
        exchange.body(bytes(1 << 16))
        exchange.handler.wfile.write(b"\r\n")


def short_length_lie(exchange: Exchange) -> None:
    """Announce half of what is sent."""
    code, headers, body = exchange.honest(ignore_range=True)
    exchange.head(code, headers | {"Content-Length": str(len(body) // 2)})
    exchange.body(body)
    exchange.hang_up()


def wrong(exchange: Exchange) -> None:
    """Send other bytes, as many."""
    code, headers, body = exchange.honest()
    exchange.head(code, headers)
    exchange.body(bytes(byte ^ 0xFF for byte in body))


def flip(exchange: Exchange) -> None:
    """Send one bit wrong."""
    code, headers, body = exchange.honest()
    exchange.head(code, headers)
    middle = len(body) // 2
    exchange.body(body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :])


def status(code: int, **headers: str) -> Answer:
    """Answer with a status and an excuse; ``Retry_After="1"`` becomes a header."""

    def answer(exchange: Exchange) -> None:
        excuse = b"no"
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        exchange.head(code, fields | {"Content-Length": str(len(excuse))})
        exchange.body(excuse)

    return answer


def too_many(wait_s: float, *, as_date: bool = False) -> Answer:
    """Answer 429 and ask to come back later."""

    def answer(exchange: Exchange) -> None:
        value = email.utils.formatdate(time.time() + wait_s, usegmt=True) if as_date else str(round(wait_s))
        status(429, Retry_After=value)(exchange)

    return answer


def no_range(exchange: Exchange) -> None:
    """Send everything, whatever was asked."""
    code, headers, body = exchange.honest(ignore_range=True)
    exchange.head(code, headers)
    exchange.body(body)


def no_range_cut(exchange: Exchange) -> None:
    """Begin from the start, whatever was asked, and send half."""
    code, headers, body = exchange.honest(ignore_range=True)
    exchange.head(code, headers)
    exchange.body(body[: len(body) // 2])
    exchange.hang_up()


def no_if_range(exchange: Exchange) -> None:
    """Send the range asked for, even of a version that the client did not mean."""
    code, headers, body = exchange.honest(ignore_if_range=True)
    exchange.head(code, headers)
    exchange.body(body)


def changed(content: bytes, then: Answer = good) -> Answer:
    """Put other content there, with its own ETag, before answering."""

    def answer(exchange: Exchange) -> None:
        exchange.resource.content, exchange.resource.etag = content, etag_of(content)
        then(exchange)

    return answer


def range_wrong_start(exchange: Exchange) -> None:
    """Answer a range with the bytes from another place, and say so; anything else honestly."""
    code, headers, body = exchange.honest()
    if code == 206:
        content = exchange.resource.content
        start = len(content) - len(body) + 7
        body = content[start:]
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        headers["Content-Length"] = str(len(body))
    exchange.head(code, headers)
    exchange.body(body)


def range_too_long(exchange: Exchange) -> None:
    """Answer a range with more bytes than the rest of the file."""
    code, headers, body = exchange.honest()
    if code == 206:
        body += b"more"
        headers["Content-Length"] = str(len(body))
    exchange.head(code, headers)
    exchange.body(body)


def range_piecewise(block_bytes: int) -> Answer:
    """Answer every request with no more than so many bytes of the file."""

    def answer(exchange: Exchange) -> None:
        _, headers, body = exchange.honest()
        whole = len(exchange.resource.content)
        start = whole - len(body)
        body = body[:block_bytes]
        headers |= {
            "Content-Range": f"bytes {start}-{start + len(body) - 1}/{whole}",
            "Content-Length": str(len(body)),
        }
        exchange.head(206, headers)
        exchange.body(body)

    return answer


def portal(content_type: str = "text/html; charset=utf-8") -> Answer:
    """Answer with a login page."""

    def answer(exchange: Exchange) -> None:
        page = b"<html><body>Please log in.</body></html>"
        exchange.head(200, {"Content-Type": content_type, "Content-Length": str(len(page))})
        exchange.body(page)

    return answer


def gzip(exchange: Exchange) -> None:
    """Send the file compressed, although nobody asked for that."""
    body = gzip_format.compress(exchange.resource.content, 1)
    _, headers, _ = exchange.honest(ignore_range=True)
    exchange.head(200, headers | {"Content-Encoding": "gzip", "Content-Length": str(len(body))})
    exchange.body(body)


def redirect(target: str, code: int = 302) -> Answer:
    """Send the client somewhere else."""

    def answer(exchange: Exchange) -> None:
        exchange.head(code, {"Location": target, "Content-Length": "0"})

    return answer


def with_headers(**fields: str) -> Answer:
    """Answer honestly but for some headers; ``Content_Type="x"`` becomes a header."""

    def answer(exchange: Exchange) -> None:
        code, headers, body = exchange.honest()
        exchange.head(code, headers | {name.replace("_", "-"): value for name, value in fields.items()})
        exchange.body(body)

    return answer


def make_certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1, with its key in the same file, by the openssl command."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    both = folder / "both.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both
