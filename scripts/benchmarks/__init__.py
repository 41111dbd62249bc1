"""The parts of ``scripts/benchmark.py``: each has a ``measure`` that prints its table.

Heavy imports stand inside the functions, because one part times them.
"""
