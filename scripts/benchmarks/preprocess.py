"""From a JPEG file to a network's input, on one core."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.timing import Contestants, Options, compare, jpeg_paths, one_thread


def measure(options: Options) -> None:
    """Print the table."""
    if options.images is None:
        click.echo("preprocess: not measured (give --images DIR)\n")
        return
    paths = jpeg_paths(options.images)
    with one_thread():
        title = f"Preprocess {len(paths)} JPEG files, one core"
        compare(title, preprocess_contestants(paths), options.rounds, len(paths))


def preprocess_contestants(paths: list[Path]) -> Contestants:
    from PIL import Image
    from torchvision import transforms

    from resnet_zoo import create_transform

    peer = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    plain, v1d = create_transform("resnet50"), create_transform("resnetv1d50")
    return {
        "resnet_zoo, resnet50 (cv2 resize)": lambda: [plain(path) for path in paths],
        "resnet_zoo, resnetv1d50 (pillow resize)": lambda: [v1d(path) for path in paths],
        "torchvision, PIL": lambda: [peer(Image.open(path).convert("RGB")) for path in paths],
    }
