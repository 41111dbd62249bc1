"""Requests that end: whoever answers must do so in time.

The timeout of requests counts from byte to byte: a server that sends its headers one byte at a time, or says ``100
Continue`` for ever, never exceeds it. So the connection is shut down from another thread.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter

_INTERVAL_S = 0.5


def session_with_deadline(head_s: float) -> requests.Session:
    """Return a session whose requests raise requests' own ``Timeout`` if the headers are not complete in time.

    Args:
        head_s: Seconds, from the end of the request.
    """
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(head_s))
    return session


@contextlib.contextmanager
def shut_down_if(is_over: Callable[[], bool], response: requests.Response) -> Iterator[None]:
    """Shut down the connection of an answer as soon as something is true, which ends a read that is under way.

    Raises:
        requests.exceptions.ReadTimeout: It was shut down. What was read until then may look like a complete body.
    """
    left, over, raw = threading.Event(), threading.Event(), response.raw
    shut_down: Any = getattr(raw, "shut_down", None) or getattr(raw._original_response, "shut_down", None)

    def watch() -> None:
        while not left.wait(_INTERVAL_S):
            if is_over():
                over.set()
                shut_down()
                return

    if shut_down is not None:  # always, but for adapters of others
        threading.Thread(target=watch, name="resnet-zoo-deadline", daemon=True).start()
    try:
        yield
    except Exception as error:
        if over.is_set():
            raise requests.exceptions.ReadTimeout("the body stalled") from error
        raise
    finally:
        left.set()
    if over.is_set():
        raise requests.exceptions.ReadTimeout("the body stalled")


class _Adapter(HTTPAdapter):
    """Makes the connections; its pools are urllib3's, with connections of ours."""

    def __init__(self, head_s: float) -> None:
        self._head_s = head_s
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._limit(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        self._limit(manager)
        return manager

    def _limit(self, manager: Any) -> None:
        manager.pool_classes_by_scheme = {
            scheme: type(pool.__name__, (pool,), {"ConnectionCls": _limited(pool.ConnectionCls, self._head_s)})
            for scheme, pool in manager.pool_classes_by_scheme.items()
        }


def _limited(connection: Any, head_s: float) -> Any:
    """Return a class of connections whose answer must begin in time."""

    class Limited(connection):  # type: ignore[misc]
        def getresponse(self, *args: Any, **kwargs: Any) -> Any:
            sock: Any = self.sock
            over = threading.Event()

            def shut_down() -> None:
                over.set()
                with contextlib.suppress(OSError):  # beneath TLS, whose state the other thread may be using
                    socket.socket.shutdown(getattr(sock, "socket", sock), socket.SHUT_RDWR)

            timer = threading.Timer(head_s, shut_down)
            timer.daemon = True
            timer.start()
            try:
                response = super().getresponse(*args, **kwargs)
                if over.is_set():  # headers that were cut off look complete
                    response.close()
                    raise ConnectionError("cut off")
            except Exception as error:
                if over.is_set():
                    raise TimeoutError(f"no complete headers after {head_s:g} s") from error
                raise
            finally:
                timer.cancel()
            response.shut_down = shut_down
            return response

    return Limited
