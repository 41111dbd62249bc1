"""One file over HTTP: resumed where it broke off, bounded in size and time, hashed while it streams.

The bytes go to a ``.part`` file that outlives the process; beside it a small JSON file remembers which version of
which address it belongs to, so that a later call continues it. Whether the whole is right is for the caller to
decide, by the sha256.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from resnet_zoo.base.files import writing_to
from resnet_zoo.base.progress import Progress
from resnet_zoo.base.shown import shown, shown_address
from resnet_zoo.base.strict_json import parse
from resnet_zoo.base.waiting import REPORTED_AFTER_S, report_wait, reported
from resnet_zoo.errors import DownloadError

if TYPE_CHECKING:
    import requests

_BLOCK_BYTES = 1 << 18
_MAX_REDIRECTS = 10
_MAX_DIGITS = 20
_HEADER_TEXT = re.compile(r"[\x21-\x7e][\x20-\x7e]*")
_RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, and how often to try again.

    Attributes:
        connect_s: For a connection.
        read_s: For the next bytes.
        head_s: For the whole head of an answer, its headers.
        window_s: Of this length every stretch of a transfer must bring ``window_bytes``, or it counts as stalled.
        window_bytes: See ``window_s``.
        attempts: Requests in a row that may fail before the source is given up; the count begins again with every
            ``window_bytes`` more than there ever were.
        backoff_s: Wait after the first failure; doubled after each, up to ``max_wait_s``, less a random part.
        max_wait_s: Longest wait, also where a server asks for more (``Retry-After``).
    """

    connect_s: float = 10.0
    read_s: float = 30.0
    window_s: float = 60.0
    window_bytes: int = 1 << 16
    head_s: float = 60.0
    attempts: int = 5
    backoff_s: float = 0.5
    max_wait_s: float = 60.0


@dataclass(frozen=True)
class Fetched:
    """A complete transfer.

    Attributes:
        sha256: Of the bytes that are there.
        size_bytes: How many these are.
        resumed_bytes: How many of them were there before this call.
        has_end: Whether the server said where the file ends. If not, it may have been cut short, and another call
            continues it.
    """

    sha256: str
    size_bytes: int
    resumed_bytes: int
    has_end: bool = True


class _AgainError(Exception):
    """This request failed; another may not."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class _FinalError(Exception):
    """No further request to this address will do better."""


def fetch(
    url: str,
    part: Path,
    *,
    max_bytes: int,
    exact: bool = False,
    patience: Patience = Patience(),
    progress: Progress | None = None,
) -> Fetched:
    """Bring the file at an address into ``part``, continuing what is there.

    Args:
        url: An http or https address. A redirect from https to anything else is refused.
        part: Where the bytes go; its folder exists. Left in place on failure, to be continued.
        max_bytes: The transfer is stopped as soon as it is known to be larger.
        exact: The file has exactly ``max_bytes``.
        patience: Time limits and retries.
        progress: Called as bytes arrive.

    Raises:
        DownloadError: The address did not deliver, with what it said.
        OSError: The bytes cannot be written.
    """
    from resnet_zoo.weights.deadlines import session_with_deadline

    transfer = _Transfer(url, part, max_bytes, exact=exact, patience=patience, progress=progress)
    try:
        with session_with_deadline(patience.head_s) as session:
            return transfer.run(session)
    except _FinalError as error:  # without its cause: requests quotes the whole address, with what signs it
        raise DownloadError({shown_address(url): str(error)}) from None


class _Transfer:
    """The state of one fetch: how many bytes are there, and their running hash."""

    def __init__(
        self, url: str, part: Path, max_bytes: int, *, exact: bool, patience: Patience, progress: Progress | None
    ) -> None:
        self.url, self.part, self.max_bytes, self.exact = url, part, max_bytes, exact
        self.patience, self.progress = patience, progress
        self.note = part.with_name(part.name + ".json")
        self.validator = self._remembered_validator()
        self.digest = hashlib.sha256()
        self.have = 0
        self.resumed_bytes = 0
        self.has_end = True
        self.heard_at = time.monotonic()
        if self.part.exists():
            self._hash_what_is_there()
            self.resumed_bytes = self.have
        if self.have > max_bytes:
            self._forget()

    def run(self, session: requests.Session) -> Fetched:
        """Request until the file is complete."""
        fruitless, mark = 0, self.have
        while not self._is_whole():
            try:
                self._request(session)
                break
            except _AgainError as error:
                if self._is_whole():
                    break
                fruitless += 1
                if self.have >= mark + self.patience.window_bytes:
                    fruitless, mark = 0, self.have
                if fruitless >= self.patience.attempts:
                    raise _FinalError(f"{error} ({fruitless} times in a row)") from error
                wait_s = self._wait_s(fruitless, error.wait_s)
                if time.monotonic() - self.heard_at + wait_s > REPORTED_AFTER_S:
                    report_wait(f"{shown_address(self.url)} failed ({error}). Trying again in {wait_s:.0f} s.")
                time.sleep(wait_s)
        return Fetched(self.digest.hexdigest(), self.have, self.resumed_bytes, self.has_end)

    def _is_whole(self) -> bool:
        """Tell whether all is there, as far as that is known without asking."""
        return self.exact and self.part.exists() and self.have == self.max_bytes

    def _wait_s(self, fruitless: int, asked_s: float | None) -> float:
        longest = self.patience.max_wait_s
        if asked_s is not None:
            return min(asked_s, longest)
        backoff = self.patience.backoff_s * 2.0 ** max(0, fruitless - 1)
        jitter: float = random.uniform(0.5, 1.0)  # noqa: S311  # no secret
        return min(backoff, longest) * jitter

    def _request(self, session: requests.Session) -> None:
        """Make one request and take in what it brings."""
        from resnet_zoo.weights.deadlines import shut_down_if

        headers = {"Accept-Encoding": "identity", "Connection": "close"}
        if self.have:
            headers["Range"] = f"bytes={self.have}-"
            if self.validator:
                headers["If-Range"] = self.validator
        with _network_errors(), _followed(session, self.url, headers, self.patience) as response:
            total = self._begin(response)
            if response.status_code != 416:
                self.heard_at = time.monotonic()
                with shut_down_if(lambda: time.monotonic() - self.heard_at > self.patience.window_s, response):
                    self._take_in(response, total)

    def _begin(self, response: requests.Response) -> int | None:
        """Read the answer's head; go back to zero where the server does. Return the size of the whole, if told."""
        if response.status_code == 416:
            total: int | None = self._end_point(response)
        elif response.status_code in (200, 206):
            _refuse_other_content(response)
            total = self._resume_point(response) if response.status_code == 206 else self._start_over(response)
        else:
            reason = f"the server answered HTTP {response.status_code} {shown(response.reason or '')}".rstrip()
            if response.status_code in _RETRIED_STATUSES:
                raise _AgainError(reason, _retry_after_s(response))
            raise _FinalError(reason)
        if total is not None and (total > self.max_bytes or (self.exact and total != self.max_bytes)):
            size = f"{self.max_bytes}" if self.exact else f"at most {self.max_bytes}"
            raise _FinalError(f"the file has {total} bytes; expected {size}")
        return total

    def _end_point(self, response: requests.Response) -> int:
        """Take an answer that nothing follows: either all is there, or what is there is worthless."""
        if self.have and response.headers.get("Content-Range") == f"bytes */{self.have}":
            return self.have
        self._forget()
        raise _AgainError("the server no longer has the rest of the file (HTTP 416)", wait_s=0)

    def _resume_point(self, response: requests.Response) -> int | None:
        """Check that a partial answer continues what is there; return the size of the whole."""
        unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
        span, _, whole = rest.partition("/")
        start = span.partition("-")[0]
        if unit != "bytes" or start != str(self.have) or _changed(self.validator, _validator(response)):
            self._forget()
            raise _AgainError("the file changed on the server", wait_s=0)
        return _whole_number(whole)

    def _start_over(self, response: requests.Response) -> int | None:
        """Take a complete answer: what was there before is dropped."""
        self._forget()
        self.validator = _validator(response)
        note = {"url": shown_address(self.url), "validator": self.validator}
        with writing_to(self.note):
            self.note.write_text(json.dumps(note), encoding="utf-8")
        return _whole_number(response.headers.get("Content-Length", ""))

    def _take_in(self, response: requests.Response, total: int | None) -> None:
        """Append the body to the part, hashing it, until it ends."""
        limit = self.max_bytes if total is None else total
        self.has_end = total is not None or "Transfer-Encoding" in response.headers
        window_start, window_have = time.monotonic(), self.have
        with writing_to(self.part), self.part.open("ab") as file:
            while block := _read(response):
                if self.have + len(block) > limit:
                    self._forget()
                    raise _FinalError(f"the server sent more than the {limit} bytes expected")
                file.write(block)
                self.digest.update(block)
                self.have += len(block)
                self.heard_at = time.monotonic()
                if self.progress:
                    self.progress(self.have, total or 0)
                if time.monotonic() - window_start > self.patience.window_s:
                    if self.have - window_have < self.patience.window_bytes and self.have != total:
                        raise _AgainError(f"the transfer stalled at {self.have} bytes")
                    window_start, window_have = time.monotonic(), self.have
        if total is not None and self.have < total:
            raise _AgainError(f"the connection ended after {self.have} of {total} bytes")
        if self.exact and self.have < self.max_bytes:
            raise _AgainError(f"the file ended after {self.have} of {self.max_bytes} bytes")

    def _hash_what_is_there(self) -> None:
        with self.part.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                self.digest.update(block)
                self.have += len(block)

    def _remembered_validator(self) -> str | None:
        try:
            note = parse(self.note.read_text(encoding="utf-8"))
            validator = note["validator"] if note["url"] == shown_address(self.url) else None
            return validator if isinstance(validator, str) and _HEADER_TEXT.fullmatch(validator) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.digest, self.have, self.resumed_bytes, self.validator = hashlib.sha256(), 0, 0, None


@contextlib.contextmanager
def _network_errors() -> Iterator[None]:
    """Turn what requests and urllib3 raise into errors that say whether to try again."""
    import requests
    import urllib3

    try:
        yield
    except (requests.exceptions.InvalidURL, requests.exceptions.SSLError, requests.exceptions.ProxyError) as error:
        proxy = "the proxy does not connect: " if isinstance(error, requests.exceptions.ProxyError) else ""
        raise _FinalError(f"{proxy}{_plain(error)}") from error
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise _AgainError("the server did not answer in time") from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        unresolved = _unresolved_name(error)
        if unresolved is not None:
            raise _FinalError(f"the name {unresolved} does not resolve") from error
        raise _AgainError(f"the connection failed ({_plain(error)})") from error


def _unresolved_name(error: BaseException) -> str | None:
    """Return the host name that could not be looked up, if that is what is wrong: asking again does not help."""
    import urllib3

    reason = getattr(error.args[0], "reason", None) if error.args else None
    if not isinstance(reason, urllib3.exceptions.NameResolutionError):
        return None
    return str(getattr(reason.conn, "host", "of the server"))


@contextlib.contextmanager
def _followed(
    session: requests.Session, url: str, headers: dict[str, str], patience: Patience
) -> Iterator[requests.Response]:
    """Follow redirects by hand, so that none leads from https to anything else."""
    for _ in range(_MAX_REDIRECTS + 1):
        response, target = _ask(session, url, headers, patience)
        if target is None:
            with response:
                yield response
            return
        response.close()
        if urlsplit(target).scheme != "https" and urlsplit(url).scheme == "https":
            raise _FinalError(f"the server redirects to {shown(target)}, which is not https")
        if urlsplit(target).scheme not in ("http", "https"):
            raise _FinalError(f"the server redirects to {shown(target)}, which is not a web address")
        url = target
    raise _FinalError(f"the server redirects more than {_MAX_REDIRECTS} times")


def _ask(
    session: requests.Session, url: str, headers: dict[str, str], patience: Patience
) -> tuple[requests.Response, str | None]:
    """Make one request; return the answer and, if it is a redirect, the address it leads to."""
    import requests

    timeout = (patience.connect_s, patience.read_s)
    try:
        with reported(f"Waiting for {shown_address(url)} to answer."):
            response = session.get(url, headers=headers, timeout=timeout, stream=True, allow_redirects=False)
        target = session.get_redirect_target(response)
        return response, None if target is None else urljoin(url, target)
    except requests.RequestException:
        raise
    except ValueError as error:  # requests reads the address, too, although it is not to follow it
        raise _FinalError(f"the server redirects to an address that cannot be read ({shown(error)})") from error


def _refuse_other_content(response: requests.Response) -> None:
    """Refuse a body that is not the file's own bytes."""
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise _FinalError("the server sent a web page instead of the file (a login or portal page?)")
    encoding = response.headers.get("Content-Encoding") or "identity"
    if encoding.lower() != "identity":
        raise _FinalError(f"the server sent the file {shown(encoding)}-encoded")


def _read(response: requests.Response) -> bytes:
    """Return the next bytes of the body as soon as there are any; urllib3 before 2.2 waits for a whole block."""
    read: Callable[[int], bytes] = getattr(response.raw, "read1", response.raw.read)
    return read(_BLOCK_BYTES)


def _validator(response: requests.Response) -> str | None:
    """Return what identifies this version of the file: a strong ETag, else the date of its last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _changed(before: str | None, now: str | None) -> bool:
    return before is not None and now is not None and before != now


def _retry_after_s(response: requests.Response) -> float | None:
    """Return the seconds of a ``Retry-After`` header, which may also be a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _whole_number(text: str) -> int | None:
    """Return the number that a header gives, ``None`` where it gives none."""
    return int(text) if text.isdecimal() and len(text) < _MAX_DIGITS else None


def _plain(error: Any) -> str:
    """Return the innermost reason of a network error, without the objects that it quotes and without secrets."""
    while isinstance(inner := getattr(error, "reason", None) or (error.args or [None])[-1], Exception):
        error = inner
    text = re.sub(r"^\w+\(host=[^()]*\): ", "", " ".join(str(error).split()))
    return shown(text.rsplit(": ", 1)[-1] if "object at 0x" in text else text or type(error).__name__)
