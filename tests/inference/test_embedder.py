from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_zoo import Embedder, embed_files, predict
from resnet_zoo.errors import ArgumentError, DatasetError
from tests.conftest import make_class_tree, png_bytes, smooth_image, write_tar
from tests.inference.conftest import needs_int8

NUM_IMAGES = 11
BATCH = 4


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {f"{seed:02}.png": png_bytes(seed) for seed in range(NUM_IMAGES)}
    return write_tar(tmp_path_factory.mktemp("shards") / "s.tar", files)


def vectors_of(network: Path, paths: Any, output: Path, **options: Any) -> Any:
    embed_files(network, paths, output, **{"device": "cpu", "batch_size": BATCH, **options})
    return np.load(output)


@pytest.fixture(scope="module")
def expected(pet_file: Path, shard: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return vectors_of(pet_file, [shard], tmp_path_factory.mktemp("expected") / "expected.npy")


@pytest.mark.parametrize("kind", ["bytes", "arrays", "pixels", "paths", "structs", "list"])
def test_vectors_are_those_of_embed_however_images_are_dealt(
    kind: str, pet_file: Path, expected: Any, tmp_path: Path
) -> None:
    embedder = Embedder(pet_file, device="cpu", batch_size=BATCH, num_threads=2)
    images = [smooth_image(32, 32, seed=seed) for seed in range(NUM_IMAGES)]
    column: Any = np.empty(NUM_IMAGES, object)
    for row, image in enumerate(images):
        path = tmp_path / f"{row}.png"
        Image.fromarray(image).save(path)
        items = {"bytes": path.read_bytes(), "arrays": image, "paths": str(path), "structs": {"bytes": png_bytes(row)}}
        column[row] = items.get(kind, png_bytes(row))
    column = {"pixels": np.stack(images), "list": list(column)}.get(kind, column)
    for size in (1, 3, 4, 5, NUM_IMAGES) if kind == "bytes" else (5, NUM_IMAGES):
        for start in range(0, NUM_IMAGES, size):
            rows = slice(start, start + size)
            batch = embedder({"image": column[rows], "row": np.arange(NUM_IMAGES)[rows]})
            assert batch["embedding"].dtype == np.float32
            assert np.array_equal(batch["embedding"], expected[rows])
            assert batch["row"].tolist() == [*range(NUM_IMAGES)][rows]


@needs_int8
@pytest.mark.slow
def test_vectors_in_int8_are_those_of_embed_calibrated_on_the_same_folder(
    pet_file: Path, shard: Path, expected: Any, tmp_path: Path
) -> None:
    photos = make_class_tree(tmp_path / "photos", ["a", "b"], per_class=5)
    embedder = Embedder(pet_file, device="cpu", batch_size=BATCH, calibration=photos)
    images = {"image": [png_bytes(seed) for seed in range(NUM_IMAGES)]}
    found = embedder(images)["embedding"]
    assert np.array_equal(found, vectors_of(pet_file, [shard], tmp_path / "v.npy", calibration=photos))
    assert not np.array_equal(found, expected)
    twin = pickle.loads(pickle.dumps(embedder))  # as a worker gets it
    assert np.array_equal(twin(images)["embedding"], found)


def test_another_batch_size_makes_other_bits(pet_file: Path, shard: Path, expected: Any, tmp_path: Path) -> None:
    other = vectors_of(pet_file, [shard], tmp_path / "other.npy", batch_size=1)
    np.testing.assert_allclose(other, expected, rtol=1e-4, atol=1e-5)
    if np.array_equal(other, expected):
        pytest.skip("on this CPU the test above would not notice batches that are not filled up")


def test_it_pickles_as_its_arguments(pet_file: Path, expected: Any) -> None:
    embedder = Embedder(pet_file, device="cpu", batch_size=BATCH, image_column="photo", output_column="v")
    pickled = pickle.dumps(embedder)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    batch = again({"photo": [png_bytes(seed) for seed in range(NUM_IMAGES)]})
    assert np.array_equal(batch["v"], expected)


def test_unreadable_images_are_raised_or_left_out_with_their_rows(pet_file: Path, expected: Any) -> None:
    column = [png_bytes(0), b"broken", png_bytes(1), {"bytes": None, "path": "/etc/passwd"}, "missing.png"]
    options: dict[str, Any] = {"device": "cpu", "batch_size": BATCH}
    batch = {"image": column, "row": np.arange(5), "name": list("abcde")}
    with pytest.raises(DatasetError, match="Row 1 of the batch is not an image"):
        Embedder(pet_file, **options)(batch)
    found = Embedder(pet_file, skip_bad=True, **options)(batch)
    assert (found["row"].tolist(), found["name"], len(found["image"])) == ([0, 2], ["a", "c"], 2)
    assert np.array_equal(found["embedding"], expected[:2])


def test_an_empty_batch_has_no_vectors(pet_file: Path) -> None:
    assert Embedder(pet_file, device="cpu")({"image": []})["embedding"].shape == (0, 512)


def test_wrong_arguments_are_refused(pet_file: Path) -> None:
    with pytest.raises(ArgumentError, match="positive batch size"):
        Embedder(pet_file, batch_size=0)
    with pytest.raises(ArgumentError, match="positive number of"):
        Embedder(pet_file, num_threads=0)
    with pytest.raises(ArgumentError, match=r"no column 'image'; its columns are photo, label\. .*image_column"):
        Embedder(pet_file, device="cpu")({"photo": [], "label": []})


def test_threads_are_those_of_torch(pet_file: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert Embedder(pet_file, device="cpu")._pipeline.num_threads == 1
    finally:
        torch.set_num_threads(before)


def test_shards_are_predicted_too(pet_file: Path, shard: Path) -> None:
    found = predict(pet_file, shard, device="cpu", batch_size=BATCH)
    alone = predict(pet_file, [png_bytes(seed) for seed in range(NUM_IMAGES)], device="cpu", batch_size=BATCH)
    assert [prediction.image for prediction in found] == [f"{shard}/{seed:02}.png" for seed in range(NUM_IMAGES)]
    assert [prediction.classes for prediction in found] == [prediction.classes for prediction in alone]
