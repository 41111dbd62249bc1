"""What a model's page says: preprocessing, snippets, recipe, provenance and citation as titles and texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from resnet_zoo.base.shown import shown_address
from resnet_zoo.catalog.recipes import Recipe, recipes_of
from resnet_zoo.catalog.records import Entry, PageOrigin, UpstreamOrigin, WeightSet, WeightsFile
from resnet_zoo.checks.report import Report
from resnet_zoo.site.inputs import Training
from resnet_zoo.weights.hub_files import HubFile
from resnet_zoo.weights.places import FULL_SHA256_DIGITS, published_at, shipped_weights

_RESIZES = {
    "cv2": "OpenCV's bilinear resize, two taps and no antialiasing",
    "pillow": "Pillow's bilinear resize, antialiased",
    "pillow_bicubic": "Pillow's bicubic resize, antialiased",
}


def preprocess_lines(entry: Entry) -> list[tuple[str, str]]:
    """Return the steps from an image file to the network's input, in order."""
    rules = entry.preprocess
    steps = [("Decode", "RGB, the EXIF orientation applied")]
    if rules.resize_backend is None:
        steps.append(("Size", f"used as it is: {' × '.join(map(str, entry.input_size[1:]))} pixels"))
    else:
        steps += [
            ("Resize", f"short edge to {rules.short_edge} pixels; {_RESIZES[rules.resize_backend]}"),
            ("Crop", f"the central {rules.crop} × {rules.crop} pixels"),
        ]
    return [*steps, ("Normalise", "subtract the mean of each channel, divide by its standard deviation")]


def normalise_lines(entry: Entry) -> list[tuple[str, str]]:
    """Return mean and standard deviation as keyword arguments, on each scale that people paste them on."""
    rules = entry.preprocess
    return [
        (f"pixels from 0 to {scale}", f"mean={_on_scale(rules.mean, scale)}, std={_on_scale(rules.std, scale)}")
        for scale in (1, 255)
    ]


def _on_scale(values: Sequence[float], scale: int) -> str:
    return f"[{', '.join(f'{value * scale / 255:.7g}' for value in values)}]"


@dataclass(frozen=True)
class Snippet:
    """A piece of code to copy.

    Attributes:
        title: Where it is typed.
        language: Its language.
        code: The code.
        install: The command that makes it work there; may be empty.
        needs: What else it needs.
    """

    title: str
    language: str
    code: str
    install: str
    needs: str


def snippets_of(entry: Entry) -> tuple[Snippet, ...]:
    """Return how the row is used where the reader is: in a checkout, after pip, through torch.hub, in a shell.

    They name a weight set with a file where the default one has none: it needs no conversion.
    """
    name = entry.name
    tag = _tag_with_a_file(entry)
    weights = "pretrained=True" if tag is None else f'weights="{tag}"'
    option = "" if tag is None else f" --weights {tag}"
    shipped = shipped_weights(entry, tag or entry.default_weights)
    hub = (
        "import torch\n\n"
        "model = torch.hub.load(\n"
        f'    "path/to/resnet_zoo", "{name}", source="local",\n'
        f"    {weights},\n"
        ")\n"
        "model.eval()"
    )
    commands = (f"download {name}", f"predict {name} photo.jpg", f"verify {name}")
    fetched = "The weights ship with it." if shipped else "The first call downloads the weights and checks their hash."
    in_checkout = Snippet("Python, in a checkout", "python", _python(entry, weights), "pip install -e .", fetched)
    after_pip = Snippet("Python", "python", _python(entry, weights), "pip install resnet-zoo", fetched)
    if shipped:
        file = shipped.path.name
        after_pip = Snippet(
            "Python, installed with pip",
            "python",
            _python(entry, f'weights="{file}"'),
            "pip install resnet-zoo",
            f"The package has no weights: copy {file} from the checkout's {shipped.path.parent.name}/ folder.",
        )
    return (
        *((in_checkout,) if shipped else ()),
        after_pip,
        Snippet("torch.hub", "python", hub, "", f"Needs a checkout, which need not be installed. {fetched}"),
        Snippet(
            "Command line",
            "bash",
            "\n".join(f"resnet-zoo {command}{option}" for command in commands),
            "pip install -e ." if shipped else "pip install resnet-zoo",
            fetched,
        ),
    )


def _python(entry: Entry, weights: str) -> str:
    """Return lines of at most 66 characters, which fit into half of a page."""
    any_size = ", any_size=True" if entry.preprocess.resize_backend is None else ""  # a photo is not 32x32
    create = f"model = resnet_zoo.create_model(name, {weights}).eval()"
    if len(create) > 66:
        create = f"model = resnet_zoo.create_model(\n    name,\n    {weights},\n).eval()"
    return (
        "import resnet_zoo\n\n"
        f'name = "{entry.name}"\n'
        f"{create}\n"
        f"transform = resnet_zoo.create_transform(name{any_size})\n"
        'logits = model(transform("photo.jpg")[None])'
    )


def _tag_with_a_file(entry: Entry) -> str | None:
    """Return the weight set to name, or ``None`` where the default one is as good as any."""
    if entry.weights[entry.default_weights].file is not None:
        return None
    ours = (tag for tag, found in entry.weights.items() if found.file is not None and not found.published)
    return next(ours, None)


# --- recipe -------------------------------------------------------------------------------------------------------


def recipe_table(entry: Entry) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the names of a row's recipes, and for every line its title and a text for each recipe."""
    found = recipes_of(entry.recipe)
    columns = [dict(_recipe_lines(recipe, entry)) for recipe in found.values()]
    return list(found), [(title, [column[title] for column in columns]) for title in columns[0]]


def _recipe_lines(recipe: Recipe, entry: Entry) -> Iterator[tuple[str, str]]:
    form = ", Nesterov" if recipe.nesterov else ""
    decayed = "every parameter" if recipe.decay_all else "weights only, not batch-norm and biases"
    scale = f", static loss scale {recipe.loss_scale:g}" if recipe.loss_scale else ""
    yield "Epochs", str(recipe.epochs)
    yield "Images per step", f"{recipe.total_batch} over all devices"
    yield "Optimizer", f"SGD, momentum {recipe.momentum:g}{form}"
    biases = f"; {recipe.bias_lr_factor:g} times that for batch-norm biases" if recipe.bias_lr_factor != 1 else ""
    yield "Learning rate", f"{recipe.lr:g}; {_schedule(recipe)}{biases}"
    yield "Weight decay", f"{recipe.weight_decay:g} on {decayed}"
    yield "Label smoothing", f"{recipe.label_smoothing:g}" if recipe.label_smoothing else "none"
    yield "Augmentation", _augmentation(recipe)
    yield "Image size", _sizes(recipe, entry)
    yield "Initial values", _BEGINNINGS[recipe.initial_values]
    yield "Precision", f"{recipe.precision}{scale}"


_BEGINNINGS = {
    "upstream": "Kaiming normal, fan-out; the last batch-norm of each block zero; classifier N(0, 0.01)",
    "torch": "those of torch's layers",
}


def _schedule(recipe: Recipe) -> str:
    if recipe.schedule == "triangle":
        return f"rises over the first {recipe.warmup:.0%} of the training, then falls to zero, both linearly"
    return f"multiplied by {recipe.gamma:g} at epochs {', '.join(map(str, recipe.milestones))} (counted from 0)"


def _augmentation(recipe: Recipe) -> str:
    crop = {
        "pad_crop_flip": "4 pixels of zeros on each side, random crop to the original size",
        "resized_crop_flip": "random crop of 8 to 100% of the area, sides 3:4 to 4:3, resized",
    }[recipe.augmentation]
    flip = {"random": "flipped at random", "alternating": "flipped every other epoch"}[recipe.flip]
    cutout = f", a {recipe.cutout}-pixel square cut out" if recipe.cutout else ""
    return f"{crop}; {flip}{cutout}"


def _sizes(recipe: Recipe, entry: Entry) -> str:
    if not recipe.sizes:
        return f"{entry.input_size[-1]} pixels"
    shares = ", ".join(f"{share:.1%}".replace(".0%", "%") for share in recipe.size_milestones)
    return f"{', then '.join(map(str, recipe.sizes))} pixels, growing after {shares} of the training"


# --- provenance ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Link:
    """One link of the chain from the manifest to the tensors.

    Attributes:
        title: What it is.
        text: What is known of it.
        url: Its address, if it has one.
        sha256: Of it, or as many leading digits as are known; empty: none.
    """

    title: str
    text: str
    url: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Provenance:
    """The chain of a weight set."""

    tag: str
    is_default: bool
    license: str
    links: tuple[Link, ...]


def provenance_of(
    entry: Entry, manifest_sha256: str, report: Report | None, trainings: Sequence[Training]
) -> tuple[Provenance, ...]:
    """Return the chain of each weight set of a row; the last link only where a report has loaded these very bytes."""
    return tuple(
        Provenance(
            tag,
            tag == entry.default_weights,
            weights.license,
            (
                Link("Manifest", "weights_manifest.json, which this page was made from", sha256=manifest_sha256),
                *_origin_links(tag, weights, trainings),
                _file_link(weights),
                *_loaded_links(weights, report),
            ),
        )
        for tag, weights in entry.weights.items()
    )


def _origin_links(tag: str, weights: WeightSet, trainings: Sequence[Training]) -> Iterator[Link]:
    origin = weights.origin
    if isinstance(origin, UpstreamOrigin):
        known = len(origin.sha256_prefix)
        pin = "all 64 digits" if known == FULL_SHA256_DIGITS else f"{known} of 64 digits: a {4 * known}-bit pin"
        if (seen := origin.witness) is not None:
            size = f", and {seen.size_bytes:,} bytes" if seen.size_bytes else ""
            pin += f"{size}: {seen.source}, {seen.date}"
        yield Link("Upstream checkpoint", f"the manifest knows {pin}", origin.shown_url, origin.sha256_prefix)
        return
    if isinstance(origin, PageOrigin):
        yield Link("Described by its publisher", "who trained these weights", origin.page)
        return
    yield Link("Training", f"recipe {origin.recipe}, run folder {origin.run}")
    for training in trainings:
        if training.weights == tag and training.result is not None:
            data, made = training.environment.data, training.result
            commit = f", commit {training.environment.commit[:12]}" if training.environment.commit else ""
            yield Link("Training images", f"{data.num_train:,} of {data.train}", sha256=data.train_sha256)
            yield Link("Code", f"the package's sources{commit}", sha256=training.environment.code_sha256)
            yield Link("Weights of the run", f"{made.weights.path}, {made.weights.dtype}", sha256=made.weights.sha256)


def _file_link(weights: WeightSet) -> Link:
    if weights.file is None:
        return Link("File", "the checkpoint above, converted to safetensors on the user's machine")
    text = f"{weights.file.path}, {weights.file.size_bytes:,} bytes"
    return Link("File", text, _page_on_hub(weights.file), weights.file.sha256)


@dataclass(frozen=True)
class FileLink:
    """A weight set's file as a reader fetches it.

    Attributes:
        name: Its name.
        url: Where it is; empty: beside the manifest only.
        sha256: All 64 digits, or as many leading ones as are known.
    """

    name: str
    url: str
    sha256: str

    @property
    def is_whole(self) -> bool:
        """Whether the hash is known to its last digit."""
        return len(self.sha256) == FULL_SHA256_DIGITS


def file_of(weights: WeightSet) -> FileLink | None:
    """Return the file of a weight set, or the checkpoint that it is converted from; ``None`` if neither is known."""
    file, origin = weights.file, weights.origin
    if file is not None:
        place = published_at(file)
        url = _page_on_hub(file) or (shown_address(place) if place.startswith("https://") else "")
        return FileLink(HubFile.at(file.path).name if file.is_on_hub else file.name, url, file.sha256)
    if isinstance(origin, UpstreamOrigin):
        return FileLink(origin.file_name, origin.shown_url, origin.sha256_prefix)
    return None


def _page_on_hub(file: WeightsFile) -> str:
    """Return the page of a file on the Hub; empty for others."""
    if not file.is_on_hub:
        return ""
    found = HubFile.at(file.path)
    return f"https://huggingface.co/{found.repository}/blob/{found.revision}/{found.name}"


def _loaded_links(weights: WeightSet, report: Report | None) -> Iterator[Link]:
    chain = report.chain if report is not None else None
    if chain is None:
        return
    origin = weights.origin
    is_file = weights.file is not None and chain["file_sha256"] == weights.file.sha256
    is_source = isinstance(origin, UpstreamOrigin) and chain["source_sha256"].startswith(origin.sha256_prefix)
    if is_file or is_source:
        yield Link("Loaded file", f"{chain['file']} ({chain['pin']})", sha256=chain["file_sha256"])
        yield Link("Tensors in memory", "key, type, shape and bytes of each", sha256=chain["tensors_sha256"])


# --- citation -----------------------------------------------------------------------------------------------------

_RESNET = """@inproceedings{he2016deep,
  title     = {Deep Residual Learning for Image Recognition},
  author    = {He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  pages     = {770--778},
  year      = {2016}
}"""
_TRICKS = """@inproceedings{he2019bag,
  title     = {Bag of Tricks for Image Classification with Convolutional Neural Networks},
  author    = {He, Tong and Zhang, Zhi and Zhang, Hang and Zhang, Zhongyue and Xie, Junyuan and Li, Mu},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  pages     = {558--567},
  year      = {2019}
}"""


def citations_of(entry: Entry) -> str:
    """Return the papers of a row's architecture as BibTeX."""
    return f"{_RESNET}\n\n{_TRICKS}" if entry.architecture.startswith("resnetv1d") else _RESNET
