"""The table of faults, in its short form."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FAULTS = ROOT / "scripts" / "faults.py"


@pytest.mark.slow
def test_every_line_of_the_short_table_is_ok(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(FAULTS), "--short"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    lines = done.stdout.splitlines()
    assert lines[-1] == "every line is OK"
    assert len(lines) > 30
    assert all(" OK " in line for line in lines[1:-1])


def test_a_line_that_fails_ends_the_table_with_1(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.argv = ['faults.py']; sys.path.insert(0, {str(FAULTS.parent)!r})\n"
        "import faults; from faults import Outcome\n"
        "faults.experiments = lambda short: [('good', lambda: Outcome(2, 2)), ('bad', lambda: Outcome(2, 1))]\n"
        "sys.exit(faults.main())\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done.stderr
    assert [line.split()[3] for line in done.stdout.splitlines()[1:-1]] == ["OK", "FAIL"]
