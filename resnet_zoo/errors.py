"""Every error of the package.

A constructor takes facts and passes all of them to ``super().__init__``, so that the error survives pickling
(data-loader workers, process pools); ``_sentence`` builds what a person reads: the fact, expected against got,
and one next step. ``exit_code`` is the exit code of the ``resnet-zoo`` command: 1 checked and wrong, 2 wrong usage,
3 could not be checked, 70 an error that the package does not expect, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike

from resnet_zoo.base.shown import LONGEST_SENTENCE, shown, suggestion

WRONG, USAGE, NOT_CHECKED, UNFORESEEN, STOPPED = 1, 2, 3, 70, 130

_SHOWN_KEYS = 5
"""How many keys of each kind an error message lists before it counts the rest."""


class ZooError(Exception):
    """Base of every error that resnet_zoo raises on purpose; ``exit_code`` is what the command exits with.

    Example:
        >>> try:
        ...     resnet_zoo.create_model("resnet51_in1k")
        ... except resnet_zoo.ZooError as error:
        ...     print(type(error).__name__, error.exit_code)
        UnknownModelError 2
    """

    exit_code: int = WRONG

    def __str__(self) -> str:
        return shown(self._sentence(), LONGEST_SENTENCE, keep="\n")

    def _sentence(self) -> str:
        return super().__str__()


class ArgumentError(ZooError, ValueError):
    """An argument with a value that is not allowed. Takes one sentence."""

    exit_code = USAGE


class UnknownModelError(ZooError, LookupError):
    """A name that no model of the manifest has.

    Attributes:
        name: The name asked for.
        known: The names and aliases of all models.
    """

    exit_code = USAGE

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        self.name, self.known = name, tuple(known)
        super().__init__(self.name, self.known)

    def _sentence(self) -> str:
        return f"There is no model {self.name!r}.{suggestion(self.name, self.known)} `resnet-zoo list` shows all."


class UnknownWeightsError(ZooError, LookupError):
    """Weights that are neither a tag of the model nor a file.

    Attributes:
        name: The model.
        tag: The tag or path asked for.
        known: The tags of the model.
    """

    exit_code = USAGE

    def __init__(self, name: str, tag: str, known: Iterable[str] = ()) -> None:
        self.name, self.tag, self.known = name, tag, tuple(known)
        super().__init__(self.name, self.tag, self.known)

    def _sentence(self) -> str:
        return (
            f"{self.name} has no weights {self.tag!r}, and no file has that path."
            f"{suggestion(self.tag, self.known)} Pass one of the tags ({', '.join(self.known)}) "
            "or the path of a .safetensors or .pth file."
        )


class UnknownLayerError(ZooError, LookupError):
    """A layer name that the network does not have.

    Attributes:
        layer: The name asked for.
        known: The layers of the network.
    """

    exit_code = USAGE

    def __init__(self, layer: str, known: Iterable[str] = ()) -> None:
        self.layer, self.known = layer, tuple(known)
        super().__init__(self.layer, self.known)

    def _sentence(self) -> str:
        return f"There is no layer {self.layer!r}.{suggestion(self.layer, self.known)} Known: {', '.join(self.known)}."


class ManifestError(ZooError, ValueError):
    """A manifest that cannot be read, or breaks a rule.

    Attributes:
        path: The manifest file.
        row: Name or index of the model; empty for the manifest itself.
        field: Dotted name of the model's field.
        why: What is wrong, expected against got.
    """

    def __init__(self, path: str | PathLike[str], row: str, field: str, why: str) -> None:
        self.path, self.row, self.field, self.why = str(path), row, field, why
        super().__init__(self.path, row, field, why)

    def _sentence(self) -> str:
        parts = (("model", self.row), ("field", self.field))
        place = ", ".join(f"{kind} {shown(name)}" for kind, name in parts if name)
        return f"{self.path}: {place + ': ' if place else ''}{self.why}"


class WeightsUnavailableError(ZooError):
    """Weights that were asked for and are unavailable. Random values never take their place.

    Attributes:
        name: The model; empty for a file that was named without a model.
        tag: The weight set, or the path of the file.
        why: Why they are unavailable, and what to do.
    """

    exit_code = NOT_CHECKED

    def __init__(self, name: str, tag: str, why: str) -> None:
        self.name, self.tag, self.why = name, tag, why
        super().__init__(name, tag, why)

    def _sentence(self) -> str:
        return f"No weights {self.tag!r}{' for ' + self.name if self.name else ''}: {self.why}"


class DownloadError(ZooError):
    """A file that no source delivered.

    Attributes:
        attempts: The answer of every source tried, in order.
        next_step: What to do about it, a sentence.
        has_wrong_bytes: Whether a source delivered a file with the wrong sha256: checked and wrong.
    """

    exit_code = NOT_CHECKED

    def __init__(
        self,
        attempts: Mapping[str, str],
        next_step: str = "Check the network, and run the same command again.",
        has_wrong_bytes: bool = False,
    ) -> None:
        self.attempts, self.next_step, self.has_wrong_bytes = dict(attempts), next_step, has_wrong_bytes
        if has_wrong_bytes:
            self.exit_code = WRONG
        super().__init__(self.attempts, next_step, has_wrong_bytes)

    def _sentence(self) -> str:
        tried = "; ".join(f"{source} ({answer})" for source, answer in self.attempts.items())
        return f"Every source failed: {tried}. {self.next_step}"


class IntegrityError(DownloadError):
    """A file with the wrong sha256.

    Attributes:
        path: The file.
        expected: The expected sha256, or its leading digits.
        actual: The sha256 of the file.
        note: What was done about it, a sentence.
    """

    exit_code = WRONG

    def __init__(self, path: str | PathLike[str], expected: str, actual: str, note: str = "") -> None:
        self.path, self.expected, self.actual, self.note = str(path), expected, actual, note
        self.attempts = {self.path: "wrong sha256"}
        self.next_step = "Fetch it again from its source; it was not used."
        ZooError.__init__(self, self.path, expected, actual, note)

    def _sentence(self) -> str:
        fact = f"{self.path} is not the file it should be: expected sha256 {self.expected}, got {self.actual}."
        return " ".join(filter(None, (fact, self.next_step, self.note)))


class PublishError(ZooError):
    """A repository on the Hugging Face Hub that could not be written.

    Attributes:
        repository: Its name, ``owner/name``.
        why: What went wrong, and what to do.
    """

    exit_code = NOT_CHECKED

    def __init__(self, repository: str, why: str) -> None:
        self.repository, self.why = repository, why
        super().__init__(repository, why)

    def _sentence(self) -> str:
        return f"Publishing to {self.repository} failed: {self.why}"


class ExportError(ZooError):
    """An exported file that does not compute what the network does. The file was not kept.

    Attributes:
        path: The target of the export.
        output: The name of the output that differs.
        batch_size: Images in the batch on which it differs.
        difference: The largest absolute difference.
        tolerance: The difference allowed, relative to the largest value where that is above 1.
    """

    def __init__(
        self, path: str | PathLike[str], output: str, batch_size: int, difference: float, tolerance: float
    ) -> None:
        self.path, self.output, self.batch_size = str(path), output, batch_size
        self.difference, self.tolerance = difference, tolerance
        super().__init__(self.path, output, batch_size, difference, tolerance)

    def _sentence(self) -> str:
        return (
            f"{self.path} was not written: for a batch of {self.batch_size} its {self.output} differ from the "
            f"network's by {self.difference:.2g}, expected at most {self.tolerance:g}. Update torch and the export "
            "packages, or choose the other format."
        )


class NonFiniteOutputError(ZooError):
    """An output that is infinite or NaN, which is not an answer. Takes one sentence; it names the layer."""


class CheckpointError(ZooError, ValueError):
    """A file that cannot be read as a checkpoint.

    Attributes:
        path: The file.
        why: What is wrong with it, and what to do.
    """

    def __init__(self, path: str | PathLike[str], why: str) -> None:
        self.path, self.why = str(path), why
        super().__init__(self.path, why)

    def _sentence(self) -> str:
        return f"{self.path} cannot be read as a checkpoint: {self.why}"


class UnsafeCheckpointError(CheckpointError):
    """A pickle that asks for more than tensors and plain values. None of its code was run.

    Attributes:
        path: The file.
        found: The name it asked for, for example ``posix.system``.
    """

    def __init__(self, path: str | PathLike[str], found: str) -> None:
        super().__init__(path, found)
        self.found = found

    def _sentence(self) -> str:
        return (
            f"{self.path} was refused: it asks for {shown(self.found)!r}, and a checkpoint may hold only tensors and "
            "plain values. Nothing in it was run. Get the weights from a source you trust."
        )


class WeightsMismatchError(ZooError, RuntimeError):
    """A checkpoint that does not fit the network.

    Attributes:
        name: The model (or network) the weights were meant for.
        source: Where the weights came from.
        missing: Keys that only the network has.
        unexpected: Keys that only the checkpoint has.
        shapes: (Shape in the network, shape in the checkpoint) of each key whose shapes differ.
        fits: Models that the checkpoint does fit.
    """

    def __init__(
        self,
        name: str,
        source: str,
        missing: Iterable[str],
        unexpected: Iterable[str],
        shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
        fits: Iterable[str] = (),
    ) -> None:
        self.name, self.source = name, source
        self.missing, self.unexpected, self.shapes = tuple(missing), tuple(unexpected), dict(shapes)
        self.fits = tuple(fits)
        super().__init__(name, source, self.missing, self.unexpected, self.shapes, self.fits)

    def _sentence(self) -> str:
        shapes = [f"{key} (expected {list(want)}, got {list(got)})" for key, (want, got) in self.shapes.items()]
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "wrong shape": tuple(shapes)}
        parts = [f"{kind}: {_shortened(items)}" for kind, items in kinds.items() if items]
        return f"{self.source} does not fit {self.name} ({'; '.join(parts)}). {self._advice()}"

    def _advice(self) -> str:
        if self.fits:
            return f"The file fits {' and '.join(self.fits)}: load it under that name."
        if not self.missing and not self.unexpected:
            got = {key: shape for key, (_, shape) in self.shapes.items()}
            if got.keys() == {"fc.weight", "fc.bias"} and len(got["fc.bias"]) == 1:
                return f"Only the number of classes differs: create_model(…, num_classes={got['fc.bias'][0]}) loads it."
            stem = got.get("conv1.weight") or got.get("conv1.0.weight")
            if len(got) == 1 and stem and len(stem) == 4:
                return f"Only the image channels differ: create_model(…, in_channels={stem[1]}) loads it."
        return "It fits no other model either: check which network it was saved from."


class RunError(ZooError):
    """A run folder or a training log that cannot be read, or is malformed.

    Attributes:
        path: The file or folder.
        place: Line and field within the file; empty for the file as a whole.
        why: What is wrong, expected against got.
    """

    exit_code = NOT_CHECKED

    def __init__(self, path: str | PathLike[str], place: str, why: str) -> None:
        self.path, self.place, self.why = str(path), place, why
        super().__init__(self.path, place, why)

    def _sentence(self) -> str:
        return f"{self.path}: {self.place + ': ' if self.place else ''}{self.why}"


class TrainingError(ZooError):
    """A training that cannot start or continue. Takes one sentence."""

    exit_code = NOT_CHECKED


class TrainingStopped(TrainingError):  # noqa: N818  # not a fault: somebody asked for it
    """A training that was asked to stop, and can be resumed.

    Attributes:
        folder: The run folder.
    """

    exit_code = STOPPED

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = str(folder)
        super().__init__(self.folder)

    def _sentence(self) -> str:
        return f"Stopped. {self.folder} has a snapshot. Run the same command again to resume."


class NonFiniteLossError(TrainingError):
    """A loss that is infinite or NaN.

    Attributes:
        folder: The run folder.
        step: The step, counted from 0 over the run.
        loss: The loss.
    """

    exit_code = WRONG

    def __init__(self, folder: str | PathLike[str], step: int, loss: float) -> None:
        self.folder, self.step, self.loss = str(folder), step, loss
        super().__init__(self.folder, step, loss)

    def _sentence(self) -> str:
        return (
            f"The loss of step {self.step} is {self.loss}, so training cannot continue. {self.folder} keeps its last "
            "good snapshot. Lower the learning rate (--set lr=…, or --lr), or train in a different precision."
        )


class DatasetError(ZooError):
    """A data set or an image that is missing, unreadable or wrong.

    Takes one string, because that is how a data loader raises a worker's error again.
    """

    exit_code = NOT_CHECKED


def _shortened(items: Iterable[str]) -> str:
    items = list(items)
    rest = len(items) - _SHOWN_KEYS
    return ", ".join(map(shown, items[:_SHOWN_KEYS])) + (f" and {rest} more" if rest > 0 else "")
