"""Re-check a row: its manifest entry, network, counts, weights and accuracy, each against what is published."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_zoo.base.devices import resolve_device
from resnet_zoo.base.progress import TitledProgress, under_title
from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.catalog.manifest import get_entry, list_models
from resnet_zoo.catalog.names import check_name, kind_of
from resnet_zoo.catalog.records import Entry, Exact, RunOrigin, UpstreamOrigin, used_with
from resnet_zoo.checks.accuracy import check_accuracy, check_reproduction
from resnet_zoo.checks.networks import check_weights, verify_network
from resnet_zoo.checks.report import Check, Report, check_facts, compare, rounded
from resnet_zoo.errors import DatasetError
from resnet_zoo.inference.evaluation import evaluate
from resnet_zoo.network.building import build_on_meta
from resnet_zoo.network.counting import count_params, dry_run, flops_by_rule, tally_operations
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.weights.loading import open_weights
from resnet_zoo.zoo import open_network


def verify(
    names: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
    download: bool = False,
    device: torch.device | str = "auto",
    batch_size: int = 64,
    num_workers: int | None = None,
    skip_bad: bool = False,
    partial: bool = False,
    progress: TitledProgress | None = None,
) -> list[Report]:
    """Check every number of models and networks: manifest, architecture, parameters, FLOPs, weights, top-1 and top-5.

    What cannot be checked is reported as ``not checked``, never as passed: the accuracy without ``data``, the weights
    and the accuracy where the weights are not on this machine.

    Args:
        names: Models or aliases, ``hf-hub:owner/name``, or paths of network files; ``None`` means all models. A file is
            held against its model's counts, and against the accuracy that `finetune` recorded in it.
        data: The folder of the test images, see `evaluate`.
        weights: A tag or path, as in `create_model`; ``None`` means each model's default weights.
        size: Height and width of the inputs, one that the weight set was tested at; ``None`` means its usual one.
        download: Fetch weight sets that are not on this machine.
        device: Where to evaluate: ``auto`` (CUDA, MPS, then CPU) or a torch device.
        batch_size: Images per forward pass.
        num_workers: As in `evaluate`.
        skip_bad: As in `evaluate`.
        partial: As in `evaluate`.
        progress: Called with (model, images done, images in all) while evaluating.

    Returns:
        One report per name, in the order of ``names``; a model named twice is checked once.

    Raises:
        UnknownModelError: No model has this name.
        UnknownWeightsError: ``weights`` is neither a tag of a model nor a file.
        WeightsUnavailableError, DownloadError: ``weights`` were given and are unavailable.
        ArgumentError: The weights were not tested at ``size``, a number is out of range, or the device is not
            available.
        DatasetError: ``data`` was given and cannot be used.

    Example:
        >>> (report,) = resnet_zoo.verify("resnet18_cifar10")
        >>> report.check("flops")
        Check(name='flops', status='passed', published='0.56', measured='0.56', detail='...', recorded=None)
        >>> [check.name for check in report.checks if check.status == "not checked"]
        ['top1', 'top5']
    """
    wanted = list_models() if names is None else [names] if isinstance(names, (str, os.PathLike)) else names
    found = {_title(name): name for name in wanted}
    for name in found.values():
        check_name(name, weights=weights, size=size)
    if data is not None and not Path(data).is_dir():
        raise DatasetError(f"{data} is not a folder; pass the folder that holds the test images.")
    options: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers}
    options |= {"skip_bad": skip_bad, "partial": partial}
    reports = []
    for title, name in found.items():
        shared = {**options, "data": data, "progress": under_title(progress, title)}
        if kind_of(name) == "row":
            entry = get_entry(title)
            reports.append(_verify_row(entry, weights=weights, size=size, download=download, device=device, **shared))
        else:
            reports.append(verify_network(open_network(name, size=size), device=resolve_device(device), **shared))
    return reports


def _title(name: str | os.PathLike[str]) -> str:
    return get_entry(str(name)).name if kind_of(name) == "row" else os.fspath(name)


def _verify_row(
    entry: Entry,
    *,
    data: str | os.PathLike[str] | None,
    weights: str | os.PathLike[str] | None,
    size: int | None,
    download: bool,
    **options: Any,
) -> Report:
    """Check a row, with the options of `evaluate`."""
    model = build_on_meta(entry)
    checks = check_counts(entry, model)
    tag = entry.chosen(weights)
    read = functools.partial(open_weights, entry, tag, download=download)
    opened, chain, weights_check = check_weights(entry, model, read, was_asked=weights is not None)
    checks.append(weights_check)
    used = used_with(entry, tag, size=size)
    if opened is None or data is None:
        why = "no test images given (--data DIR)" if data is None else "no weights to evaluate"
        checks += [Check(top, "not checked", getattr(used.published, top), None, why) for top in ("top1", "top5")]
    else:
        result = evaluate(entry.name, data, weights=tag, size=size, model=model, **options)
        known = entry.weights.get(tag) if isinstance(tag, str) else None
        is_retrained = known is not None and isinstance(known.origin, RunOrigin)
        checks += check_accuracy(
            used,
            result,
            recorded=known.measured if known and used == used_with(entry, tag) else None,
            published_weights=not is_retrained,
        )
        checks += [check_reproduction(used, top, result) for top in ("top1", "top5") if is_retrained]
    return Report(entry.name, tuple(checks), asdict(chain) if chain else None)


def count_exact(entry: Entry, model: ResNet) -> Exact:
    """Count what the manifest's ``exact`` block of a row must say, of its network."""
    tally = tally_operations(model, entry.input_size)
    return Exact(
        params=count_params(model),
        flops=flops_by_rule(tally, "openmmlab"),
        flops_with_head=flops_by_rule(tally, "openmmlab_with_head"),
        macs=flops_by_rule(tally, "macs"),
        state_dict_sha256=fingerprint(model.state_dict()),
    )


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return a sha256 over key, type and shape of every tensor, sorted by key."""
    lines = sorted(f"{key} {tensor.dtype} {list(tensor.shape)}\n" for key, tensor in tensors.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_counts(entry: Entry, model: ResNet) -> list[Check]:
    """Check what needs no file: manifest, and architecture, parameters and FLOPs of the row's network."""
    counted, exact, published = count_exact(entry, model), entry.exact, entry.published
    params = compare("params", published.params_m, rounded(counted.params, 10**6, published.params_m))
    flops = compare("flops", published.flops_g, rounded(counted.flops, 10**9, published.flops_g))
    return [
        _check_manifest(entry),
        _check_architecture(entry, model, counted),
        _with_exact(params, counted.params, exact.params),
        _with_exact(flops, counted.flops, exact.flops),
        compare("flops_with_head", f"{exact.flops_with_head:,}", f"{counted.flops_with_head:,}", "manifest's integer"),
        compare("macs", f"{exact.macs:,}", f"{counted.macs:,}", "manifest's integer; conv and linear only"),
    ]


def _check_manifest(entry: Entry) -> Check:
    """Hold what the row says against itself and against what it refers to."""
    origins = [weights.origin for weights in entry.weights.values() if isinstance(weights.origin, UpstreamOrigin)]
    facts = {
        "schema": True,  # else it could not have been read
        f"{entry.num_classes} class names": len(set(class_folders(entry.classes))) == entry.num_classes,
        "upstream file names carry their hash": all(o.sha256_prefix[:8] in o.file_name for o in origins),
        "top-1 is at most top-5": float(entry.published.top1) <= float(entry.published.top5),
    }
    return check_facts("manifest", facts)


def _check_architecture(entry: Entry, model: ResNet, counted: Exact) -> Check:
    """Hold the state dict's keys, types and shapes, and the output's shape, against the manifest."""
    shape = list(dry_run(model, entry.input_size).shape)
    detail = f"{len(model.state_dict())} tensors; output {shape}"
    if shape != [1, entry.num_classes]:
        return Check("architecture", "failed", f"output {[1, entry.num_classes]}", f"output {shape}", detail)
    return compare("architecture", entry.exact.state_dict_sha256[:12], counted.state_dict_sha256[:12], detail)


def _with_exact(check: Check, counted: int, expected: int) -> Check:
    """Fail a check of printed digits also when the exact integer behind them is another."""
    detail = f"{counted:,} counted"
    if counted != expected:
        return Check(check.name, "failed", check.published, check.measured, f"{detail}, manifest says {expected:,}")
    return Check(check.name, check.status, check.published, check.measured, detail)
