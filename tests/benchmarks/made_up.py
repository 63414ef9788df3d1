"""Records of machines that never were."""

from typing import Any

from machine import Gpu, Machine
from record import Record, Row

LAPTOP = Machine("AMD EPYC", 2, ("AVX2", "AVX-512"), 24, True)
SERVER = Machine(
    "Intel Xeon", 16, ("AVX2", "AVX-512", "AVX-512 BF16", "AMX BF16"), 128, False, Gpu("NVIDIA H100", "580.1", 80)
)


def made_up(rows: list[Row], machine: Machine = LAPTOP, **changes: Any) -> Record:
    """A record of an idle machine, with what ``changes`` says."""
    values: dict[str, Any] = {
        "benchmark": "loader",
        "machine": machine,
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "commit": "0123456789ab",
        "date": "2026-11-26T11:08Z",
        "command": "python benchmarks/loader.py",
        "load": (0.1, 1.1),
        "finished": True,
        "rows": tuple(rows),
    }
    return Record(**{**values, **changes})
