"""Tests. Under pytest-xdist the workers share the cores: more threads than cores wait for each other."""

import os

_NUM_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))

if _NUM_WORKERS > 1:  # before torch is imported here, and in every process that a test starts
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _NUM_WORKERS)))
