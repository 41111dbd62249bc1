"""Re-check a network of one's own: what its file or repository says of itself, its counts, and what it recorded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import torch

from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry, Measured
from resnet_zoo.checks.accuracy import allowed_images
from resnet_zoo.checks.report import Check, Report, check_facts
from resnet_zoo.errors import WRONG, ZooError
from resnet_zoo.inference.evaluation import Evaluation, images_for, is_recorded, measure
from resnet_zoo.network.building import build_on_meta
from resnet_zoo.network.counting import count_params, dry_run, flops_by_rule, tally_operations
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.weights.loading import assign_weights
from resnet_zoo.weights.network_header import TENSORS, RecordedAccuracy
from resnet_zoo.weights.opened import LoadedWeights
from resnet_zoo.weights.provenance import Chain, chain_of
from resnet_zoo.zoo import Network


def verify_network(
    network: Network,
    *,
    data: str | os.PathLike[str] | None,
    device: torch.device,
    skip_bad: bool = False,
    partial: bool = False,
    **options: Any,
) -> Report:
    """Check a network of a file or repository, as `verify` does with a row.

    Args:
        network: The network.
        data: Its test images, see `evaluate`.
        device: Where to evaluate.
        skip_bad: As in `evaluate`.
        partial: As in `evaluate`.
        options: For `measure`.

    Raises:
        ZooError: As `evaluate`.
    """
    entry = network.entry
    model = build_on_meta(entry, in_channels=network.in_channels)
    checks = [_check_names(network), *_check_counts(network, model)]
    opened, chain, weights = check_weights(
        entry, model, lambda: network.weights, was_asked=True, in_channels=network.in_channels
    )
    weights = _check_tensors(network, chain, weights)
    checks.append(weights)
    recorded = RecordedAccuracy.of(network.weights.checkpoint)
    if opened is None or weights.status == "failed":
        return Report(network.name, (*checks, *_unchecked(network, recorded, "no weights to evaluate")))
    found = asdict(chain) if chain else None
    if data is None:
        without = _unchecked(network, recorded, "no test images given (--data DIR)")
        return Report(network.name, (*checks, *without), found)
    images = images_for(network, data, skip_bad=skip_bad, partial=partial)
    is_same = is_recorded(network, images)
    result = measure(network, images, model=model, device=device, **options)
    return Report(network.name, (*checks, *check_recorded(recorded if is_same else None, result)), found)


def _check_names(network: Network) -> Check:
    """Hold what the network says of itself against itself; its header was read strictly."""
    names = network.class_names
    facts = {
        f"a network of {network.entry.name}": True,  # else it could not have been opened
        f"{len(names)} class names, each once": len(set(names)) == len(names) == network.entry.num_classes,
    }
    return check_facts("manifest", facts)


def _check_counts(network: Network, model: ResNet) -> Iterator[Check]:
    """Yield the checks of the network's integers: those of its row, with its own classifier and channels."""
    row, entry = get_entry(network.entry.name), network.entry
    like = build_on_meta(row)
    shape = list(dry_run(model, entry.input_size).shape)
    yield check_facts("architecture", {f"output {[1, entry.num_classes]}": shape == [1, entry.num_classes]})
    head, stem = _own_part(model) - _own_part(like), _stem(model) - _stem(like)
    yield _count("params", count_params(model), row.exact.params + head + stem, unit=10**6)
    usual, own = (tally_operations(model, size) for size in (_size_of_row(network), entry.input_size))
    features = model.num_features * (entry.num_classes - row.num_classes)
    expected = {
        "flops": ("openmmlab", row.exact.flops, 10**9),
        "flops_with_head": ("openmmlab_with_head", row.exact.flops_with_head + features, 1),
        "macs": ("macs", row.exact.macs + features, 1),
    }
    places = stem * row.input_size[1] * row.input_size[2] // (1 if row.stem == "cifar" else 4)
    for name, (rule, count, unit) in expected.items():
        check = _count(name, flops_by_rule(usual, rule), count + places, unit=unit)  # type: ignore[arg-type]
        measured = _shown(flops_by_rule(own, rule), unit)  # type: ignore[arg-type]
        size = "x".join(map(str, entry.input_size))
        yield replace(check, measured=measured, detail=f"{check.detail}; {measured} at {size}")


def _own_part(model: ResNet) -> int:
    return sum(parameter.numel() for parameter in model.fc.parameters())


def _stem(model: ResNet) -> int:
    """Return the parameters of the first convolution."""
    return next(parameter.numel() for parameter in model.parameters())


def _size_of_row(network: Network) -> tuple[int, ...]:
    return (network.in_channels, *get_entry(network.entry.name).input_size[1:])


def _count(name: str, counted: int, expected: int, *, unit: int) -> Check:
    detail = f"{counted:,} counted, {expected:,} by the manifest with its own classes"
    return Check(name, "passed" if counted == expected else "failed", None, _shown(counted, unit), detail)


def _shown(count: int, unit: int) -> str:
    return f"{count:,}" if unit == 1 else f"{count / unit:.2f}"


def _check_tensors(network: Network, chain: Chain | None, check: Check) -> Check:
    """Hold the tensors against the hash that the file itself has of them, if it has one."""
    said = network.weights.checkpoint.header.get(TENSORS)
    if chain is None or said is None:
        return check
    if said != chain.tensors_sha256:
        why = f"{chain.file}: its tensors are not those that were saved in it. Do not use it."
        return Check("weights", "failed", f"tensors {said[:64]}", f"tensors {chain.tensors_sha256}", why)
    return replace(check, detail=f"{check.detail}, as its header says")


def _accuracies(num_classes: int) -> tuple[str, ...]:
    """Return which accuracies say something; of five classes or fewer every answer is among the best five."""
    return ("top1", "top5") if num_classes > 5 else ("top1",)


def _unchecked(network: Network, recorded: RecordedAccuracy | None, why: str) -> list[Check]:
    before = _percent(recorded)
    tops = _accuracies(network.entry.num_classes)
    return [Check(top, "not checked", detail=why, recorded=before[top]) for top in tops]


def _percent(recorded: RecordedAccuracy | None) -> dict[str, str | None]:
    if recorded is None:
        return {"top1": None, "top5": None}
    top5 = None if recorded.correct5 is None else f"{100 * recorded.correct5 / recorded.num_images:.2f}"
    return {"top1": f"{recorded.top1:.2f}", "top5": top5}


def check_recorded(recorded: RecordedAccuracy | None, result: Evaluation) -> list[Check]:
    """Return the checks ``top1`` and, of more than five classes, ``top5``: what was measured now, against the record.

    On the same device with the same torch every count must be equal; elsewhere as `allowed_images`, at least one image.

    Args:
        recorded: What the file recorded on these images; ``None`` if it recorded nothing, or on other images.
        result: What was measured now.
    """
    checks = []
    for top in _accuracies(len(result.classes)):
        correct, then = (getattr(found, f"correct{top[3:]}", None) for found in (result, recorded))
        measured = f"{getattr(result, top):.2f}"
        where = f"{result.num_images} images, {result.dataset}"
        if recorded is None or then is None or result.num_skipped:
            why = f"no {top} is recorded for these images: measured {measured} on {where}"
            checks.append(Check(top, "not checked", None, measured, why))
            continue
        percent = f"{100 * then / recorded.num_images:.2f}"
        allowed, tolerance = _allowed(recorded, result)
        detail = f"{then} correct recorded, {correct} now; {tolerance}; {where}"
        is_same = abs(then - correct) <= allowed
        checks.append(Check(top, "passed" if is_same else "failed", None, measured, detail, recorded=percent))
    return checks


def _allowed(recorded: RecordedAccuracy, result: Evaluation) -> tuple[int, str]:
    """Return by how many images two counts may differ, and why."""
    versions = {} if recorded.torch is None else {"torch": recorded.torch}
    device = recorded.device or "an unknown device"
    then = Measured(recorded.top1, 0.0, recorded.num_images, result.dataset, "", versions, device)
    allowed, words = allowed_images(then, result)
    if allowed or "same device" in words:
        return allowed, words
    return 1, words.replace("points, 0 images", "points, at least 1 image")


def check_weights(
    entry: Entry,
    model: ResNet,
    read: Callable[[], LoadedWeights],
    *,
    was_asked: bool,
    in_channels: int = 3,
) -> tuple[LoadedWeights | None, Chain | None, Check]:
    """Check the weights' hash, keys, shapes, types and finite values.

    Returns:
        The weights and their chain, if all is well; the row's network then holds them.
    """
    try:
        opened = read()
        assign_weights(entry, opened.checkpoint, in_channels=in_channels, into=model)
    except ZooError as error:
        if error.exit_code == WRONG:
            return None, None, Check("weights", "failed", detail=str(error))
        if was_asked:
            raise
        return None, None, Check("weights", "not checked", detail=str(error))
    tensors = opened.checkpoint.tensors
    unfinite = [key for key, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if unfinite:
        found = f"NaN or infinity in {unfinite[0]}"
        return None, None, Check("weights", "failed", "finite values", found, str(opened.checkpoint.path))
    chain = chain_of(opened)
    detail = (
        f"{chain.file} (pin: {chain.pin}; from {chain.source}): {len(tensors)} tensors, keys, shapes and types fit, "
        f"all finite, fingerprint {chain.tensors_sha256}"
    )
    return opened, chain, Check("weights", "passed", None, f"sha256 {chain.file_sha256}", detail)
