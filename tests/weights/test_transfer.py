"""Transfers: every fault of a network is survived or named, against a real server that makes it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import urllib3

from resnet_zoo.base.progress import Progress
from resnet_zoo.errors import DownloadError
from resnet_zoo.weights import transfer
from resnet_zoo.weights.transfer import Fetched, Patience, fetch
from tests import fault_server
from tests.fault_server import (
    LAST_MODIFIED,
    Answer,
    Exchange,
    FaultServer,
    changed,
    chunked,
    chunked_cut,
    cut,
    cut_no_length,
    endless,
    etag_of,
    flip,
    good,
    gzip,
    hang_up_at_once,
    make_certificate,
    no_end,
    no_http,
    no_if_range,
    no_range,
    no_range_cut,
    oversized,
    portal,
    range_piecewise,
    range_too_long,
    range_wrong_start,
    redirect,
    short_length_lie,
    silence,
    stall,
    status,
    too_many,
    trickle,
    with_headers,
    wrong,
)

SIZE = 1_000_000
DATA = random.Random(0).randbytes(SIZE)
OTHER = random.Random(1).randbytes(SIZE)

QUICK = Patience(connect_s=5, read_s=5, window_s=5, window_bytes=1000, attempts=3, backoff_s=0.001, max_wait_s=5)
"""For servers that answer at once, well or badly."""

IMPATIENT = replace(QUICK, read_s=0.3, window_s=0.3)
"""For servers that do not."""

RETRIED = (408, 425, 429, 500, 502, 503, 504)
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.part"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command")
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def bring(
    url: str,
    part: Path,
    *,
    max_bytes: int = SIZE,
    exact: bool = True,
    patience: Patience = QUICK,
    progress: Progress | None = None,
) -> Fetched:
    return fetch(url, part, max_bytes=max_bytes, exact=exact, patience=patience, progress=progress)


def refusal(
    url: str, part: Path, *, max_bytes: int = SIZE, exact: bool = True, patience: Patience = QUICK, says: str
) -> None:
    """Check that the address fails, and that the error names the address and the reason."""
    with pytest.raises(DownloadError) as caught:
        bring(url, part, max_bytes=max_bytes, exact=exact, patience=patience)
    assert list(caught.value.attempts) == [url]
    assert says in caught.value.attempts[url]
    assert url in str(caught.value)
    assert "object at 0x" not in str(caught.value)


def assert_is(result: Fetched, part: Path, content: bytes) -> None:
    """Check that the file and what is said of it are right."""
    assert part.read_bytes() == content
    assert (result.sha256, result.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))


HASTY = replace(QUICK, head_s=0.4, window_s=0.4)
"""For servers whose bytes come in time, one by one, and never to an end."""


@pytest.mark.slow
@pytest.mark.parametrize("answer", [fault_server.head_by_bytes(), fault_server.continue_for_ever])
def test_an_answer_that_never_begins_is_given_up(answer: Answer, server: FaultServer, part: Path) -> None:
    start = time.monotonic()
    refusal(server.serve("/file", DATA, then=answer), part, patience=HASTY, says="did not answer in time")
    assert time.monotonic() - start < 6
    assert_is(bring(server.serve("/file", DATA, answer), part, patience=HASTY), part, DATA)


def test_an_answer_may_say_continue_first(server: FaultServer, part: Path) -> None:
    assert_is(bring(server.serve("/file", DATA, then=fault_server.continue_once), part, patience=HASTY), part, DATA)


@pytest.mark.slow
def test_a_chunk_whose_size_never_ends_is_given_up(server: FaultServer, part: Path) -> None:
    url = server.serve("/file", DATA, fault_server.chunk_size_by_bytes)
    assert_is(bring(url, part, patience=HASTY), part, DATA)
    part.unlink()
    refusal(server.serve("/none", OTHER, then=fault_server.chunk_size_by_bytes), part, patience=HASTY, says="in time")
    part.unlink(missing_ok=True)
    url = server.serve("/any", OTHER, then=fault_server.chunk_size_by_bytes)
    refusal(url, part, exact=False, patience=HASTY, says="in time")


@pytest.mark.slow
def test_trailers_that_never_end_are_not_waited_for(server: FaultServer, part: Path) -> None:
    url = server.serve("/file", DATA, then=fault_server.trailers_for_ever)
    assert_is(bring(url, part, patience=HASTY), part, DATA)
    assert len(server.asked("/file")) == 1


def test_a_body_of_unknown_end_is_continued_by_the_next_call(server: FaultServer, part: Path) -> None:
    url = server.serve("/file", DATA, fault_server.cut_no_length)
    first = bring(url, part, exact=False)
    assert (first.size_bytes, first.has_end) == (SIZE // 2, False)
    second = bring(url, part, exact=False)
    assert_is(second, part, DATA)
    assert (second.resumed_bytes, second.has_end) == (SIZE // 2, True)


@pytest.mark.parametrize("answer", [good, fault_server.chunked])
def test_an_end_that_was_told_is_known(answer: Answer, server: FaultServer, part: Path) -> None:
    assert bring(server.serve("/file", DATA, then=answer), part, exact=False).has_end


@pytest.mark.parametrize(("after_s", "count"), [(0.05, 1), (60.0, 0)])
def test_a_wait_for_the_next_try_is_reported(
    after_s: float,
    count: int,
    server: FaultServer,
    part: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(transfer, "REPORTED_AFTER_S", after_s)
    url = server.serve("/file", DATA, too_many(86_400))
    assert_is(bring(url, part, patience=replace(QUICK, max_wait_s=0.2)), part, DATA)
    assert len(caplog.records) == count
    assert all("HTTP 429" in record.getMessage() for record in caplog.records)


def half_there(server: FaultServer, part: Path, *, exact: bool = True) -> None:
    """Leave a transfer of ``/file`` half way, as a process that ended would."""
    server.serve("/file", DATA, then=cut)
    patience = replace(QUICK, attempts=1, window_bytes=SIZE)
    with pytest.raises(DownloadError):
        bring(server.url("/file"), part, exact=exact, patience=patience)
    assert part.read_bytes() == DATA[: SIZE // 2]
    server.requests.clear()


# A server without faults.


@pytest.mark.parametrize("answer", [good, chunked, no_range, with_headers(Connection="close")])
@pytest.mark.parametrize(("max_bytes", "exact"), [(SIZE, True), (SIZE, False), (10 * SIZE, False)])
def test_a_file_is_brought_by_one_request(
    server: FaultServer, part: Path, answer: Answer, max_bytes: int, exact: bool
) -> None:
    result = bring(server.serve("/file", DATA, then=answer), part, max_bytes=max_bytes, exact=exact)
    assert_is(result, part, DATA)
    assert result.resumed_bytes == 0
    (request,) = server.asked("/file")
    assert (request.method, request.range, request.if_range) == ("GET", None, None)
    assert request.headers["Accept-Encoding"] == "identity"


def test_an_empty_file_is_a_file(server: FaultServer, part: Path) -> None:
    assert_is(bring(server.serve("/file", b""), part, exact=False), part, b"")


def test_the_part_stands_beside_a_note_of_its_address_and_version(server: FaultServer, part: Path) -> None:
    url = server.serve("/file", DATA)
    bring(url, part)
    note = part.with_name("file.part.json")
    assert sorted(part.parent.iterdir()) == [part, note]
    assert json.loads(note.read_text()) == {"url": url, "validator": etag_of(DATA)}


def test_no_secret_of_an_address_is_left_beside_a_part_or_in_a_traceback(server: FaultServer, part: Path) -> None:
    address = server.url("/file").replace("http://", "http://alice:hunter2@") + "?signature=hunter2"
    server.serve("/file?signature=hunter2", DATA, then=cut)
    patience = replace(QUICK, attempts=1, window_bytes=SIZE)
    with pytest.raises(DownloadError) as caught:
        bring(address, part, patience=patience)
    note = json.loads(part.with_name("file.part.json").read_text())
    assert note == {"url": server.url("/file"), "validator": etag_of(DATA)}
    server.serve("/file?signature=hunter3", DATA)  # signed anew, it is the same file
    bring(address.replace("signature=hunter2", "signature=hunter3"), part)
    assert [request.if_range for request in server.asked("/file?signature=hunter3")] == [etag_of(DATA)]
    lost = "http://alice:hunter2@127.0.0.1:1/file?signature=hunter2"
    with pytest.raises(DownloadError) as refused:
        bring(lost, part.with_name("other"), patience=patience)
    for error in (caught.value, refused.value):
        assert "hunter" not in f"{error}{error.attempts}{error.__cause__}"
        assert error.__suppress_context__  # what requests says of it quotes the address


def test_the_words_of_a_server_are_shown_printable_and_short(server: FaultServer, part: Path) -> None:
    def rude(exchange: Exchange) -> None:
        exchange.handler.send_response(404, "\x1b[31mNot here\x9b" + 10_000 * "!")
        exchange.handler.end_headers()

    with pytest.raises(DownloadError) as caught:
        bring(server.serve("/file", DATA, then=rude), part)
    message = str(caught.value)
    assert "HTTP 404 \\x1b[31mNot here\\x9b!!!" in message
    assert message.isprintable()
    assert len(message) < 1000


@pytest.mark.parametrize("answers", [[], [cut]])
def test_a_urllib3_without_read1_does_as_well(
    server: FaultServer, part: Path, monkeypatch: pytest.MonkeyPatch, answers: list[Answer]
) -> None:
    monkeypatch.delattr(urllib3.response.HTTPResponse, "read1")
    monkeypatch.delattr(urllib3.response.BaseHTTPResponse, "read1", raising=False)
    assert_is(bring(server.serve("/file", DATA, *answers), part), part, DATA)


# Faults that pass.


PASSING: dict[str, list[Answer]] = {
    "cut": [cut],
    "cut four times": [cut] * 4,
    "cut without length": [cut_no_length],
    "cut in chunks": [chunked_cut],
    "every kind of cut": [cut, cut_no_length, chunked_cut],
    "no answer": [hang_up_at_once] * 2,
    "no HTTP": [no_http],
    "416": [status(416)],
    "cut, then 416": [cut, status(416)],
    "cut, then no ranges": [cut, no_range],
    "cut, then cut from the start": [cut, no_range_cut],
    "cut, then another range": [cut, range_wrong_start],
    "cut, then another range for good": [cut, range_wrong_start, range_wrong_start],
    "cut, then 503": [cut, status(503), status(503)],
    "piece by piece": [range_piecewise(SIZE // 4)] * 4,
    **{f"{code} twice": [status(code)] * 2 for code in RETRIED},
}


@pytest.mark.parametrize("name", PASSING)
def test_a_passing_fault_is_survived(server: FaultServer, part: Path, name: str) -> None:
    result = bring(server.serve("/file", DATA, *PASSING[name]), part)
    assert_is(result, part, DATA)
    assert result.resumed_bytes == 0
    assert len(server.requests) <= len(PASSING[name]) + 1


@pytest.mark.parametrize("answer", [stall, silence, trickle(), trickle(100, 0.05)])
def test_a_server_that_falls_asleep_is_asked_again(server: FaultServer, part: Path, answer: Answer) -> None:
    start = time.monotonic()
    assert_is(bring(server.serve("/file", DATA, answer), part, patience=IMPATIENT), part, DATA)
    assert time.monotonic() - start < 2


def test_a_slow_server_is_waited_for(server: FaultServer, part: Path) -> None:
    data = DATA[:60_000]
    start = time.monotonic()
    url = server.serve("/file", data, trickle(1000, 0.01))
    assert_is(bring(url, part, max_bytes=len(data), patience=IMPATIENT), part, data)
    assert time.monotonic() - start > IMPATIENT.window_s
    assert len(server.requests) == 1


def test_a_file_whose_last_bytes_come_slowly_is_complete(server: FaultServer, part: Path) -> None:
    data = DATA[:20]
    url = server.serve("/file", data, trickle(10, 0.2))
    patience = replace(IMPATIENT, window_s=0.1)
    assert_is(bring(url, part, max_bytes=len(data), exact=False, patience=patience), part, data)
    assert len(server.requests) == 1


@pytest.mark.parametrize("exact", [True, False])
def test_a_server_that_never_says_the_end_is_done_when_all_is_there(
    server: FaultServer, part: Path, exact: bool
) -> None:
    result = bring(server.serve("/file", DATA, no_end), part, exact=exact, patience=IMPATIENT)
    assert_is(result, part, DATA)
    assert server.sent("/file") == SIZE


@pytest.mark.parametrize("answer", [cut_no_length, short_length_lie])
def test_without_a_known_size_a_file_that_ends_early_has_the_hash_of_what_came(
    server: FaultServer, part: Path, answer: Answer
) -> None:
    result = bring(server.serve("/file", DATA, answer), part, exact=False)
    assert_is(result, part, DATA[: SIZE // 2])
    assert result.sha256 != hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize("answer", [wrong, flip])
def test_wrong_bytes_have_another_hash(server: FaultServer, part: Path, answer: Answer) -> None:
    result = bring(server.serve("/file", DATA, answer), part)
    assert result.size_bytes == SIZE
    assert result.sha256 == hashlib.sha256(part.read_bytes()).hexdigest() != hashlib.sha256(DATA).hexdigest()


# Faults that stay.


@pytest.mark.parametrize("code", RETRIED)
def test_a_busy_server_is_asked_as_often_as_patience_says(server: FaultServer, part: Path, code: int) -> None:
    refusal(server.serve("/file", DATA, then=status(code)), part, says=f"HTTP {code}")
    assert len(server.requests) == QUICK.attempts


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_the_attempts_are_counted(server: FaultServer, part: Path, attempts: int) -> None:
    url = server.serve("/file", DATA, then=status(503))
    refusal(url, part, patience=replace(QUICK, attempts=attempts), says="HTTP 503")
    assert len(server.requests) == attempts


@pytest.mark.parametrize("code", [204, 400, 401, 403, 404, 410, 451, 501])
def test_a_refusal_is_final(server: FaultServer, part: Path, code: int) -> None:
    refusal(server.serve("/file", DATA, then=status(code)), part, says=f"HTTP {code}")
    assert len(server.requests) == 1
    assert not part.exists()


@pytest.mark.parametrize("content_type", ["text/html", "text/html; charset=utf-8", "Text/HTML"])
def test_a_login_page_is_not_the_file(server: FaultServer, part: Path, content_type: str) -> None:
    refusal(server.serve("/file", DATA, then=portal(content_type)), part, exact=False, says="web page")
    assert len(server.requests) == 1
    assert not part.exists()


def test_a_login_page_in_the_middle_leaves_what_is_there(server: FaultServer, part: Path) -> None:
    half_there(server, part)
    refusal(server.serve("/file", DATA, then=portal()), part, says="web page")
    assert part.read_bytes() == DATA[: SIZE // 2]


@pytest.mark.parametrize("answer", [gzip, with_headers(Content_Encoding="br")])
def test_an_encoded_file_is_refused(server: FaultServer, part: Path, answer: Answer) -> None:
    refusal(server.serve("/file", DATA, then=answer), part, says="encoded")
    assert not part.exists()


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
def test_a_file_said_not_to_be_encoded_is_taken(server: FaultServer, part: Path, encoding: str) -> None:
    assert_is(bring(server.serve("/file", DATA, with_headers(Content_Encoding=encoding)), part), part, DATA)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (hang_up_at_once, "closed connection"),
        (no_http, "connection failed (220 mail.example ready)"),
        (status(416), "HTTP 416"),
        (silence, "in time"),
        (stall, "in time"),
        (cut, "connection failed (IncompleteRead"),
        (cut_no_length, "ended after"),
        (chunked_cut, "connection failed (IncompleteRead"),
        (no_range_cut, f"{SIZE // 2} bytes read"),
        (trickle(), "stalled"),
        (trickle(10, 0.05), "stalled"),
    ],
)
def test_a_lasting_fault_is_named_in_time(server: FaultServer, part: Path, answer: Answer, reason: str) -> None:
    start = time.monotonic()
    patience = replace(IMPATIENT, window_bytes=300_000)
    refusal(server.serve("/file", DATA, then=answer), part, patience=patience, says=reason)
    assert time.monotonic() - start < 3
    assert len(server.requests) <= 2 * QUICK.attempts


def test_nobody_there_is_named(part: Path) -> None:
    with socket.socket() as taken:  # bound, not listening: nobody else gets the port, and nobody answers
        taken.bind(("127.0.0.1", 0))
        refusal(f"http://127.0.0.1:{taken.getsockname()[1]}/file", part, says="refused")


def test_a_proxy_that_does_not_answer_is_named_in_words(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(DownloadError, match=r"the proxy does not connect: .*refused") as caught:
            bring("http://weights.example/file", part)
    assert "host=" not in str(caught.value)


@pytest.mark.parametrize("answer", [cut, range_piecewise(50_000)])
def test_what_brings_something_is_not_counted_as_failed(server: FaultServer, part: Path, answer: Answer) -> None:
    data = DATA[:200_000]
    patience = replace(QUICK, attempts=2)
    url = server.serve("/file", data, *[answer] * 4)
    assert_is(bring(url, part, max_bytes=len(data), patience=patience), part, data)


def test_a_server_that_brings_next_to_nothing_each_time_is_given_up(server: FaultServer, part: Path) -> None:
    url = server.serve("/file", DATA, then=range_piecewise(10))
    refusal(url, part, says="ended after 30 of 1000000 bytes")
    assert len(server.requests) == QUICK.attempts


def test_a_file_that_changes_at_every_request_is_given_up(server: FaultServer, part: Path) -> None:
    def ever_new(exchange: object) -> None:
        content = random.Random(len(server.requests)).randbytes(SIZE)
        server.resources["/file"].content, server.resources["/file"].etag = content, etag_of(content)

    def cut_of_a_new_one(exchange: object) -> None:
        ever_new(exchange)
        (cut if len(server.requests) % 2 else no_if_range)(exchange)  # type: ignore[arg-type]

    refusal(server.serve("/file", DATA, then=cut_of_a_new_one), part, says="changed")
    assert len(server.requests) <= 2 * QUICK.attempts


# Waiting.


def seconds_to_bring(url: str, part: Path, patience: Patience) -> float:
    start = time.monotonic()
    assert_is(bring(url, part, patience=patience), part, DATA)
    return time.monotonic() - start


def test_the_wait_doubles(server: FaultServer, part: Path) -> None:
    url = server.serve("/file", DATA, *[status(503)] * 3)
    patience = replace(QUICK, attempts=4, backoff_s=0.1)
    assert 0.35 <= seconds_to_bring(url, part, patience) < 1.5  # 0.1 + 0.2 + 0.4, each less up to a half


def test_the_wait_has_a_limit(server: FaultServer, part: Path) -> None:
    url = server.serve("/file", DATA, *[status(503)] * 4)
    assert seconds_to_bring(url, part, replace(QUICK, attempts=5, backoff_s=100, max_wait_s=0.01)) < 1


@pytest.mark.parametrize(("answer", "least_s"), [(too_many(1), 1), (too_many(2, as_date=True), 0.9), (status(503), 0)])
def test_a_server_is_given_the_time_it_asks_for(
    server: FaultServer, part: Path, answer: Answer, least_s: float
) -> None:
    assert least_s <= seconds_to_bring(server.serve("/file", DATA, answer), part, QUICK) < least_s + 2


def test_a_server_that_wants_no_wait_gets_none(server: FaultServer, part: Path) -> None:
    url = server.serve("/file", DATA, too_many(0), too_many(-100, as_date=True))
    assert seconds_to_bring(url, part, replace(QUICK, backoff_s=100, max_wait_s=100)) < 1


@pytest.mark.parametrize("answer", [too_many(3600), too_many(3600, as_date=True), status(503, Retry_After="9" * 5000)])
def test_a_server_that_asks_for_too_much_time_gets_the_longest_wait(
    server: FaultServer, part: Path, answer: Answer
) -> None:
    assert 0.2 <= seconds_to_bring(server.serve("/file", DATA, answer), part, replace(QUICK, max_wait_s=0.2)) < 2


@pytest.mark.parametrize(
    "value", ["", "soon", "-1", "1.5", "²", "Mon, 01 Jan 0001 00:00:00 -0000", "Fri, 31 Dec 9999 23:59:59 -0000"]
)
def test_an_unreadable_wait_is_at_most_the_longest(server: FaultServer, part: Path, value: str) -> None:
    url = server.serve("/file", DATA, status(429, Retry_After=value))
    assert seconds_to_bring(url, part, replace(QUICK, max_wait_s=0.1)) < 1


# Sizes.


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_a_larger_file_is_refused(server: FaultServer, part: Path, announced: bool, exact: bool) -> None:
    url = server.serve("/file", DATA, then=oversized(b"x", announced=announced))
    reason = f"{SIZE + 1} bytes" if announced else f"more than the {SIZE} bytes"
    refusal(url, part, exact=exact, says=reason)
    assert len(server.requests) == 1
    assert not part.exists()


def test_a_larger_file_is_taken_where_it_may_be_larger(server: FaultServer, part: Path) -> None:
    for announced in (True, False):
        url = server.serve("/file", DATA, then=oversized(b"x", announced=announced))
        assert_is(bring(url, part, max_bytes=SIZE + 1, exact=False), part, DATA + b"x")
        part.unlink()


def test_a_file_known_to_be_too_large_is_not_even_begun(server: FaultServer, part: Path) -> None:
    seen: list[int] = []
    with pytest.raises(DownloadError, match=f"{SIZE} bytes; expected at most {SIZE - 1}"):
        bring(
            server.serve("/file", DATA),
            part,
            max_bytes=SIZE - 1,
            exact=False,
            progress=lambda there, total: seen.append(there),
        )
    assert seen == []


@pytest.mark.parametrize("size", [1, SIZE - 1])
def test_a_smaller_file_is_refused_where_the_size_is_known(server: FaultServer, part: Path, size: int) -> None:
    refusal(server.serve("/file", DATA[:size]), part, says=f"{size} bytes; expected {SIZE}")
    assert len(server.requests) == 1


def test_a_smaller_file_of_untold_size_is_refused_where_the_size_is_known(server: FaultServer, part: Path) -> None:
    refusal(server.serve("/file", DATA[:-1], then=chunked), part, says=f"has {SIZE - 1} bytes; expected {SIZE}")


def test_a_smaller_file_is_taken_where_the_size_is_a_limit(server: FaultServer, part: Path) -> None:
    assert_is(bring(server.serve("/file", DATA[:-1]), part, exact=False), part, DATA[:-1])


def test_an_announced_size_that_is_too_small_is_refused(server: FaultServer, part: Path) -> None:
    refusal(server.serve("/file", DATA, then=short_length_lie), part, says=f"{SIZE // 2} bytes; expected {SIZE}")


@pytest.mark.parametrize("exact", [True, False])
def test_a_range_longer_than_the_rest_is_refused_and_nothing_of_it_stays(
    server: FaultServer, part: Path, exact: bool
) -> None:
    half_there(server, part)
    url = server.serve("/file", DATA, then=range_too_long)
    refusal(url, part, max_bytes=SIZE if exact else 2 * SIZE, exact=exact, says="more than")
    assert not part.exists()
    assert_is(bring(url, part), part, DATA)


@pytest.mark.parametrize("value", ["²", "9" * 5000, "x", "-1", ""])
def test_an_unreadable_length_is_an_unknown_one(server: FaultServer, part: Path, value: str) -> None:
    url = server.serve("/file", DATA, then=with_headers(Content_Length=value, Connection="close"))
    assert_is(bring(url, part), part, DATA)


@pytest.mark.parametrize("value", ["²", "9" * 5000, "*"])
def test_an_unreadable_whole_in_a_range_is_an_unknown_one(server: FaultServer, part: Path, value: str) -> None:
    half_there(server, part)
    answer = with_headers(Content_Range=f"bytes {SIZE // 2}-{SIZE - 1}/{value}")
    result = bring(server.serve("/file", DATA, answer), part)
    assert_is(result, part, DATA)
    assert result.resumed_bytes == SIZE // 2


@pytest.mark.parametrize("value", ["", "bytes", "bytes */*", "lines 1-2/3", "bytes 0-1/2", "bytes x-y/z"])
def test_an_unreadable_range_is_begun_again(server: FaultServer, part: Path, value: str) -> None:
    half_there(server, part)
    result = bring(server.serve("/file", DATA, with_headers(Content_Range=value)), part)
    assert_is(result, part, DATA)
    assert result.resumed_bytes == 0


# Resuming.


@pytest.mark.parametrize("answer", [cut, cut_no_length, chunked_cut])
def test_a_broken_transfer_goes_on_where_it_broke_off(server: FaultServer, part: Path, answer: Answer) -> None:
    result = bring(server.serve("/file", DATA, answer), part)
    assert_is(result, part, DATA)
    first, second = server.asked("/file")
    assert (first.range, second.range) == (None, f"bytes={SIZE // 2}-")
    assert second.if_range == etag_of(DATA)
    assert first.sent + second.sent == SIZE


def test_a_later_call_goes_on_where_the_first_broke_off(server: FaultServer, part: Path) -> None:
    half_there(server, part)
    result = bring(server.serve("/file", DATA), part)
    assert_is(result, part, DATA)
    assert result.resumed_bytes == SIZE // 2
    (request,) = server.asked("/file")
    assert (request.range, request.if_range) == (f"bytes={SIZE // 2}-", etag_of(DATA))
    assert request.sent == SIZE // 2


def test_a_file_that_changed_in_between_is_begun_again(server: FaultServer, part: Path) -> None:
    half_there(server, part)
    result = bring(server.serve("/file", OTHER), part)
    assert_is(result, part, OTHER)
    assert result.resumed_bytes == 0
    assert len(server.requests) == 1


@pytest.mark.parametrize("again", [no_if_range, good])
def test_a_file_that_changes_during_a_transfer_is_begun_again(server: FaultServer, part: Path, again: Answer) -> None:
    assert_is(bring(server.serve("/file", DATA, cut, changed(OTHER, again)), part), part, OTHER)


def test_a_change_that_nothing_tells_of_shows_in_the_hash(server: FaultServer, part: Path) -> None:
    def silently(exchange: object) -> None:
        server.resources["/file"].content = OTHER
        good(exchange)  # type: ignore[arg-type]

    result = bring(server.serve("/file", DATA, cut, silently, etag=None, last_modified=None), part)
    assert_is(result, part, DATA[: SIZE // 2] + OTHER[SIZE // 2 :])


@pytest.mark.parametrize(
    ("etag", "last_modified", "sent"),
    [
        ('"strong"', LAST_MODIFIED, '"strong"'),
        ('"strong"', None, '"strong"'),
        ('W/"weak"', LAST_MODIFIED, LAST_MODIFIED),
        ('W/"weak"', None, None),
        (None, LAST_MODIFIED, LAST_MODIFIED),
        (None, None, None),
    ],
)
def test_the_strongest_validator_is_sent(
    server: FaultServer, part: Path, etag: str | None, last_modified: str | None, sent: str | None
) -> None:
    url = server.serve("/file", DATA, cut, etag=etag, last_modified=last_modified)
    assert_is(bring(url, part), part, DATA)
    assert [request.if_range for request in server.requests] == [None, sent]
    assert server.sent("/file") == SIZE


NOTES: dict[str, Callable[[str], str | bytes]] = {
    "none": lambda url: b"",
    "no JSON": lambda url: "{",
    "no text": lambda url: b"\xff\xfe\xfd",
    "no object": lambda url: "[]",
    "no address": lambda url: json.dumps({"validator": '"a"'}),
    "no validator": lambda url: json.dumps({"url": url}),
    "an empty one": lambda url: json.dumps({"url": url, "validator": None}),
    "another address": lambda url: json.dumps({"url": url + "x", "validator": '"a"'}),
}


@pytest.mark.parametrize("name", NOTES)
def test_a_part_of_unknown_version_goes_on_without_a_condition(server: FaultServer, part: Path, name: str) -> None:
    half_there(server, part)
    url = server.serve("/file", DATA)
    text = NOTES[name](url)
    part.with_name("file.part.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    result = bring(url, part)
    assert_is(result, part, DATA)
    assert result.resumed_bytes == SIZE // 2
    assert [(request.range, request.if_range) for request in server.requests] == [(f"bytes={SIZE // 2}-", None)]


def test_a_part_from_another_address_goes_on(server: FaultServer, part: Path) -> None:
    half_there(server, part)
    assert_is(bring(server.serve("/mirror", DATA), part), part, DATA)
    assert server.asked("/mirror")[0].if_range is None
    assert server.sent("/mirror") == SIZE // 2


def test_a_damaged_part_shows_in_the_hash(server: FaultServer, part: Path) -> None:
    half_there(server, part)
    damaged = b"x" + part.read_bytes()[1:]
    part.write_bytes(damaged)
    result = bring(server.serve("/file", DATA), part)
    assert_is(result, part, damaged + DATA[SIZE // 2 :])
    assert result.resumed_bytes == SIZE // 2


def test_a_whole_part_of_known_size_needs_no_request(server: FaultServer, part: Path) -> None:
    part.write_bytes(DATA)
    result = bring(server.serve("/file", DATA), part)
    assert_is(result, part, DATA)
    assert result.resumed_bytes == SIZE
    assert server.requests == []


def test_a_whole_part_of_unknown_size_is_not_fetched_again(server: FaultServer, part: Path) -> None:
    url = server.serve("/file", DATA)
    bring(url, part, exact=False)
    result = bring(url, part, max_bytes=2 * SIZE, exact=False)
    assert_is(result, part, DATA)
    assert result.resumed_bytes == SIZE
    assert server.sent("/file") == SIZE


def test_a_part_longer_than_the_file_is_begun_again(server: FaultServer, part: Path) -> None:
    part.write_bytes(DATA + b"more")
    result = bring(server.serve("/file", DATA), part, max_bytes=2 * SIZE, exact=False)
    assert_is(result, part, DATA)
    assert result.resumed_bytes == 0


def test_a_part_longer_than_the_file_may_be_is_begun_again(server: FaultServer, part: Path) -> None:
    part.write_bytes(DATA + b"more")
    assert_is(bring(server.serve("/file", DATA), part), part, DATA)
    assert [request.range for request in server.requests] == [None]


def test_a_server_that_has_only_what_is_there_has_the_wrong_file(server: FaultServer, part: Path) -> None:
    half_there(server, part)
    refusal(server.serve("/file", DATA[: SIZE // 2], etag=etag_of(DATA)), part, says=f"{SIZE // 2} bytes; expected")


CHILD = """
import sys
from pathlib import Path
from resnet_zoo.weights.transfer import fetch
fetch(sys.argv[1], Path(sys.argv[2]), max_bytes=int(sys.argv[3]), exact=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("answer", [stall, trickle(20_000, 0.005)])
def test_after_a_killed_process_only_the_rest_is_fetched(
    server: FaultServer, part: Path, end: signal.Signals, answer: Answer
) -> None:
    url = server.serve("/file", DATA, answer)
    enough = SIZE * 45 // 100
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, url, str(part), str(SIZE)],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            deadline = time.monotonic() + 20
            while not (part.exists() and part.stat().st_size >= enough) and time.monotonic() < deadline:
                time.sleep(0.005)
        finally:
            process.send_signal(end)
        assert process.wait(10) != 0
    there = part.stat().st_size
    assert enough <= there < SIZE
    result = bring(url, part)
    assert_is(result, part, DATA)
    assert result.resumed_bytes == there
    _, second = server.asked("/file")
    assert (second.range, second.if_range) == (f"bytes={there}-", etag_of(DATA))
    assert server.sent("/file") <= 1.1 * SIZE  # counted first: it waits until the count stands still
    assert second.sent == SIZE - there


# Progress.


def test_progress_is_told_from_the_first_byte_to_the_last(server: FaultServer, part: Path) -> None:
    calls: list[tuple[int, int]] = []
    url = server.serve("/file", DATA, cut)
    bring(url, part, progress=lambda there, total: calls.append((there, total)))
    there = [there for there, _ in calls]
    assert there == sorted(set(there))
    assert {total for _, total in calls} == {SIZE}
    assert calls[-1] == (SIZE, SIZE)
    assert len(calls) > 2


def test_progress_of_a_resumed_transfer_counts_what_was_there(server: FaultServer, part: Path) -> None:
    half_there(server, part)
    calls: list[tuple[int, int]] = []
    bring(server.serve("/file", DATA), part, progress=lambda there, total: calls.append((there, total)))
    assert calls[0][0] > SIZE // 2
    assert calls[-1] == (SIZE, SIZE)


def test_progress_without_a_told_size_has_no_total(server: FaultServer, part: Path) -> None:
    calls: list[tuple[int, int]] = []
    url = server.serve("/file", DATA, then=chunked)
    bring(url, part, exact=False, progress=lambda there, total: calls.append((there, total)))
    assert {total for _, total in calls} == {0}
    assert calls[-1][0] == SIZE


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, ConnectionError])
def test_an_error_of_the_progress_ends_the_transfer_and_leaves_the_part(
    server: FaultServer, part: Path, error: type[BaseException]
) -> None:
    def interrupt(there: int, total: int) -> None:
        if there > SIZE // 2:
            raise error

    url = server.serve("/file", DATA)
    with pytest.raises(error):
        bring(url, part, progress=interrupt)
    there = part.stat().st_size
    assert there > SIZE // 2
    assert bring(url, part).resumed_bytes == there
    assert part.read_bytes() == DATA


# Redirects.


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("is_relative", [True, False])
def test_a_redirect_is_followed(server: FaultServer, part: Path, code: int, is_relative: bool) -> None:
    target = server.serve("/there", DATA)
    url = server.serve("/here", b"", then=redirect("/there" if is_relative else target, code))
    assert_is(bring(url, part), part, DATA)
    assert [request.path for request in server.requests] == ["/here", "/there"]


def test_a_redirected_transfer_is_resumed_through_the_redirect(server: FaultServer, part: Path) -> None:
    server.serve("/there", DATA, cut)
    assert_is(bring(server.serve("/here", b"", then=redirect("/there")), part), part, DATA)
    assert [request.path for request in server.requests] == ["/here", "/there"] * 2
    assert server.asked("/there")[1].range == f"bytes={SIZE // 2}-"
    assert server.sent("/there") == SIZE


@pytest.mark.parametrize("raw", ["/gr\u00f6\u00dfe", "/gr%C3%B6%C3%9Fe"])
def test_a_redirect_may_be_written_in_utf_8(server: FaultServer, part: Path, raw: str) -> None:
    server.serve("/gr%C3%B6%C3%9Fe", DATA)
    url = server.serve("/here", b"", then=redirect(raw.encode().decode("latin-1")))
    assert_is(bring(url, part), part, DATA)


@pytest.mark.parametrize("count", [1, 10])
def test_ten_redirects_are_followed(server: FaultServer, part: Path, count: int) -> None:
    for index in range(count):
        server.serve(f"/{index}", b"", then=redirect(f"/{index + 1}"))
    server.serve(f"/{count}", DATA)
    assert_is(bring(server.url("/0"), part), part, DATA)


def test_more_than_ten_redirects_are_refused(server: FaultServer, part: Path) -> None:
    refusal(server.serve("/loop", b"", then=redirect("/loop")), part, says="more than 10 times")
    assert len(server.requests) == 11


@pytest.mark.parametrize(
    "target",
    [
        "ftp://127.0.0.1/file",
        "file:///etc/hostname",
        "data:,x",
        "mailto:nobody",
        "http://[",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://a..b/",
    ],
)
def test_a_redirect_to_no_web_address_is_refused(server: FaultServer, part: Path, target: str) -> None:
    refusal(server.serve("/here", b"", then=redirect(target)), part, says="")
    assert {request.path for request in server.requests} == {"/here"}
    assert len(server.requests) <= QUICK.attempts


@pytest.mark.parametrize("code", [300, 304, 302])
def test_a_redirect_to_nowhere_is_refused(server: FaultServer, part: Path, code: int) -> None:
    refusal(server.serve("/here", b"", then=status(code)), part, says=f"HTTP {code}")


# TLS.


@pytest.fixture
def secure_server(certificate: Path) -> Iterator[FaultServer]:
    with FaultServer(certificate) as running:
        yield running


@pytest.fixture
def _trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))


@pytest.mark.usefixtures("_trusted")
@pytest.mark.parametrize("answers", [[], [cut], [stall], [trickle()], [chunked_cut]])
def test_a_file_comes_over_tls(secure_server: FaultServer, part: Path, answers: list[Answer]) -> None:
    assert_is(bring(secure_server.serve("/file", DATA, *answers), part, patience=IMPATIENT), part, DATA)


def test_a_certificate_that_nobody_vouches_for_is_refused(secure_server: FaultServer, part: Path) -> None:
    refusal(secure_server.serve("/file", DATA), part, says="certificate verify failed")
    assert secure_server.requests == []


@pytest.mark.usefixtures("_trusted")
def test_a_redirect_from_https_to_http_is_refused(secure_server: FaultServer, server: FaultServer, part: Path) -> None:
    url = secure_server.serve("/file", b"", then=redirect(server.serve("/file", DATA)))
    refusal(url, part, says="not https")
    assert server.requests == []


@pytest.mark.usefixtures("_trusted")
def test_a_redirect_from_http_to_https_and_back_is_refused(
    secure_server: FaultServer, server: FaultServer, part: Path
) -> None:
    secure = secure_server.serve("/file", b"", then=redirect(server.serve("/plain", DATA)))
    refusal(server.serve("/file", b"", then=redirect(secure)), part, says="not https")
    assert server.asked("/plain") == []


@pytest.mark.usefixtures("_trusted")
def test_a_redirect_to_https_is_followed(secure_server: FaultServer, server: FaultServer, part: Path) -> None:
    target = secure_server.serve("/file", DATA)
    assert_is(bring(server.serve("/http", b"", then=redirect(target)), part), part, DATA)
    part.unlink()
    assert_is(bring(secure_server.serve("/https", b"", then=redirect("/file")), part), part, DATA)


# Writing.


LIMITED_CHILD = """
import resource, sys
from pathlib import Path
from resnet_zoo.errors import DownloadError
from resnet_zoo.weights.transfer import Patience, fetch
url, part, max_bytes, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    fetch(url, part, max_bytes=max_bytes, patience=Patience(attempts=2, backoff_s=0.01))
    print("whole")
except DownloadError as error:
    print("DownloadError", error)
except OSError as error:
    print("OSError", error.errno)
"""


def outcome_with_file_limit(url: str, part: Path, *, max_bytes: int, limit: int) -> str:
    """Fetch in a process that cannot write a file longer than ``limit``."""
    command = [sys.executable, "-c", LIMITED_CHILD, url, str(part), str(max_bytes), str(limit)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


posix_only = pytest.mark.skipif(os.name != "posix", reason="RLIMIT_FSIZE")


@posix_only
def test_a_disk_that_takes_no_more_is_an_os_error_and_the_part_goes_on(server: FaultServer, part: Path) -> None:
    url, limit = server.serve("/file", DATA), 300_001
    outcome = outcome_with_file_limit(url, part, max_bytes=SIZE, limit=limit)
    assert outcome == f"OSError {errno.EFBIG}"
    assert len(server.requests) == 1
    there = part.stat().st_size
    assert 0 < there <= limit
    result = bring(url, part)
    assert_is(result, part, DATA)
    assert result.resumed_bytes == there
    assert server.requests[-1].sent == SIZE - there


@posix_only
def test_a_disk_that_takes_just_the_file_is_enough(server: FaultServer, part: Path) -> None:
    assert outcome_with_file_limit(server.serve("/file", DATA), part, max_bytes=SIZE, limit=SIZE) == "whole"


@posix_only
@pytest.mark.parametrize("answer", [endless, oversized(b"x" * 200_000, announced=False)])
def test_not_a_byte_more_than_allowed_is_written(server: FaultServer, part: Path, answer: Answer) -> None:
    url = server.serve("/file", DATA, then=answer)
    outcome = outcome_with_file_limit(url, part, max_bytes=SIZE, limit=SIZE)
    assert outcome.startswith("DownloadError")
    assert f"more than the {SIZE} bytes" in outcome
    assert not part.exists()


@posix_only
def test_a_byte_more_than_allowed_would_have_been_seen(server: FaultServer, part: Path) -> None:
    url = server.serve("/file", DATA, then=endless)
    assert outcome_with_file_limit(url, part, max_bytes=2 * SIZE, limit=SIZE) == f"OSError {errno.EFBIG}"


def test_a_missing_folder_is_an_os_error_and_not_the_servers_fault(server: FaultServer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bring(server.serve("/file", DATA), tmp_path / "missing" / "file")
    assert len(server.requests) == 1


def test_a_folder_in_the_parts_place_is_an_os_error(server: FaultServer, part: Path) -> None:
    part.mkdir()
    with pytest.raises(OSError, match=r"file\.part"):
        bring(server.serve("/file", DATA), part)


def test_a_name_that_does_not_resolve_is_not_asked_again(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"the name nowhere\.invalid does not resolve"):
        fetch("https://nowhere.invalid/a.pth", tmp_path / "part", max_bytes=10)
    assert time.monotonic() - start < 2
