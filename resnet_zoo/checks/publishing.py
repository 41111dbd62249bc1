"""From upstream's checkpoints to hashed files on the Hugging Face Hub, and into the manifest.

In this order, so that whatever fails leaves the manifest as it was: fetch, convert and check every weight set; upload
what the repository lacks in one commit; check the commit; write the manifest in one step.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from resnet_zoo.base.progress import TitledProgress
from resnet_zoo.catalog.manifest import (
    manifest_path,
    parse_manifest,
    read_manifest,
    replace_manifest,
    writable_manifest_path,
)
from resnet_zoo.catalog.records import (
    Entry,
    Measured,
    PageOrigin,
    RunOrigin,
    UpstreamOrigin,
    WeightsFile,
    to_json,
)
from resnet_zoo.catalog.rules import LOOPBACK
from resnet_zoo.checks.accuracy import measured_of
from resnet_zoo.checks.pinning import chosen_rows, witness_of
from resnet_zoo.errors import ArgumentError, IntegrityError, PublishError, WeightsUnavailableError
from resnet_zoo.inference.evaluation import evaluate
from resnet_zoo.weights.cards import zoo_card
from resnet_zoo.weights.hub import git_blob_hash
from resnet_zoo.weights.hub_push import CARD_NAME, check_repository_name, commit_files, hub_errors_as_publish_errors
from resnet_zoo.weights.loading import assign_weights, open_weights
from resnet_zoo.weights.places import fetched_upstream


@dataclass(frozen=True)
class PublishedSet:
    """One weight set, ready to be published.

    Attributes:
        name: The row.
        tag: The weight set.
        path: Its file on this machine.
        file: What the manifest says of the file.
        origin: Where its values come from; of an upstream checkpoint all 64 digits of the sha256.
        measured: What was measured now, or before; ``None`` if nothing.
        is_new: The manifest said something else, or nothing, before.
    """

    name: str
    tag: str
    path: Path
    file: WeightsFile
    origin: UpstreamOrigin | PageOrigin | RunOrigin
    measured: Measured | None
    is_new: bool


@dataclass(frozen=True)
class Publication:
    """What `publish` did, or would do.

    Attributes:
        repository: ``owner/name``.
        revision: The commit that holds everything; ``None`` in a dry run that would make one.
        num_uploaded: Files that the repository lacked, the card included.
        manifest: The manifest file.
        manifest_changed: It was written, or would be.
        sets: The weight sets.
        base_urls: Where the manifest says the files are.
    """

    repository: str
    revision: str | None
    num_uploaded: int
    manifest: Path
    manifest_changed: bool
    sets: tuple[PublishedSet, ...]
    base_urls: tuple[str, ...]


def publish(
    names: Sequence[str],
    repository: str,
    *,
    data: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    progress: TitledProgress | None = None,
) -> Publication:
    """Publish weight sets as safetensors on the Hugging Face Hub, and write them into the manifest in use.

    What is there already is not uploaded again, and a manifest that says everything already is not touched.

    Args:
        names: Rows or aliases; none means all.
        repository: ``owner/name``; made if it is not there.
        data: A folder with a folder of test images per data set (``cifar10``, ``cifar100``, ``in1k``, see
            `open_test_set`): rows whose data set is there, and that were not measured yet, are evaluated.
        dry_run: Fetch, convert, check and compare; write neither repository nor manifest.
        progress: Called with (file name, bytes there, bytes in all, 0 if unknown) while weights are fetched.

    Raises:
        ArgumentError: ``repository`` has another form, ``data`` has no folder of a data set, the Hub's address is not
            https, or the manifest is an installed package's, or was changed meanwhile.
        UnknownModelError: No row has this name.
        WeightsUnavailableError, DownloadError, IntegrityError, UnsafeCheckpointError, CheckpointError,
            WeightsMismatchError: Weights are unavailable, or are not what they should be.
        DatasetError: Test images are incomplete or unreadable.
        PublishError: The Hub refused, or cannot be reached.
        ManifestError: The manifest is broken.
        OSError: The cache or the manifest cannot be written.
    """
    check_repository_name(repository)
    folders = _data_folders(data)
    path = manifest_path() if dry_run else writable_manifest_path()
    manifest = read_manifest(path)
    before = path.read_bytes()
    wanted = [(entry, tag) for entry in chosen_rows(manifest, names) for tag in _tags_with_source(entry)]
    sets = tuple(_prepare(entry, tag, folders, progress) for entry, tag in wanted)
    content = _with_sets(json.loads(before), sets)
    card = zoo_card(parse_manifest(path, content).models, repository).encode()
    upload = _Upload(repository, sets, card, dry_run=dry_run)
    content["base_urls"] = upload.run(manifest.base_urls)
    changed = content != json.loads(before)
    if changed and not dry_run:
        replace_manifest(path, content, before)
    return Publication(
        repository, upload.revision, upload.num_uploaded, path, changed, sets, tuple(content["base_urls"])
    )


# --- weight sets --------------------------------------------------------------------------------------------------


def _tags_with_source(entry: Entry) -> list[str]:
    """Return the weight sets that are available: published before, or upstream. Those of others stay where they are."""
    return [
        tag
        for tag, found in entry.weights.items()
        if not found.published and (found.file or isinstance(found.origin, UpstreamOrigin))
    ]


def _prepare(entry: Entry, tag: str, folders: Mapping[str, Path], progress: TitledProgress | None) -> PublishedSet:
    """Fetch, convert, check and evaluate one weight set."""
    weights = entry.weight_set(tag)
    checkpoint = open_weights(entry, tag, progress=progress).checkpoint
    model = assign_weights(entry, checkpoint)
    source_sha256 = _source_sha256(entry, tag, checkpoint.header)
    file_name = f"{entry.name}-{tag}-{checkpoint.sha256[:8]}.safetensors"
    file = WeightsFile(file_name, checkpoint.sha256, checkpoint.path.stat().st_size)
    is_same_file = weights.file is not None and weights.file.sha256 == file.sha256
    measured = weights.measured if is_same_file else None
    if measured is None and entry.dataset in folders:
        measured = measured_of(evaluate(entry.name, folders[entry.dataset], weights=tag, model=model))
    origin = weights.origin
    if isinstance(origin, UpstreamOrigin) and source_sha256:
        pin = fetched_upstream(entry, tag)
        witness = origin.witness or (witness_of(origin, pin) if pin and pin.sha256 == source_sha256 else None)
        origin = UpstreamOrigin(origin.url, source_sha256, witness)
    is_new = replace(weights, file=file, origin=origin, measured=measured) != weights
    return PublishedSet(entry.name, tag, checkpoint.path, file, origin, measured, is_new)


def _source_sha256(entry: Entry, tag: str, header: Mapping[str, str]) -> str | None:
    """Return the full sha256 of the upstream checkpoint, which the conversion wrote into the file's header."""
    origin = entry.weight_set(tag).origin
    if not isinstance(origin, UpstreamOrigin):
        return None
    if "source_sha256" not in header:
        raise WeightsUnavailableError(entry.name, tag, "its file does not name the checkpoint it was converted from.")
    if not header["source_sha256"].startswith(origin.sha256_prefix):
        raise IntegrityError(origin.shown_url, origin.sha256_prefix, header["source_sha256"])
    return header["source_sha256"]


def _data_folders(data: str | os.PathLike[str] | None) -> dict[str, Path]:
    """Return the folder of each data set that is there."""
    if data is None:
        return {}
    folders = {name: Path(data) / name for name in ("cifar10", "cifar100", "in1k")}
    found = {name: folder for name, folder in folders.items() if folder.is_dir()}
    if not found:
        raise ArgumentError(f"Expected a folder {', '.join(folders)} in {Path(data)}, found none.")
    return found


# --- manifest -----------------------------------------------------------------------------------------------------


def _with_sets(content: Any, sets: Iterable[PublishedSet]) -> Any:
    """Make the weight sets of a manifest's content what was prepared, and return it."""
    rows = {row["name"]: row for row in content["models"]}
    for published in sets:
        weights = rows[published.name]["weights"][published.tag]
        weights["file"] = to_json(published.file)
        weights["measured"] = to_json(published.measured)
        weights["origin"] = to_json(published.origin)
    return content


# --- repository ---------------------------------------------------------------------------------------------------


class _Upload:
    """Brings files into a repository, unless a commit holds all of them already.

    Attributes:
        revision: That commit, or the one made.
        num_uploaded: Files that were not there.
    """

    def __init__(self, repository: str, sets: Iterable[PublishedSet], card: bytes, *, dry_run: bool) -> None:
        from huggingface_hub import HfApi

        self.repository, self.dry_run = repository, dry_run
        self.api: Any = HfApi()
        self.revision: str | None = None
        self.num_uploaded = 0
        self.files: dict[str, bytes | Path] = {found.file.path: found.path for found in sets} | {CARD_NAME: card}
        self.hashes = {found.file.path: found.file.sha256 for found in sets} | {CARD_NAME: git_blob_hash(card)}

    def run(self, base_urls: Sequence[str]) -> list[str]:
        """Upload what is missing; return the manifest's base URLs with this repository's in front.

        Args:
            base_urls: Those of the manifest; a commit they name is kept if it holds everything.
        """
        self._check_endpoint()
        with hub_errors_as_publish_errors(self.repository):
            self.revision = self._complete_revision(base_urls)
            if self.revision is None and not self.dry_run:
                self.revision = self._commit()
        revision = self.revision or "COMMIT"
        ours = [f"hf://{self.repository}@{revision}", f"{self.api.endpoint}/{self.repository}/resolve/{revision}"]
        return [*ours, *(url for url in base_urls if not self._is_ours(url))]

    def _check_endpoint(self) -> None:
        parts = urlsplit(self.api.endpoint)
        if parts.scheme != "https" and parts.hostname not in LOOPBACK:
            raise ArgumentError(f"HF_ENDPOINT is {self.api.endpoint}; a manifest may name only https addresses.")

    def _is_ours(self, url: str) -> bool:
        return url.startswith((f"hf://{self.repository}@", f"{self.api.endpoint}/{self.repository}/resolve/"))

    def _complete_revision(self, base_urls: Sequence[str]) -> str | None:
        """Return a commit that holds every file: the one the manifest names, or the newest."""
        if not self.api.repo_exists(self.repository):
            self.num_uploaded = len(self.files)
            return None
        prefix = f"hf://{self.repository}@"
        named = [url.removeprefix(prefix) for url in base_urls if url.startswith(prefix)]
        for revision in (*named, self.api.model_info(self.repository).sha):
            missing = self._missing(revision)
            if not missing:
                self.num_uploaded = 0
                return str(revision)
            self.num_uploaded = len(missing)
        return None

    def _missing(self, revision: str) -> list[str]:
        """Return the files that a commit lacks, or has with other bytes."""
        found = self.api.get_paths_info(self.repository, list(self.files), revision=revision)
        there = {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in found}
        return [path for path, digest in self.hashes.items() if there.get(path) != digest]

    def _commit(self) -> str:
        """Upload everything in one commit, and check that the Hub then has these very bytes."""
        self.api.create_repo(self.repository, exist_ok=True)
        message = f"Publish {len(self.files) - 1} weight files"
        revision = str(commit_files(self.api, self.repository, self.files, message).oid)
        missing = self._missing(revision)
        if missing:
            why = f"commit {revision} does not hold the files as they were sent: {', '.join(missing)}."
            raise PublishError(self.repository, why)
        return revision
