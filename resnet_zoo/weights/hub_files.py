"""Files of the Hugging Face Hub: fetched by its own client, found in its cache, and its errors as sentences.

The client does the transfer, so its endpoint (``HF_ENDPOINT``), tokens, cache and offline mode apply. It trusts what
the server says and what its cache holds. So what is known of a file is compared here with what the server announces,
before the first byte is fetched; and whoever reads the file must hash it.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from resnet_zoo.base.files import is_reachable_folder
from resnet_zoo.base.machine import is_offline
from resnet_zoo.base.progress import Progress
from resnet_zoo.base.shown import shown, shown_address
from resnet_zoo.base.strict_json import is_sha256
from resnet_zoo.base.waiting import GaveUpError, call_while_progressing
from resnet_zoo.catalog.records import HUB_SCHEME, WeightsFile
from resnet_zoo.errors import DownloadError, IntegrityError

_BLOB_NAME = re.compile(r"\w[\w.-]*")
"""What an ETag must be like: the client names a file of its cache by it."""

_PATIENCE_S = 120.0
"""How long the client may wait without a byte."""

_Value = TypeVar("_Value")

_NETWORK_LIBRARIES = ("httpx", "httpx2", "requests", "urllib3")
"""What the client's versions stand on."""


@dataclass(frozen=True)
class HubFile:
    """A file in a repository of the Hub; without a revision, that of its main branch."""

    repository: str
    revision: str | None
    name: str

    @classmethod
    def at(cls, address: str) -> HubFile:
        """Return the file at ``hf://owner/repository@revision/file``."""
        repository, _, rest = address.removeprefix(HUB_SCHEME).partition("@")
        revision, _, name = rest.partition("/")
        return cls(repository, revision, name)

    @property
    def address(self) -> str:
        """Its address, for messages."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{HUB_SCHEME}{self.repository}{revision}/{self.name}"


def find_hub_file(file: HubFile) -> Path | None:
    """Return a file where the client keeps it, if it has it; without network."""
    if not is_reachable_folder(_repository_folder(file)):
        return None  # as most are: the client itself, slow to import, need not be asked
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(file.repository, file.name, revision=file.revision)
    return Path(found) if isinstance(found, str) else None


def _repository_folder(file: HubFile) -> Path:
    """Return where the client keeps the files of a repository."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / "--".join(("models", *file.repository.split("/")))


def fetch_hub_file(
    file: HubFile,
    *,
    expected: WeightsFile | None = None,
    again: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Let the client find a file in its cache, or fetch it, and return where it keeps it; its bytes are not read.

    Args:
        file: The file.
        expected: Its hash and size, where they are known: a server that announces others is not asked for the bytes.
        again: Fetch it although the cache has it.
        progress: Called with (bytes there, bytes in all, 0 if unknown) while bytes arrive.

    Raises:
        DownloadError: There is no such file, the Hub refuses, or cannot be reached.
        IntegrityError: The Hub announces another hash.
    """
    if is_offline() and again:
        raise DownloadError({file.address: "not fetched again, because offline mode is on"})
    with _client_errors_as_download_errors(file):
        from huggingface_hub import hf_hub_download

        if not is_offline() and (again or find_hub_file(file) is None):
            _check_announced(file, expected)
        options = {} if expected is None else _counted_by(progress, expected.size_bytes)
        return Path(
            _with_an_end(
                file,
                lambda: hf_hub_download(
                    file.repository,
                    file.name,
                    revision=file.revision,
                    force_download=again,
                    local_files_only=is_offline(),
                    **options,
                ),
            )
        )


def _with_an_end(file: HubFile, call: Callable[[], _Value]) -> _Value:
    """Call the client, which waits for as long as a server asks it to, or a stopped process holds its lock.

    Raises:
        DownloadError: Nothing arrived for `_PATIENCE_S`.
        Exception: Whatever the client raises.
    """
    try:
        return call_while_progressing(
            call,
            lambda: _bytes_arrived(file),
            patience_s=_PATIENCE_S,
            sentence=f"Waiting for {file.address} for at most {_PATIENCE_S:.0f} s more if nothing arrives.",
        )
    except GaveUpError:
        why = f"the Hub's client got nothing for {_PATIENCE_S:.0f} s; try again later, or set HF_TOKEN"
        raise DownloadError({file.address: why}) from None


def _bytes_arrived(file: HubFile) -> int:
    """Return how many bytes the client's unfinished transfers of a repository have."""
    arrived = 0
    for part in (_repository_folder(file) / "blobs").glob("*.incomplete"):
        with contextlib.suppress(OSError):  # finished meanwhile
            arrived += part.stat().st_size
    return arrived


def forget_hub_file(path: Path) -> None:
    """Remove a file from the cache of the client, which would go on giving it: its blob, and the link to that."""
    blob, repository = path.resolve(), path.parents[2].resolve()
    if blob.is_relative_to(repository):  # a link that leads elsewhere is removed, and what it leads to stays
        blob.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def announced_hash(file: HubFile) -> str:
    """Ask the Hub for the hash of a file: sha256 of a large one, git's of another.

    Raises:
        DownloadError: It announces none, refuses, or cannot be reached.
    """
    if is_offline():
        raise DownloadError(
            {file.address: "its hash is not in the cache, and the Hub was not contacted (offline mode)"}
        )
    with _client_errors_as_download_errors(file):
        return _check_announced(file, None)


@contextlib.contextmanager
def _client_errors_as_download_errors(file: HubFile) -> Iterator[None]:
    """Turn whatever the client raises into a `DownloadError`; our own pass."""
    try:
        yield
    except DownloadError:
        raise
    except Exception as error:  # noqa: BLE001  # the client may be missing, and raises errors of a dozen families
        raise DownloadError({file.address: reason(error)}) from None  # theirs quote addresses with what signs them


def _check_announced(file: HubFile, expected: WeightsFile | None) -> str:
    """Hold what the server says of a file against what is known; return the hash it announces."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(file.repository, file.name, revision=file.revision)
    found = _with_an_end(file, lambda: get_hf_file_metadata(url))
    if not found.etag:
        raise DownloadError({file.address: "the Hub does not announce a hash for it"})
    if not _BLOB_NAME.fullmatch(found.etag):
        raise DownloadError({file.address: "the server announces an ETag that is not a hash"})
    if expected is not None and is_sha256(found.etag) and found.etag != expected.sha256:
        raise IntegrityError(file.address, expected.sha256, found.etag)
    if expected is not None and found.size not in (None, expected.size_bytes):
        why = f"expected {expected.size_bytes} bytes, the server announces {found.size}"
        raise DownloadError({file.address: why})
    return found.etag


def _counted_by(progress: Progress | None, limit: int) -> dict[str, Any]:
    """Return options that make the client report to a function in place of its own bar, and end at a size limit.

    An older client takes none, and shows its own bar.
    """
    from huggingface_hub import hf_hub_download
    from tqdm import tqdm  # type: ignore[import-untyped]

    if "tqdm_class" not in inspect.signature(hf_hub_download).parameters:
        return {}

    class Counted(tqdm):  # type: ignore[misc]
        """Draws nothing, and counts."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)  # of the client's own class
            self.there = kwargs.get("initial") or 0
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self.there += int(n or 0)
            if self.there > limit:
                raise OSError(f"expected {limit} bytes, the server sends more")
            if progress is not None:
                progress(self.there, limit)
            return None

    return {"tqdm_class": Counted}


def reason(error: BaseException) -> str:
    """Say in a sentence why the client failed, and what to do."""
    from huggingface_hub import errors as hub

    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(error, hub.GatedRepoError):
        return "the repository is gated; request access on its page and set HF_TOKEN"
    if isinstance(error, hub.RepositoryNotFoundError):
        return f"repository not found (HTTP {status}); if it is private, set HF_TOKEN"
    if isinstance(error, hub.RevisionNotFoundError):
        return "the repository has no such revision"
    if isinstance(error, hub.LocalEntryNotFoundError):
        return "it is not in Hugging Face's cache, and the Hub " + (
            "was not contacted, because offline mode is on" if is_offline() else "cannot be reached"
        )
    if isinstance(error, hub.EntryNotFoundError):
        return "the repository has no such file"
    if status in (401, 403):
        return f"not authorised (HTTP {status}); check the token (HF_TOKEN) and its permissions"
    if status == 429:
        asked = response.headers.get("Retry-After", "") if response is not None else ""
        wait = f"in {asked} s" if asked.isdecimal() and len(asked) < 8 else "later"
        return f"the Hub limits the rate of requests (HTTP 429); try again {wait}, or set HF_TOKEN"
    if status is not None and status >= 500:
        return f"the Hub had a server error (HTTP {status}); try again later"
    words = shown(next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__))
    if status is None and type(error).__module__.partition(".")[0] in _NETWORK_LIBRARIES:
        from huggingface_hub.constants import ENDPOINT

        return f"the Hub at {shown_address(ENDPOINT)} cannot be reached: {words}"
    return reason(error.__cause__) if error.__cause__ is not None and status is None else words
