"""A Hugging Face Hub on loopback: enough of its HTTP protocol that the real client works against it.

Repositories are made, committed to (small files inside the commit, large ones by LFS) and read at any revision.
A large file is answered with a redirect to another host name, as the real Hub does; so its hash and commit stand in the
headers of the redirect, and no token is sent along.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".bin")

_BLOCK_BYTES = 1 << 20

Result = TypeVar("Result")


@dataclass(frozen=True)
class StoredFile:
    """A file of a commit: where its bytes are, and what it is known by."""

    path: Path
    size: int
    sha256: str
    blob_id: str
    is_lfs: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.blob_id


@dataclass
class Repository:
    """Every commit's files by their path; ``main`` is the newest."""

    commits: dict[str, dict[str, StoredFile]] = field(default_factory=dict)
    main: str = ""
    private: bool = False

    def files(self, revision: str) -> dict[str, StoredFile] | None:
        return self.commits.get(self.main if revision == "main" else revision)

    def commit(self, files: dict[str, StoredFile]) -> str:
        listing = json.dumps([self.main, sorted((path, file.blob_id) for path, file in files.items())])
        self.main = hashlib.sha1(listing.encode()).hexdigest()
        self.commits[self.main] = files
        return self.main


class HubServer:
    """The server, as a context manager.

    Args:
        folder: Where the files are kept.
        token: If given, every request must carry it.

    Attributes:
        repositories: By ``owner/name``.
        refused: Steps that are answered with 403: ``create``, ``lfs``, ``commit``.
        forgets: A commit is confirmed, but holds nothing new.
        faults: An HTTP status, error code and headers by the step that is answered with them: ``resolve``, ``storage``.
        moved: Repositories that were renamed, and to what.
        announced: Headers that take the place of the true ones where a large file's place is asked for.
        is_endless: A large file goes on for ever, without a length.
        requests: (method, path) of every request so far.
    """

    def __init__(self, folder: Path, *, token: str | None = None) -> None:
        self.folder, self.token = folder, token
        self.repositories: dict[str, Repository] = {}
        self.refused: set[str] = set()
        self.forgets = False
        self.faults: dict[str, tuple[int, str, dict[str, str]]] = {}
        self.moved: dict[str, str] = {}
        self.announced: dict[str, str] = {}
        self.is_endless = False
        self.requests: list[tuple[str, str]] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.storage = f"http://localhost:{self._server.server_port}/storage"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def num_commits(self, name: str) -> int:
        return len(self.repositories[name].commits) - 1 if name in self.repositories else 0

    def create(self, name: str, *, private: bool = False) -> Repository:
        repository = self.repositories[name] = Repository(private=private)
        repository.commit({})
        return repository

    def add(self, name: str, files: Mapping[str, bytes]) -> str:
        """Commit files to a repository, made if it is not there; return the commit."""
        repository = self.repositories.get(name) or self.create(name)
        stored = {path: self.store(data, is_lfs=path.endswith(LFS_SUFFIXES)) for path, data in files.items()}
        return repository.commit({**repository.commits[repository.main], **stored})

    def store(self, data: bytes, *, is_lfs: bool) -> StoredFile:
        path = self.folder / hashlib.sha256(data).hexdigest()
        path.write_bytes(data)
        return self.stored(path, is_lfs=is_lfs)

    def stored(self, path: Path, *, is_lfs: bool) -> StoredFile:
        size, sha256 = path.stat().st_size, path.name
        content = path.read_bytes() if not is_lfs else f"oid sha256:{sha256}\nsize {size}\n".encode()
        blob_id = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        return StoredFile(path, size, sha256, blob_id, is_lfs)

    def environment(self, home: Path) -> dict[str, str]:
        """Return the variables with which a process uses this hub and a Hugging Face cache of its own."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": self.token or "hf_test",
            "HF_HUB_OFFLINE": "0",
            "RESNET_ZOO_OFFLINE": "0",
            "RESNET_ZOO_MIRROR": "",
        }


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        is_for_hub = not path.startswith(("/storage/", "/upload/"))
        if is_for_hub and not self._is_authorised():
            return
        for method, pattern, action in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split():
                action(self, *match.groups())
                return
        self._fail(404, "EntryNotFound", "there is nothing here")

    def _is_authorised(self) -> bool:
        given = self.headers.get("Authorization")
        if self.hub.token is None or given == f"Bearer {self.hub.token}":
            return True
        self._drop_body()
        if given is None:
            self._fail(401, "RepoNotFound", "Repository not found")
        else:
            self._fail(401, "", "Invalid credentials in Authorization header")
        return False

    def _is_refused(self, step: str) -> bool:
        if step not in self.hub.refused:
            return False
        self._drop_body()
        self._fail(403, "", f"you may not {step}")
        return True

    def _is_at_fault(self, step: str) -> bool:
        if step not in self.hub.faults:
            return False
        status, code, headers = self.hub.faults[step]
        self._fail(status, code, "a fault that a test asked for", headers)
        return True

    # --- writing ---

    def whoami(self) -> None:
        self._send_json({"type": "user", "name": "tester", "orgs": []})

    def create_repository(self) -> None:
        if self._is_refused("create"):
            return
        wanted = self._json()
        name = f"{wanted['organization']}/{wanted['name']}"
        there = name in self.hub.repositories
        if not there:
            self.hub.create(name, private=wanted.get("visibility") == "private")
        self._send_json({"url": f"{self.hub.endpoint}/{name}"}, 409 if there else 200)

    def validate_yaml(self) -> None:
        content = self._json()["content"]
        good = content.startswith("---\n") and "\n---\n" in content
        errors = [] if good else [{"message": "no front matter"}]
        self._send_json({"errors": errors, "warnings": []}, 200 if good else 400)

    def preupload(self, name: str, revision: str) -> None:
        wanted = self._json()["files"]
        files = self._files(name, revision)
        if files is None:
            return
        answers = []
        for file in wanted:
            path, there = file["path"], files.get(file["path"])
            mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            oid = there.etag if there else None
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send_json({"files": answers})

    def lfs_batch(self, _name: str) -> None:
        if self._is_refused("lfs"):
            return
        objects = []
        for wanted in self._json()["objects"]:
            oid, answer = wanted["oid"], {"oid": wanted["oid"], "size": wanted["size"]}
            if not (self.hub.folder / oid).exists():
                upload, verify = (f"{self.hub.endpoint}/{step}/{oid}" for step in ("upload", "verify"))
                answer["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
            objects.append(answer)
        self._send_json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        part, digest = self.hub.folder / f"{oid}.{threading.get_ident()}", hashlib.sha256()
        with part.open("wb") as file:
            for block in self._body():
                file.write(block)
                digest.update(block)
        if digest.hexdigest() != oid:
            part.unlink()
            self._fail(422, "", "the bytes do not have their hash")
            return
        part.replace(self.hub.folder / oid)
        self._send_json({})

    def verify(self, oid: str) -> None:
        wanted, path = self._json(), self.hub.folder / oid
        good = path.exists() and path.stat().st_size == wanted["size"]
        self._send_json({}, 200 if good else 422)

    def commit(self, name: str, revision: str) -> None:
        if self._is_refused("commit"):
            return
        lines = [json.loads(line) for line in b"".join(self._body()).splitlines()]
        before = self._files(name, revision)
        if before is None:
            return
        files = dict(before)
        for line in lines:
            kind, value = line["key"], line["value"]
            if kind == "file":
                files[value["path"]] = self.hub.store(base64.b64decode(value["content"]), is_lfs=False)
            elif kind == "lfsFile":
                files[value["path"]] = self.hub.stored(self.hub.folder / value["oid"], is_lfs=True)
            elif kind == "deletedFile":
                del files[value["path"]]
        oid = self.hub.repositories[name].commit(before if self.hub.forgets else files)
        self._send_json({"success": True, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}", "commitOid": oid})

    # --- reading ---

    def model(self, name: str, revision: str | None = None) -> None:
        files = self._files(name, revision or "main")
        if files is None:
            return
        repository = self.hub.repositories[name]
        sha = repository.main if revision in (None, "main") else revision
        siblings = [{"rfilename": path} for path in sorted(files)]
        self._send_json({"id": name, "sha": sha, "private": repository.private, "siblings": siblings})

    def paths(self, name: str, revision: str) -> None:
        wanted = parse_qs(b"".join(self._body()).decode())["paths"]
        files = self._files(name, revision)
        if files is None:
            return
        answers = []
        for path in wanted:
            if path in files:
                file = files[path]
                answer: dict[str, Any] = {"type": "file", "path": path, "size": file.size, "oid": file.blob_id}
                if file.is_lfs:
                    answer["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 130}
                answers.append(answer)
        self._send_json(answers)

    def resolve(self, name: str, revision: str, path: str) -> None:
        if self._is_at_fault("resolve"):
            return
        if name in self.hub.moved:
            self._send(b"", 307, {"Location": f"/{self.hub.moved[name]}/resolve/{revision}/{path}"})
            return
        files = self._files(name, revision)
        if files is None:
            return
        commit = self.hub.repositories[name].main if revision == "main" else revision
        if path not in files:
            self._fail(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
            return
        file = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.etag}"'}
        if not file.is_lfs:
            self._send_file(file.path, headers)
            return
        headers |= {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        headers |= self.hub.announced
        self._send(b"", 302, {**headers, "Location": f"{self.hub.storage}/{file.sha256}"})

    def storage(self, oid: str) -> None:
        path = self.hub.folder / oid
        if self._is_at_fault("storage"):
            return
        if self.hub.is_endless and self.command == "GET":
            self._start(200, {"ETag": f'"{oid}"', "Connection": "close"})
            self.close_connection = True
            with contextlib.suppress(ConnectionError):
                while True:
                    self.wfile.write(bytes(_BLOCK_BYTES))
        elif self.headers.get("Authorization"):
            self._fail(400, "", "a token was sent to the storage host")
        elif path.exists():
            self._send_file(path, {"ETag": f'"{oid}"'})
        else:
            self._fail(404, "EntryNotFound", "Entry not found")

    def _files(self, name: str, revision: str) -> dict[str, StoredFile] | None:
        """Return the files of a revision; without them, the answer has been sent."""
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._fail(404, "RepoNotFound", "Repository not found")
            return None
        files = repository.files(revision)
        if files is None:
            self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return files

    # --- HTTP ---

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while length := int(self.rfile.readline(), 16):
                yield self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            block = self.rfile.read(min(left, _BLOCK_BYTES))
            if not block:
                raise ConnectionError("the client went away")
            left -= len(block)
            yield block

    def _drop_body(self) -> None:
        for _ in self._body():
            pass

    def _json(self) -> Any:
        return json.loads(b"".join(self._body()))

    def _send_file(self, path: Path, headers: Mapping[str, str]) -> None:
        size = path.stat().st_size
        start, end, status = 0, size, 200
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span and self.headers.get("If-Range", headers["ETag"]) == headers["ETag"]:
            start, end, status = int(span[1]), min(int(span[2]) + 1 if span[2] else size, size), 206
            if start >= size:
                self._send(b"", 416, {"Content-Range": f"bytes */{size}"})
                return
            headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}
        self._start(status, {**headers, "Accept-Ranges": "bytes", "Content-Length": str(end - start)})
        if self.command == "HEAD":
            return
        with path.open("rb") as file:
            file.seek(start)
            while start < end:
                block = file.read(min(_BLOCK_BYTES, end - start))
                self.wfile.write(block)
                start += len(block)

    def _send_json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def _fail(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        extra = {"X-Error-Code": code} if code else {}
        extra |= {"X-Error-Message": message, "Content-Type": "application/json", **(headers or {})}
        self._send(json.dumps({"error": message}).encode(), status, extra)

    def _send(self, body: bytes, status: int, headers: Mapping[str, str]) -> None:
        self._start(status, {**headers, "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/repos/create", _Handler.create_repository),
    ("POST", "/api/validate-yaml", _Handler.validate_yaml),
    ("POST", f"/api/models/{_NAME}/preupload/(.+)", _Handler.preupload),
    ("POST", f"/api/models/{_NAME}/paths-info/(.+)", _Handler.paths),
    ("POST", f"/api/models/{_NAME}/commit/(.+)", _Handler.commit),
    ("GET", f"/api/models/{_NAME}/revision/(.+)", _Handler.model),
    ("GET", f"/api/models/{_NAME}", _Handler.model),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", "/upload/([0-9a-f]{64})", _Handler.upload),
    ("POST", "/verify/([0-9a-f]{64})", _Handler.verify),
    ("GET HEAD", "/storage/([0-9a-f]{64})", _Handler.storage),
    ("GET HEAD", rf"/{_NAME}/resolve/([\w.-]+)/(.+)", _Handler.resolve),
]


def in_new_process(environment: Mapping[str, str], function: Callable[..., Result], *arguments: Any) -> Result:
    """Return what a function returns, or raise what it raises, in a process with these variables of its own.

    The Hub's client reads its variables when it is imported. The process is forked from one that has torch imported
    and the client not.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "rich.table", "resnet_zoo.checks.publishing"])
    with ProcessPoolExecutor(1, context, _set_environment, (dict(environment),)) as pool:
        return pool.submit(function, *arguments).result()


def _set_environment(variables: Mapping[str, str]) -> None:
    os.environ.update(variables)
