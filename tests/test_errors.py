"""Errors: what they carry, what they say, and that they survive a trip between processes."""

from __future__ import annotations

import inspect
import pickle
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from resnet_zoo import errors
from resnet_zoo.errors import (
    NOT_CHECKED,
    STOPPED,
    USAGE,
    WRONG,
    ArgumentError,
    CheckpointError,
    DatasetError,
    DownloadError,
    ExportError,
    IntegrityError,
    ManifestError,
    NonFiniteLossError,
    NonFiniteOutputError,
    PublishError,
    RunError,
    TrainingError,
    TrainingStopped,
    UnknownLayerError,
    UnknownModelError,
    UnknownWeightsError,
    UnsafeCheckpointError,
    WeightsMismatchError,
    WeightsUnavailableError,
    ZooError,
)

ADDRESS_WITH_MORE = re.compile(r"https?://\S*[.,:;]+(?=\s|$)")
"""What a terminal opens at a click on an address, and punctuation of the sentence with it."""

EXAMPLES: dict[type[ZooError], ZooError] = {
    type(error): error
    for error in (
        ZooError("something is wrong"),
        ArgumentError("Expected a positive batch size, got -4."),
        UnknownModelError("reznet50", ["resnet50", "resnet18"]),
        UnknownWeightsError("resnet50_in1k", "openmlab", ["openmmlab", "retrained"]),
        UnknownLayerError("stage44", ["stem", "stage4"]),
        ManifestError(Path("weights_manifest.json"), "resnet50_in1k", "exact.params", "expected an integer, got '3'"),
        WeightsUnavailableError("resnet50_in1k", "openmmlab", "the disk is in another castle"),
        DownloadError({"https://a.test/x": "404", "https://b.test/x": "timed out"}),
        IntegrityError(Path("x.pth"), "ea4938fc", "00" * 32),
        PublishError("owner/resnets", "the token was refused"),
        ExportError("row.onnx", "logits", 3, 0.25, 1e-4),
        CheckpointError(Path("x.pth"), "the file is empty"),
        UnsafeCheckpointError(Path("x.pth"), "posix.system"),
        WeightsMismatchError(
            "resnet18_cifar10",
            "x.safetensors",
            ["a.weight"],
            ["b.weight"],
            {"fc.bias": ((10,), (100,))},
            ["resnet18_in1k"],
        ),
        TrainingError("the disk is full"),
        TrainingStopped(Path("runs/x")),
        NonFiniteLossError(Path("runs/x"), 17, float("inf")),
        NonFiniteOutputError("The output of layer2.0.conv1 is not finite."),
        RunError(Path("runs/x/result.json"), "field correct1", "expected an integer, got '3'"),
        DatasetError("cat.jpg is not an image"),
    )
}

MESSAGE_FACTS: dict[type[ZooError], list[str]] = {
    ZooError: ["something is wrong"],
    ArgumentError: ["positive batch size", "-4"],
    UnknownModelError: ["'reznet50'", "Did you mean resnet50", "resnet-zoo list"],
    UnknownWeightsError: ["resnet50_in1k", "'openmlab'", "Did you mean openmmlab", "retrained", ".safetensors"],
    UnknownLayerError: ["'stage44'", "Did you mean stage4", "stem"],
    ManifestError: ["weights_manifest.json", "model resnet50_in1k", "field exact.params", "expected an integer, got"],
    WeightsUnavailableError: ["'openmmlab'", "resnet50_in1k", "the disk is in another castle"],
    DownloadError: ["https://a.test/x (404)", "https://b.test/x (timed out)"],
    IntegrityError: ["x.pth", "expected sha256 ea4938fc", "got " + "00" * 32, "it was not used"],
    PublishError: ["owner/resnets", "the token was refused"],
    ExportError: ["row.onnx", "logits", "batch of 3", "0.25", "0.0001", "other format"],
    CheckpointError: ["x.pth", "the file is empty"],
    UnsafeCheckpointError: ["x.pth", "'posix.system'", "Nothing in it was run"],
    WeightsMismatchError: [
        "x.safetensors",
        "resnet18_cifar10",
        "missing: a.weight",
        "unexpected: b.weight",
        "fc.bias (expected [10], got [100])",
        "fits resnet18_in1k",
    ],
    TrainingError: ["the disk is full"],
    TrainingStopped: ["runs/x", "Run the same command again"],
    NonFiniteLossError: ["step 17 is inf", "runs/x keeps its last good snapshot", "--set lr="],
    NonFiniteOutputError: ["layer2.0.conv1 is not finite"],
    RunError: ["runs/x/result.json", "field correct1", "expected an integer, got '3'"],
    DatasetError: ["cat.jpg is not an image"],
}

EXIT_CODES: dict[type[ZooError], int] = {
    ZooError: WRONG,
    ArgumentError: USAGE,
    UnknownModelError: USAGE,
    UnknownWeightsError: USAGE,
    UnknownLayerError: USAGE,
    ManifestError: WRONG,
    WeightsUnavailableError: NOT_CHECKED,
    DownloadError: NOT_CHECKED,
    PublishError: NOT_CHECKED,
    ExportError: WRONG,
    IntegrityError: WRONG,
    CheckpointError: WRONG,
    UnsafeCheckpointError: WRONG,
    WeightsMismatchError: WRONG,
    TrainingError: NOT_CHECKED,
    TrainingStopped: STOPPED,
    NonFiniteLossError: WRONG,
    NonFiniteOutputError: WRONG,
    RunError: NOT_CHECKED,
    DatasetError: NOT_CHECKED,
}

every_error = pytest.mark.parametrize("error", EXAMPLES.values(), ids=lambda error: type(error).__name__)


def _classes() -> set[type[BaseException]]:
    return {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, BaseException)}


def _raise(error: ZooError) -> None:
    raise error


def test_the_tables_of_this_file_know_every_error() -> None:
    assert _classes() == set(EXAMPLES) == set(MESSAGE_FACTS) == set(EXIT_CODES)


def test_the_exit_codes_are_those_documented() -> None:
    assert (WRONG, USAGE, NOT_CHECKED, STOPPED) == (1, 2, 3, 130)


@every_error
def test_pickling_keeps_attributes_arguments_and_text(error: ZooError) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))
        assert type(copy) is type(error)
        assert vars(copy) == vars(error)
        assert copy.args == error.args
        assert str(copy) == str(error)


def test_an_error_that_hands_a_sentence_to_its_base_would_not_survive_pickling() -> None:
    copy_of_arguments = (str(EXAMPLES[ManifestError]),)
    with pytest.raises(TypeError):
        ManifestError(*copy_of_arguments)  # type: ignore[call-arg]


def test_a_process_pool_delivers_an_error_whole() -> None:
    error = EXAMPLES[WeightsMismatchError]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, pytest.raises(WeightsMismatchError) as caught:
        pool.submit(_raise, error).result()
    assert vars(caught.value) == vars(error)
    assert str(caught.value) == str(error)


@every_error
def test_the_message_carries_the_facts(error: ZooError) -> None:
    for fact in MESSAGE_FACTS[type(error)]:
        assert fact in str(error)


@every_error
def test_the_exit_code_says_what_kind_of_failure_it_is(error: ZooError) -> None:
    assert error.exit_code == EXIT_CODES[type(error)]


@pytest.mark.parametrize("kind", sorted(_classes(), key=str), ids=lambda kind: kind.__name__)
def test_every_error_is_a_zoo_error_and_no_os_error(kind: type[BaseException]) -> None:
    assert issubclass(kind, ZooError)
    assert not issubclass(kind, OSError)


@every_error
def test_an_os_error_with_the_same_arguments_would_change_them(error: ZooError) -> None:
    two = ("found", "this")
    assert OSError(*two).errno == "found"  # type: ignore[comparison-overlap]
    assert not hasattr(error, "errno")


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (ArgumentError, ValueError),
        (UnknownModelError, LookupError),
        (UnknownWeightsError, LookupError),
        (UnknownLayerError, LookupError),
        (ManifestError, ValueError),
        (CheckpointError, ValueError),
        (UnsafeCheckpointError, CheckpointError),
        (IntegrityError, DownloadError),
        (WeightsMismatchError, RuntimeError),
    ],
)
def test_errors_can_be_caught_as_the_builtin_kind(kind: type[ZooError], base: type[Exception]) -> None:
    assert issubclass(kind, base)


def test_a_data_set_error_is_made_from_one_string() -> None:
    assert str(DatasetError("cat.jpg is empty")) == "cat.jpg is empty"


def test_a_name_near_no_other_gets_no_suggestion() -> None:
    assert "Did you mean" not in str(UnknownModelError("zzz", ["resnet50"]))


def test_a_manifest_error_without_a_row_names_only_the_file() -> None:
    assert str(ManifestError("m.json", "", "", "is not valid JSON")) == "m.json: is not valid JSON"


def test_weights_without_a_row_are_named_alone() -> None:
    assert str(WeightsUnavailableError("", "x.pth", "No such file.")) == "No weights 'x.pth': No such file."


def test_a_long_list_of_keys_is_shortened_and_counted() -> None:
    text = str(WeightsMismatchError("row", "file", [f"key{index}" for index in range(9)], [], {}))
    assert "key4 and 4 more" in text
    assert "key5" not in text
    assert "unexpected" not in text


ESCAPES = "\x1b[31m\x9b\u202e"

OF_OTHERS: list[ZooError] = [
    ManifestError("m.json", ESCAPES, ESCAPES + 10**6 * "f", "unknown field"),
    DownloadError({"https://a.test/x": f"the server answered HTTP 500 {ESCAPES}"}),
    CheckpointError("x.pth", f"expected a state dict of tensors, but {ESCAPES} is not one."),
    UnsafeCheckpointError("x.pth", ESCAPES + 10**6 * "g"),
    WeightsMismatchError("row", ESCAPES, [10**6 * "k"], [ESCAPES], {10**6 * "s" + ESCAPES: ((1,), (2,))}),
    RunError("log.jsonl", ESCAPES, "x"),
    DatasetError(f"{ESCAPES}.jpg is not an image" + 10**6 * "!"),
    PublishError("owner/name", ESCAPES),
    ZooError(ESCAPES),
]


@pytest.mark.parametrize("error", OF_OTHERS, ids=lambda error: type(error).__name__)
def test_text_of_others_is_printable_and_short_in_every_message(error: ZooError) -> None:
    assert str(error).isprintable()
    assert "\\x1b[31m" in str(error)
    assert len(str(error)) < 6000
    assert "\x1b" in str(vars(error).values()) or "\\x1b" in repr(error.args)  # the facts stay as they are


def test_no_message_says_the_secrets_of_an_address() -> None:
    address = "http://alice:hunter2@host/x?sign=hunter2"
    for error in (
        ManifestError("m.json", "", "base_urls.0", f"expected an https URL, got {address!r}"),
        DownloadError({address: f"for url: {address}"}),
        IntegrityError(address, "00", "11"),
    ):
        assert "http://host/x" in str(error)
        assert "hunter2" not in str(error)


def test_the_lines_of_a_worker_s_error_stay_lines() -> None:
    assert str(DatasetError("Caught in a worker.\nTraceback:\n  x")) == "Caught in a worker.\nTraceback:\n  x"


def test_a_mismatch_that_fits_no_row_says_so() -> None:
    assert "It fits no other model" in str(WeightsMismatchError("row", "file", ["a"], [], {}))


def test_a_mismatch_keeps_every_key_although_it_prints_few() -> None:
    assert len(WeightsMismatchError("row", "file", map(str, range(9)), [], {}).missing) == 9


def test_known_names_given_as_an_iterator_are_kept() -> None:
    error = UnknownModelError("resnet5", iter(["resnet50"]))
    assert error.known == ("resnet50",)
    assert str(error) == str(error)


def test_an_address_is_not_followed_by_punctuation_that_a_click_would_take_in() -> None:
    assert ADDRESS_WITH_MORE.search("Every source failed (https://a.test/x: 404).")
    sentences = [str(error) for error in EXAMPLES.values()]
    assert any("https://" in sentence for sentence in sentences)
    assert [sentence for sentence in sentences if ADDRESS_WITH_MORE.search(sentence)] == []
