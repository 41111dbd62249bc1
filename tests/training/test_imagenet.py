from __future__ import annotations

import io
import os
import pickle
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.catalog.datasets import NUM_IMAGES
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import ResizeBackend
from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.images import parquet_shards
from resnet_zoo.images.test_sets import Batch, in1k_variant
from resnet_zoo.training.crops import read_crop, uniform_numbers
from resnet_zoo.training.imagenet import ImageNetTraining
from tests.conftest import ENTRIES

PLAIN, V1D = get_entry("resnet18_in1k"), get_entry("resnetv1d50_in1k")
WNIDS = class_folders("in1k")
CHOSEN = [WNIDS[0], WNIDS[2], WNIDS[999]]
PER_CLASS = 4
NUM = len(CHOSEN) * PER_CLASS
Tree = Callable[..., Path]


@pytest.fixture
def root(class_tree: Tree) -> Path:
    """A folder with ``train/<wnid>/<image>.JPEG``: three classes of four images."""
    return class_tree(CHOSEN, split="train", per_class=PER_CLASS, size=60, suffix=".JPEG")


def reader(root: Path, **options: Any) -> ImageNetTraining:
    return ImageNetTraining(options.pop("entry", PLAIN), root, **{"partial": True, **options})


def joined(batches: Iterator[Batch]) -> tuple[Tensor, list[int]]:
    every = list(batches)
    return torch.cat([batch.pixels for batch in every]), torch.cat([batch.labels for batch in every]).tolist()


def whole_pass(images: ImageNetTraining, epoch: int = 0) -> Tensor:
    return joined(images.batches(range(images.num_images), epoch=epoch, batch_size=5))[0]


def listed(root: Path) -> list[Path]:
    return sorted((root / "train").glob("*/*"))


# --- batches -------------------------------------------------------------------------------------------------------


def test_a_batch_holds_the_crops_of_its_images_in_the_order_asked_for(root: Path) -> None:
    images = reader(root, seed=3)
    order = [7, 0, 11, 4, 4]
    batches = list(images.batches(order, epoch=2, batch_size=2))
    assert [tuple(batch.pixels.shape) for batch in batches] == [(2, 3, 224, 224)] * 2 + [(1, 3, 224, 224)]
    pixels, labels = joined(iter(batches))
    assert labels == [2, 0, 999, 2, 2]
    for index, image in zip(order, pixels, strict=True):
        data = np.fromfile(listed(root)[index], np.uint8)
        expected = read_crop(data, uniform_numbers(seed=3, epoch=2, index=index), (224, 224), "cv2", title="it")
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_batches_are_uint8_and_int64_in_channels_last_memory(root: Path) -> None:
    batch = next(reader(root).batches([0, 1, 2], epoch=0, batch_size=3))
    assert (batch.pixels.dtype, batch.labels.dtype) == (torch.uint8, torch.int64)
    assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
    assert batch.bad == []


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.dataset == "in1k"], ids=lambda entry: entry.name)
def test_every_row_resizes_with_its_own_backend(root: Path, entry: Any) -> None:
    backend: ResizeBackend = "pillow" if entry.architecture.startswith("resnetv1d") else "cv2"
    image = next(reader(root, entry=entry).batches([5], epoch=0, batch_size=1)).pixels[0]
    data, uniform = np.fromfile(listed(root)[5], np.uint8), uniform_numbers(seed=0, epoch=0, index=5)
    assert np.array_equal(image.permute(1, 2, 0), read_crop(data, uniform, (224, 224), backend, title="it"))


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_an_order_may_be_any_sequence(root: Path, kind: Callable[[list[int]], Any]) -> None:
    _, labels = joined(reader(root).batches(kind([8, 0]), epoch=0, batch_size=2))
    assert labels == [999, 0]


def test_an_empty_order_gives_no_batch(root: Path) -> None:
    assert list(reader(root).batches([], epoch=0, batch_size=2)) == []


def test_padding_repeats_the_same_crop_within_an_epoch(root: Path) -> None:
    pixels, _ = joined(reader(root).batches([3, 4, 3], epoch=0, batch_size=3))
    assert torch.equal(pixels[0], pixels[2])
    assert not torch.equal(pixels[0], pixels[1])


def test_seed_and_epoch_change_the_crops(root: Path) -> None:
    first = whole_pass(reader(root))
    assert torch.equal(whole_pass(reader(root)), first)
    for other in (whole_pass(reader(root), epoch=1), whole_pass(reader(root, seed=1))):
        assert all(not torch.equal(image, before) for image, before in zip(other, first, strict=True))


@pytest.mark.parametrize("done", [1, 2, 4])
def test_the_rest_of_an_order_gives_the_rest_of_the_batches(root: Path, done: int) -> None:
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(0))
    whole = list(reader(root).batches(order, epoch=1, batch_size=3))
    rest = list(reader(root).batches(order[3 * done :], epoch=1, batch_size=3))
    assert len(rest) == len(whole) - done
    assert all(torch.equal(new.pixels, old.pixels) for new, old in zip(rest, whole[done:], strict=True))


def test_workers_change_nothing_over_epochs_and_abandoned_passes(root: Path) -> None:
    alone, shared = reader(root), reader(root, num_workers=2)
    order = list(range(NUM))[::-1]
    for epoch in range(2):
        expected = list(alone.batches(order, epoch=epoch, batch_size=2))
        abandoned = shared.batches(order, epoch=epoch, batch_size=2)
        assert torch.equal(next(abandoned).pixels, expected[0].pixels)
        batches = list(shared.batches(order, epoch=epoch, batch_size=2))
        assert len(batches) == len(expected) == 6
        for batch, other in zip(batches, expected, strict=True):
            assert torch.equal(batch.pixels, other.pixels)
            assert torch.equal(batch.labels, other.labels)


def test_workers_stay_from_pass_to_pass(root: Path) -> None:
    images = reader(root, num_workers=1)

    def worker_pids() -> list[int]:
        whole_pass(images)
        return [worker.pid for worker in images._loader._iterator._workers]  # type: ignore[union-attr]

    assert worker_pids() == worker_pids()


def test_what_is_sent_to_the_trainings_process_group_does_not_reach_its_workers(root: Path) -> None:
    images = reader(root, num_workers=1)
    whole_pass(images)
    (worker,) = images._loader._iterator._workers  # type: ignore[union-attr]
    assert os.getpgid(worker.pid) == worker.pid != os.getpgid(0)


def test_what_workers_hold_survives_pickling_as_spawn_needs(root: Path) -> None:
    dataset = reader(root)._loader.dataset
    again = pickle.loads(pickle.dumps(dataset))
    items = [(0, 3), (0, 9)]
    assert torch.equal(again.__getitems__(items).pixels, dataset.__getitems__(items).pixels)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_spawned_workers_give_the_same_batches(root: Path) -> None:
    loader = reader(root)._loader
    items = [[(0, 3), (0, 9)], [(1, 2)]]
    spawned = DataLoader(
        loader.dataset,
        batch_sampler=items,
        num_workers=2,
        collate_fn=loader.collate_fn,
        multiprocessing_context="spawn",
    )
    expected = [loader.dataset.__getitems__(item) for item in items]  # type: ignore[attr-defined]
    assert all(torch.equal(new.pixels, old.pixels) for new, old in zip(spawned, expected, strict=True))


@pytest.mark.gpu
def test_batches_are_pinned_when_asked_for(root: Path) -> None:
    batch = next(reader(root, pin_memory=True).batches([0, 1], epoch=0, batch_size=2))
    assert batch.pixels.is_pinned()
    assert batch.labels.is_pinned()


# --- what the data set is called -----------------------------------------------------------------------------------


def test_the_sample_is_no_complete_training_split(root: Path) -> None:
    images = reader(root)
    assert (images.variant, images.num_images) == ("in1k-3of1000classes", NUM)
    assert images.labels.tolist() == [0] * 4 + [2] * 4 + [999] * 4


def test_only_the_complete_split_is_called_in1k() -> None:
    complete = NUM_IMAGES["train"]["in1k"]
    labels = (np.arange(complete) % 1000).tolist()
    assert in1k_variant(labels, 1000, complete=complete) == "in1k"
    assert in1k_variant(labels[:-1], 1000, complete=complete) == "in1k-1281166images"
    assert in1k_variant(labels[: 1000 - 1], 1000, complete=complete) == "in1k-999of1000classes"


def test_the_folder_may_be_the_class_folders_themselves(root: Path) -> None:
    direct = reader(root / "train")
    assert direct.fingerprint == reader(root).fingerprint
    assert torch.equal(whole_pass(direct), whole_pass(reader(root)))


def test_the_fingerprint_changes_with_a_name_a_size_and_a_class(root: Path) -> None:
    seen = {reader(root).fingerprint}
    file = listed(root)[0]
    renamed = file.rename(file.with_name("zzz.JPEG"))
    seen.add(reader(root).fingerprint)
    renamed.write_bytes(renamed.read_bytes() + b"\0")
    seen.add(reader(root).fingerprint)
    (root / "train" / CHOSEN[0]).rename(root / "train" / WNIDS[1])
    seen.add(reader(root).fingerprint)
    assert len(seen) == 4
    assert all(len(fingerprint) == 64 for fingerprint in seen)


def test_the_fingerprint_does_not_depend_on_where_the_folder_is(root: Path, tmp_path: Path) -> None:
    before = reader(root).fingerprint
    shutil.move(root, tmp_path / "elsewhere")
    assert reader(tmp_path / "elsewhere").fingerprint == before


# --- shards --------------------------------------------------------------------------------------------------------


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def pack_tar(root: Path, folder: Path, *, name: str = "shard-{}.tar", key: str = "{}") -> Path:
    """Pack the tree into two WebDataset shards, in its order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = listed(root)
    for number, part in enumerate((paths[:5], paths[5:])):
        with tarfile.open(folder / name.format(number), "w") as archive:
            for path in part:
                unique = key.format(f"{path.parent.name}_{path.stem}")
                add(archive, f"{unique}.cls", str(WNIDS.index(path.parent.name)).encode())
                add(archive, f"{unique}.jpg", path.read_bytes())
                add(archive, f"{unique}.json", b"{}")
    return folder


def pack_parquet(root: Path, folder: Path, *, nested: bool = True, name: str = "shard-{}.parquet") -> Path:
    """Pack the tree into two parquet shards of row groups of three, in its order."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    paths = listed(root)
    for number, part in enumerate((paths[:5], paths[5:])):
        images: list[Any] = [path.read_bytes() for path in part]
        if nested:
            images = [
                {"bytes": data, "path": f"{path.parent.name}_{path.name}"}
                for data, path in zip(images, part, strict=True)
            ]
        labels = [WNIDS.index(path.parent.name) for path in part]
        parquet.write_table(
            arrow.table({"image": images, "label": labels}), folder / name.format(number), row_group_size=3
        )
    return folder


def pack_flat_parquet(root: Path, folder: Path) -> Path:
    return pack_parquet(root, folder, nested=False)


PACKERS = [pack_tar, pack_parquet, pack_flat_parquet]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("pack", PACKERS)
def test_shards_give_the_batches_of_the_folder(pack: Any, num_workers: int, root: Path, tmp_path: Path) -> None:
    shards = reader(pack(root, tmp_path / "shards"), num_workers=num_workers)
    assert (shards.variant, shards.num_images) == ("in1k-3of1000classes", NUM)
    order = [11, 0, 6, 6, 3, 4, 5, 1]
    pixels, labels = joined(shards.batches(order, epoch=1, batch_size=3))
    expected, expected_labels = joined(reader(root).batches(order, epoch=1, batch_size=3))
    assert labels == expected_labels
    assert torch.equal(pixels, expected)


@pytest.mark.parametrize("pack", PACKERS)
def test_shards_survive_pickling_and_have_a_fingerprint(pack: Any, root: Path, tmp_path: Path) -> None:
    images = reader(pack(root, tmp_path / "shards"))
    again = pickle.loads(pickle.dumps(images._loader.dataset))
    assert torch.equal(again.__getitems__([(0, 9)]).pixels[0], whole_pass(images)[9])
    assert len(images.fingerprint) == 64
    assert reader(tmp_path / "shards").fingerprint == images.fingerprint


@pytest.mark.parametrize("folder", ["train", "data"])
def test_only_the_training_shards_of_a_folder_are_read(folder: str, root: Path, tmp_path: Path) -> None:
    shards = pack_tar(root, tmp_path / "set" / folder, name="imagenet-train-{}.tar")
    shutil.copy(shards / "imagenet-train-0.tar", shards / "imagenet-validation-0.tar")
    assert reader(tmp_path / "set").num_images == NUM


def test_shards_of_other_splits_alone_are_refused(root: Path, tmp_path: Path) -> None:
    pack_tar(root, tmp_path / "shards", name="validation-{}.tar")
    with pytest.raises(DatasetError, match=r"no training shards, only validation-0\.tar"):
        reader(tmp_path / "shards")


def test_keys_may_hold_folders_and_labels_line_ends(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as archive:
        for number, stem in enumerate(("a/0", "b/0")):
            add(archive, f"{stem}.JPEG", listed(root)[number].read_bytes())
            add(archive, f"{stem}.cls", f"{number}\n".encode())
    assert reader(folder).labels.tolist() == [0, 1]


@pytest.mark.parametrize("pack", PACKERS)
def test_shards_that_lack_classes_need_partial(pack: Any, root: Path, tmp_path: Path) -> None:
    pack(root, tmp_path / "shards")
    with pytest.raises(DatasetError, match="no images for 997 of 1000 classes"):
        reader(tmp_path / "shards", partial=False)


# --- what can be wrong with shards ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_a_truncated_tar_is_an_error_that_names_it(kept: float, root: Path, tmp_path: Path) -> None:
    shard = pack_tar(root, tmp_path / "shards") / "shard-1.tar"
    data = shard.read_bytes()
    shard.write_bytes(data[: int(len(data) * kept) // 7 * 7])
    with pytest.raises(DatasetError, match=r"shard-1\.tar"):
        reader(tmp_path / "shards")


def test_a_tar_that_stops_between_two_members_is_truncated(root: Path, tmp_path: Path) -> None:
    shard = pack_tar(root, tmp_path / "shards") / "shard-1.tar"
    with tarfile.open(shard) as archive:
        last = archive.getmembers()[-1]
    with shard.open("r+b") as file:
        file.truncate(last.offset)
    with tarfile.open(shard) as archive:
        assert len(archive.getmembers()) == 3 * 7 - 1  # tarfile sees nothing wrong
    with pytest.raises(DatasetError, match=r"shard-1\.tar is truncated or damaged after"):
        reader(tmp_path / "shards")


def test_a_damaged_header_inside_of_a_tar_is_found(root: Path, tmp_path: Path) -> None:
    shard = pack_tar(root, tmp_path / "shards") / "shard-1.tar"
    with tarfile.open(shard) as archive:
        header = archive.getmembers()[6].offset
    with shard.open("r+b") as file:
        file.seek(header + 148)
        file.write(b"9" * 8)  # its checksum
    with pytest.raises(DatasetError, match=r"shard-1\.tar is truncated or damaged after"):
        reader(tmp_path / "shards")


def test_a_tar_that_shrinks_while_it_is_read_is_named(root: Path, tmp_path: Path) -> None:
    images = reader(pack_tar(root, tmp_path / "shards"))
    with tarfile.open(tmp_path / "shards" / "shard-1.tar") as archive:
        last = archive.getmembers()[-2]
    with (tmp_path / "shards" / "shard-1.tar").open("r+b") as file:
        file.truncate(last.offset_data + 10)
    with pytest.raises(DatasetError, match=r"shard-1\.tar/n\d+_0003\.jpg is cut off"):
        whole_pass(images)


def write_tar(folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as archive:
        for name, data in members.items():
            add(archive, name, data)
    return folder


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({}, "a.tar holds no images"),
        ({"0.txt": b"x", "0.cls": b"1"}, "a.tar holds no images"),
        ({"0.jpg": b"x", "1.jpg": b"x", "1.cls": b"1"}, r"no .cls file for 1 of 2 images \(0.jpg\)"),
        ({"0.jpg": b"x", "0.cls": b"cat"}, "a.tar/0.cls holds b'cat'; expected a label"),
        ({"0.jpg": b"x", "0.cls": b"-1"}, "a.tar/0.cls holds b'-1'"),
        ({"0.jpg": b"x", "0.cls": b"1000"}, "a.tar/0.jpg has the label 1000; expected 0 to 999"),
        ({f"{WNIDS[7]}_1.jpg": b"x", f"{WNIDS[7]}_1.cls": b"8"}, f"label 8, which is {WNIDS[8]}.*another order"),
        ({f"{WNIDS[7]}/1.jpg": b"x", f"{WNIDS[7]}/1.cls": b"8"}, f"label 8, which is {WNIDS[8]}.*another order"),
    ],
    ids=["empty", "no image", "no label", "text", "negative", "too large", "other order", "other order, folder"],
)
def test_a_tar_with_wrong_contents_is_refused(members: dict[str, bytes], reason: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=reason):
        reader(write_tar(tmp_path / "shards", members))


def test_a_file_that_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"x" * 2000)
    with pytest.raises(DatasetError, match=r"a\.tar cannot be read as a tar archive"):
        reader(tmp_path)


def write_parquet(folder: Path, columns: dict[str, list[Any]]) -> Path:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder.mkdir(exist_ok=True)
    parquet.write_table(arrow.table(columns), folder / "a.parquet")
    return folder


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"img": [b"x"], "label": [1]}, "has the columns img, label; expected image and label"),
        ({"image": [b"x"]}, "has the columns image; expected image and label"),
        ({"image": [b"x"], "label": ["cat"]}, "row 0 has the label 'cat'; expected a whole number"),
        ({"image": [b"x"], "label": [None]}, "row 0 has the label None"),
        ({"image": [b"x", b"x"], "label": [1, -1]}, "row 1 has the label -1; expected 0 to 999"),
        ({"image": [{"bytes": b"x", "path": f"{WNIDS[7]}_1.JPEG"}], "label": [8]}, "another order"),
    ],
    ids=["no image", "no label", "text", "null", "negative", "other order"],
)
def test_a_parquet_file_with_wrong_contents_is_refused(
    columns: dict[str, list[Any]], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=rf"a\.parquet.*{reason}"):
        reader(write_parquet(tmp_path / "shards", columns))


def test_a_parquet_image_without_bytes_is_named(tmp_path: Path) -> None:
    images = reader(write_parquet(tmp_path / "shards", {"image": [{"bytes": None, "path": "a"}], "label": [1]}))
    with pytest.raises(DatasetError, match=r"a\.parquet, row 0 of row group 0, is empty"):
        whole_pass(images)


def test_a_damaged_parquet_file_is_named(root: Path, tmp_path: Path) -> None:
    shard = pack_parquet(root, tmp_path / "shards") / "shard-1.parquet"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"shard-1\.parquet cannot be read as parquet"):
        reader(tmp_path / "shards")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ArgumentError, match=r"pip install 'resnet-zoo\[parquet\]'"):
        reader(tmp_path)


def test_a_row_group_is_read_once_while_it_is_needed(root: Path, tmp_path: Path) -> None:
    images = reader(pack_parquet(root, tmp_path / "shards"))
    parquet_shards._row_group.cache_clear()
    whole_pass(images)
    assert parquet_shards._row_group.cache_info().misses == 5  # of 3, 2, 3, 3 and 1 rows
    assert parquet_shards._row_group.cache_info().currsize == 4


# --- what can be wrong with folders, images and arguments ----------------------------------------------------------


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere is not a folder"):
        reader(tmp_path / "nowhere")


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no images"):
        reader(tmp_path)


def test_missing_classes_need_partial(root: Path) -> None:
    with pytest.raises(DatasetError, match="no images for 997 of 1000 classes"):
        reader(root, partial=False)


def test_a_stray_folder_is_an_error(root: Path) -> None:
    (root / "train" / "n00000000").mkdir()
    with pytest.raises(DatasetError, match="not classes: n00000000"):
        reader(root)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("data", [b"", b"nothing of the kind", None], ids=["empty", "text", "truncated"])
def test_a_bad_image_is_named_and_later_passes_go_on(data: bytes | None, num_workers: int, root: Path) -> None:
    images, path = reader(root, num_workers=num_workers), listed(root)[4]
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2] if data is None else data)
    with pytest.raises(DatasetError, match=f"{path.parent.name}/{path.name} ") as caught:
        list(images.batches([0, 4], epoch=0, batch_size=1))
    assert "Traceback" not in str(caught.value)
    path.write_bytes(good)
    assert len(whole_pass(images)) == NUM


@pytest.mark.slow
def test_an_image_that_vanishes_is_named(root: Path) -> None:
    images = reader(root)
    listed(root)[3].unlink()
    with pytest.raises(DatasetError, match=r"0003\.JPEG cannot be read: No such file"):
        whole_pass(images)


@pytest.mark.parametrize("order", [[-1], [0, NUM], [[0, 1]], 3])
def test_indices_out_of_range_are_refused_before_anything_is_read(root: Path, order: Any) -> None:
    with pytest.raises(ArgumentError, match=f"indices from 0 to {NUM - 1}, got"):
        reader(root).batches(order, epoch=0, batch_size=2)


@pytest.mark.parametrize(("epoch", "batch_size"), [(-1, 2), (0, 0)])
def test_numbers_out_of_range_are_refused(root: Path, epoch: int, batch_size: int) -> None:
    with pytest.raises(ArgumentError, match=f"got {epoch} and {batch_size}"):
        reader(root).batches([0], epoch=epoch, batch_size=batch_size)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"seed": -1}, "seed"), ({"seed": 2**64}, "seed"), ({"num_workers": -1}, "num_workers of 0 or more, got -1")],
)
def test_options_out_of_range_are_refused(root: Path, options: dict[str, int], reason: str) -> None:
    with pytest.raises(ArgumentError, match=reason):
        reader(root, **options)


def test_a_cifar_row_is_refused(root: Path) -> None:
    with pytest.raises(ArgumentError, match="resnet18_cifar10 is trained on cifar10; expected an ImageNet model"):
        reader(root, entry=get_entry("resnet18_cifar10"))
