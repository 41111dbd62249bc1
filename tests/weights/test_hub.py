"""From and to the Hugging Face Hub: its real client against a hub on loopback, each fact in a process of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from resnet_zoo import (
    convert_checkpoint,
    create_model,
    get_entry,
    measure_speed,
    open_network,
    push_to_hub,
    verify,
)
from resnet_zoo.catalog.records import Preprocess
from resnet_zoo.errors import (
    ArgumentError,
    CheckpointError,
    DownloadError,
    IntegrityError,
    PublishError,
    WeightsMismatchError,
    ZooError,
)
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.weights import hub, hub_files
from resnet_zoo.weights.hub_config import HubConfig
from resnet_zoo.weights.hub_files import reason
from resnet_zoo.weights.network_header import MAX_TEXT
from tests.conftest import randomise
from tests.hub_server import HubServer, in_new_process

ROW = "resnet18_cifar10"
OURS, THEIRS, FOREIGN = "someone/net", "someone/seven-classes", "timm/resnet18.test"


def images(channels: int = 3) -> Tensor:
    return torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(1))


def network(seed: int = 0, **options: Any) -> ResNet:
    torch.manual_seed(seed)
    model = randomise(create_model(options.pop("name", ROW), **options), seed).eval()
    assert isinstance(model, ResNet)
    return model


def seven_classes() -> ResNet:
    return network(7, num_classes=7, in_channels=1)


def foreign_files() -> dict[str, bytes]:
    """A repository as timm writes one: no word of ours, and weights without our header."""
    config = {
        "architecture": "resnet18",
        "num_classes": 1000,
        "num_features": 512,
        "pretrained_cfg": {"input_size": [3, 224, 224], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    }
    weights = safetensors.torch.save(network(3, name="resnet18").state_dict(), {"format": "pt"})
    return {"config.json": json.dumps(config).encode(), "model.safetensors": weights}


def push(repository: str, make: Callable[[], ResNet], class_names: list[str] | None = None) -> str:
    return push_to_hub(make(), repository, name=ROW, class_names=class_names)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    folder = tmp_path_factory.mktemp("hub")
    with HubServer(folder / "files") as running:
        environment = running.environment(folder / "maker")
        in_new_process(environment, push, OURS, network)
        in_new_process(environment, push, THEIRS, seven_classes, list("abcdefg"))
        running.add(FOREIGN, foreign_files())
        yield running


Ask = Callable[..., Any]


@pytest.fixture
def ask(server: HubServer, tmp_path: Path) -> Ask:
    """Return a function that calls another in a new process with the hub and an own Hugging Face cache."""

    def call(function: Callable[..., Any], *arguments: Any, **variables: str) -> Any:
        return in_new_process(server.environment(tmp_path / "hf") | variables, function, *arguments)

    return call


def logits(address: str, options: Mapping[str, Any], size: int = 32) -> Tensor:
    model = create_model(address, **options).eval()
    channels = model.state_dict()["conv1.weight"].shape[1]
    x = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model(x).clone()  # type: ignore[no-any-return]


def facts(address: str) -> dict[str, Any]:
    found = hub.open_repository(address)
    assert found.weights.local is not None
    return {
        "name": found.entry.name,
        "revision": found.weights.local.source.rpartition("@")[2],
        "num_classes": found.entry.num_classes,
        "in_channels": found.in_channels,
        "class_names": found.class_names,
        "sha256": found.weights.checkpoint.sha256,
        "path": found.weights.checkpoint.path,
    }


def blob(home: Path, repository: str, name: str) -> Path:
    """Return the file in Hugging Face's cache that holds the bytes."""
    folder = home / "hub" / f"models--{repository.replace('/', '--')}" / "snapshots"
    return next(folder.glob(f"*/{name}")).resolve()


def flip_a_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def facts_within(seconds: float, address: str) -> dict[str, Any]:
    hub_files._PATIENCE_S = seconds
    return facts(address)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["resolve", "storage"])
def test_a_hub_that_asks_to_come_back_in_days_is_given_up(step: str, ask: Ask, server: HubServer) -> None:
    server.faults[step] = (429, "", {"Retry-After": "259200"})
    start = time.monotonic()
    try:
        with pytest.raises(DownloadError, match=r"HTTP 429|got nothing for 2 s"):
            ask(facts_within, 2.0, f"hf-hub:{OURS}")
    finally:
        server.faults.clear()
    assert time.monotonic() - start < 30
    assert ask(facts_within, 10.0, f"hf-hub:{OURS}")["num_classes"] == 10


@pytest.mark.slow
def test_what_was_pushed_is_loaded_with_equal_logits(ask: Ask) -> None:
    expected = network()(images())
    assert torch.equal(ask(logits, f"hf-hub:{OURS}", {}), expected)


@pytest.mark.slow
def test_a_repository_keeps_its_classes_channels_and_names(ask: Ask, server: HubServer) -> None:
    found = ask(facts, f"hf-hub:{THEIRS}")
    assert (found["name"], found["num_classes"], found["in_channels"]) == (ROW, 7, 1)
    assert found["class_names"] == tuple("abcdefg")
    assert found["revision"] == server.repositories[THEIRS].main
    assert torch.equal(ask(logits, f"hf-hub:{THEIRS}", {}), seven_classes()(images(1)))


def commands(address: str, folder: str) -> list[str]:
    """Give a repository to what takes a row, and return what shows that it was taken."""
    (report,) = verify(address)
    written = convert_checkpoint(address, f"{folder}/net.safetensors")
    again = open_network(written.target)
    (speed,) = measure_speed(address, batch_sizes=[1], seconds=0.01, device="cpu").speeds
    statuses = {check.status for check in report.checks if check.name not in ("top1", "top5")}
    return [report.name, *statuses, written.source, *again.class_names[:1], speed.name]


@pytest.mark.slow
def test_a_repository_is_taken_where_a_row_is(ask: Ask, tmp_path: Path) -> None:
    address = f"hf-hub:{OURS}"
    assert ask(commands, address, str(tmp_path)) == [address, "passed", address, "airplane", address]


@pytest.mark.slow
def test_other_classes_and_channels_can_be_asked_for(ask: Ask) -> None:
    assert ask(logits, f"hf-hub:{THEIRS}", {"num_classes": 4}).shape == (2, 4)
    grey = ask(logits, f"hf-hub:{OURS}", {"in_channels": 1})
    torch.testing.assert_close(grey, network()(images(1).expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_repository_of_timm_is_loaded(ask: Ask) -> None:
    expected = network(3, name="resnet18")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(ask(logits, f"hf-hub:{FOREIGN}", {}, 64), expected(x))
    assert ask(facts, f"hf-hub:{FOREIGN}")["name"] == "resnet18_in1k"


@pytest.mark.slow
def test_an_old_revision_stays_readable(ask: Ask, server: HubServer) -> None:
    first = server.add("someone/moving", {**foreign_files(), "note.txt": b"1"})
    server.add("someone/moving", {"config.json": b"[]"})
    assert ask(facts, f"hf-hub:someone/moving@{first}")["revision"] == first
    with pytest.raises(CheckpointError):
        ask(facts, "hf-hub:someone/moving")


def test_files_and_card_are_what_the_hub_expects(server: HubServer) -> None:
    files = server.repositories[OURS].files("main")
    assert files is not None
    assert set(files) == {"config.json", "model.safetensors", "README.md"}
    config = json.loads(files["config.json"].path.read_text())
    assert config["architecture"] == "resnet18_cifar"
    assert config["pretrained_cfg"]["input_size"] == [3, 32, 32]
    assert config["pretrained_cfg"]["mean"] == [0.4914, 0.4822, 0.4465]
    assert config["resnet_zoo"]["sha256"] == files["model.safetensors"].sha256
    assert config["resnet_zoo"]["class_names"][0] == "airplane"
    card = files["README.md"].path.read_text()
    assert card.startswith("---\nlicense: apache-2.0\n")
    for fact in ("94.82", "11.17", "hf-hub:someone/net", "As printed", files["model.safetensors"].sha256):
        assert fact in card


def test_pushing_the_same_again_commits_nothing(ask: Ask, server: HubServer) -> None:
    before = server.repositories[OURS].main
    assert ask(push, OURS, network).endswith(f"/{OURS}/commit/{before}")
    assert server.num_commits(OURS) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("repository", "position"), [(OURS, 10), (OURS, -1), (FOREIGN, 2_000_000)])
def test_a_damaged_cache_is_fetched_again(
    ask: Ask, server: HubServer, tmp_path: Path, repository: str, position: int
) -> None:
    good = ask(facts, f"hf-hub:{repository}")
    damaged = blob(tmp_path / "hf", repository, "model.safetensors")
    flip_a_bit(damaged, position)
    server.requests.clear()
    assert ask(facts, f"hf-hub:{repository}") == good
    assert ("GET", f"/storage/{good['sha256']}") in server.requests
    server.requests.clear()
    assert ask(facts, f"hf-hub:{repository}") == good
    assert not [path for _, path in server.requests if path.startswith("/storage")]


@pytest.mark.slow
@pytest.mark.parametrize("repository", [OURS, FOREIGN])
def test_a_damaged_cache_is_an_error_where_nothing_can_be_fetched(ask: Ask, tmp_path: Path, repository: str) -> None:
    good = ask(facts, f"hf-hub:{repository}")
    flip_a_bit(blob(tmp_path / "hf", repository, "model.safetensors"), 2_000_000)
    with pytest.raises(IntegrityError, match=good["sha256"]):
        ask(facts, f"hf-hub:{repository}", RESNET_ZOO_OFFLINE="1")


@pytest.mark.slow
def test_a_damaged_configuration_is_fetched_again(ask: Ask, tmp_path: Path) -> None:
    good = ask(facts, f"hf-hub:{OURS}")
    flip_a_bit(blob(tmp_path / "hf", OURS, "config.json"), 5)
    with pytest.raises(CheckpointError, match="expected the hash"):
        ask(facts, f"hf-hub:{OURS}", HF_HUB_OFFLINE="1")
    assert ask(facts, f"hf-hub:{OURS}") == good


def test_weights_that_are_not_those_of_the_configuration_are_refused(ask: Ask, server: HubServer) -> None:
    files = server.repositories[OURS].files("main")
    assert files is not None
    other = {**foreign_files(), "config.json": files["config.json"].path.read_bytes()}
    server.add("someone/swapped", other)
    with pytest.raises(IntegrityError, match=files["model.safetensors"].sha256):
        ask(facts, "hf-hub:someone/swapped")


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [{"num_classes": 10**12}, {"num_classes": 11}, {"in_channels": 10**9}])
def test_a_configuration_that_asks_for_more_than_its_weights_have_is_refused_at_once(
    ask: Ask, server: HubServer, wrong: dict[str, int]
) -> None:
    files = server.repositories[OURS].files("main")
    assert files is not None
    config = json.loads(files["config.json"].path.read_text())
    config["resnet_zoo"]["class_names"] = None
    config["num_classes"] = wrong.get("num_classes", 10)
    config["resnet_zoo"]["in_channels"] = wrong.get("in_channels", 3)
    weights = files["model.safetensors"].path.read_bytes()
    server.add("someone/greedy", {"config.json": json.dumps(config).encode(), "model.safetensors": weights})
    with pytest.raises(CheckpointError, match=r"said to be a network of \d+ .*, but its weights have \d+"):
        ask(names, "hf-hub:someone/greedy")
    assert len(ask(names, f"hf-hub:{OURS}")) == 10


def names(address: str) -> tuple[str, ...]:
    return open_network(address).class_names


def offline_story() -> tuple[Tensor, list[str]]:
    said = []
    for call in (lambda: hub.open_repository(f"hf-hub:{FOREIGN}"), lambda: push(OURS, network)):
        with pytest.raises((DownloadError, PublishError)) as caught:
            call()
        said.append(str(caught.value))
    return logits(f"hf-hub:{OURS}", {}), said


def test_a_warm_cache_needs_no_network(ask: Ask, server: HubServer) -> None:
    expected = ask(logits, f"hf-hub:{OURS}", {})
    server.requests.clear()
    for variable in ("HF_HUB_OFFLINE", "RESNET_ZOO_OFFLINE"):
        found, said = ask(offline_story, **{variable: "1"})
        assert torch.equal(found, expected)
        assert all("offline mode is on" in text for text in said)
    assert server.requests == []


@pytest.mark.slow
def test_what_is_not_there_is_named(ask: Ask, server: HubServer) -> None:
    server.add("someone/empty", {"note.txt": b"nothing else"})
    server.add("someone/half", {"config.json": foreign_files()["config.json"]})
    for address, said in {
        "hf-hub:someone/nowhere": "repository not found",
        f"hf-hub:{OURS}@v9": "no such revision",
        "hf-hub:someone/empty": r"config\.json \(the repository has no such file",
        "hf-hub:someone/half": r"model\.safetensors \(the repository has no such file",
    }.items():
        with pytest.raises(DownloadError, match=said):
            ask(facts, address)


def test_a_hub_that_is_not_there_is_named(ask: Ask) -> None:
    with pytest.raises(PublishError, match=f"Publishing to {OURS} failed"):
        ask(push, OURS, network, HF_ENDPOINT="http://127.0.0.1:9")


@pytest.mark.slow
def test_a_token_is_needed_sent_and_not_passed_on(tmp_path: Path) -> None:
    with HubServer(tmp_path / "files", token="hf_right") as server:
        environment = server.environment(tmp_path / "hf")
        in_new_process(environment, push, OURS, network)
        assert in_new_process(environment, facts, f"hf-hub:{OURS}")["name"] == ROW
        others = environment | {"HF_HOME": str(tmp_path / "other")}
        with pytest.raises(DownloadError, match=r"not authorised \(HTTP 401\)"):
            in_new_process(others | {"HF_TOKEN": "hf_wrong"}, facts, f"hf-hub:{OURS}")
        with pytest.raises(DownloadError, match=r"repository not found \(HTTP 401\)"):
            in_new_process(others | {"HF_TOKEN": ""}, facts, f"hf-hub:{OURS}")
        with pytest.raises(PublishError, match=r"HTTP 401"):
            in_new_process(others | {"HF_TOKEN": "hf_wrong"}, push, "someone/new", network)
        assert "someone/new" not in server.repositories


def config_of(content: Any) -> HubConfig:
    data = b"{" if content is None else content if isinstance(content, bytes) else json.dumps(content).encode()
    return HubConfig.read(data, Path("config.json"))


CONFIGS: dict[str, tuple[Any, str]] = {
    "no JSON": (None, "not a configuration"),
    "a list": ([1], "not a configuration"),
    "empty": ({}, "'architecture' is missing"),
    "unknown architecture": ({"architecture": "vit_base"}, "'vit_base' is missing, or is not an architecture"),
    "unknown row": ({"resnet_zoo": {"name": "resnet19"}}, "'resnet19'"),
    "half of ours": ({"resnet_zoo": {"name": ROW}}, "'in_channels' is missing"),
    "no classes": ({"architecture": "resnet18", "num_classes": 0}, "positive integer, got 0"),
    "text for a number": ({"architecture": "resnet18", "num_classes": "10"}, "positive integer, got '10'"),
    "classes without end": ({"architecture": "resnet18", "num_classes": 10**400}, "at most 40 digits, got 401"),
    "a key twice": (b'{"architecture": "resnet18", "architecture": "resnet34"}', "'architecture' is given twice"),
    "nested without end": (b"[" * 100_000, "at most 64 levels"),
    "huge": (b" " * (MAX_TEXT + 1), "expected at most"),
    "short hash": ({"resnet_zoo": {"name": ROW, "in_channels": 3, "sha256": "12ab"}}, "64 hex digits, got '12ab'"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_makes_no_sense_is_an_error(case: str) -> None:
    content, said = CONFIGS[case]
    with pytest.raises(CheckpointError, match=said):
        config_of(content)


TIMM_A1: dict[str, Any] = {
    "architecture": "resnet18",
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
}


def test_images_get_in_as_a_configuration_of_timm_says() -> None:
    assert config_of(TIMM_A1).entry.preprocess == get_entry("resnet18").weights["timm_a1"].published[0].preprocess
    for change, said in (
        ({"interpolation": "lanczos"}, "one of bilinear, bicubic, got 'lanczos'"),
        ({"crop_mode": "squash"}, "expected center, got 'squash'"),
        ({"crop_pct": 0}, "0.01 to 1, got 0"),
        ({"input_size": [3, 10**9, 10**9]}, "of 1 to 2048"),
        ({"mean": [0.5]}, "three numbers of"),
    ):
        with pytest.raises(CheckpointError, match=said):
            config_of(TIMM_A1 | {"pretrained_cfg": TIMM_A1["pretrained_cfg"] | change})


@pytest.mark.slow
def test_a_set_of_others_is_pushed_with_its_own_rules_and_licence(ask: Ask, server: HubServer) -> None:
    ask(push_set, "someone/v2")
    files = server.repositories["someone/v2"].files("main")
    assert files is not None
    assert "license: bsd-3-clause" in files["README.md"].path.read_text()
    config = json.loads(files["config.json"].path.read_text())
    assert config["pretrained_cfg"]["crop_pct"] == pytest.approx(224 / 232)
    own = get_entry("resnet50").weights["torchvision_v2"].published[0].preprocess
    assert ask(preprocess_of, "hf-hub:someone/v2") == own


def push_set(repository: str) -> None:
    push_to_hub(create_model("resnet50"), repository, name="resnet50", weights="torchvision_v2")


def preprocess_of(address: str) -> Preprocess:
    return open_network(address).entry.preprocess


def test_older_files_of_timm_are_understood() -> None:
    config = config_of({"architecture": "resnet50d", "num_classes": 5, "input_size": [1, 224, 224]})
    assert (config.entry.name, config.entry.num_classes, config.in_channels) == ("resnetv1d50_in1k", 5, 1)
    config = config_of({"architecture": "resnet34", "pretrained_cfg": {"num_classes": 9}})
    assert (config.entry.name, config.entry.num_classes, config.in_channels) == ("resnet34_in1k", 9, 3)


@pytest.mark.parametrize("address", ["hf-hub:", "hf-hub:net", "hf-hub:a/b/c", "hf-hub:a/b@", "hf-hub:../b@c d"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ArgumentError, match="hf-hub:owner/name"):
        create_model(address)


def test_wrong_arguments_are_refused_before_anything_is_sent() -> None:
    model = network()
    calls: list[tuple[type[ZooError], Callable[[], object]]] = [
        (ArgumentError, lambda: push_to_hub(model, "net", name=ROW)),
        (ArgumentError, lambda: push_to_hub(model, OURS, name=ROW, class_names=["one"])),
        (ArgumentError, lambda: push_to_hub(nn.Sequential(model), OURS, name=ROW)),
        (WeightsMismatchError, lambda: push_to_hub(model, OURS, name="resnet34_cifar10")),
        (ArgumentError, lambda: create_model(f"hf-hub:{OURS}", weights="openmmlab")),
    ]
    for kind, call in calls:
        with pytest.raises(kind):
            call()


def timm_logits(address: str) -> Tensor:
    import timm

    model = timm.create_model(address, pretrained=True).eval()
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model(x).clone()  # type: ignore[no-any-return]


def push_v1d(repository: str) -> Tensor:
    model = network(5, name="resnetv1d50")
    push_to_hub(model, repository, name="resnetv1d50")
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model(x).clone()  # type: ignore[no-any-return]


@pytest.mark.peers
def test_timm_loads_what_was_pushed(ask: Ask) -> None:
    expected = ask(push_v1d, "someone/v1d")
    torch.testing.assert_close(ask(timm_logits, "hf-hub:someone/v1d"), expected)


def test_the_words_of_the_client_are_shown_without_what_signs_an_address() -> None:
    error = RuntimeError("500 Server Error for url: https://cdn.hub.test/x?X-Amz-Signature=hunter2\x1b[31m\nmore")
    assert reason(error) == "500 Server Error for url: https://cdn.hub.test/x"
    assert reason(RuntimeError("Odd\x1b[31m words")) == "Odd\\x1b[31m words"
