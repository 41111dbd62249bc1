"""What every command shares: errors as sentences."""

from __future__ import annotations

import errno

import pytest

from resnet_zoo.cli.shell import Failure, sentence_of


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "v.npy"), "v.npy: No space left on device. Make room there"),
        (OSError(errno.ENOSPC, "No space left on device"), "standard output: No space left on device. Make room there"),
        (OSError(errno.ENOSPC, "No space left on device", "a", None, "b"), "b: No space left on device. Make room"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied. Check the path and its perm"),
        (OSError("odd"), "odd. Check the path and its permissions."),
    ],
)
def test_an_error_of_the_system_names_the_place_and_the_next_step(error: OSError, sentence: str) -> None:
    assert sentence_of(error).startswith(sentence)


def test_a_failure_shows_no_codes_of_others() -> None:
    assert Failure("\x1b[31m.jpg: Permission denied", 3).message == "\\x1b[31m.jpg: Permission denied"
