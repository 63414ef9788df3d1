"""Memory that a step frees stays for the next one."""

import os
import platform
import subprocess
import sys

import pytest

from hmtl_plugin.fairseq_hooks import host_memory
from tests.conftest import REPOSITORY

_FAULTS = """
import resource, sys
import torch
from hmtl_plugin.fairseq_hooks.host_memory import keep_freed_memory

def step():  # two large blocks of other sizes in turns, as logits and gradients are
    for rows in (24_000, 30_000):
        torch.empty(rows, 512).zero_()

print(keep_freed_memory() if sys.argv[1] == "keep" else None)
for _ in range(10):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str, **variables: str) -> tuple[str, int]:
    environment = {**os.environ, **variables, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", _FAULTS, how]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    said, faults = done.stdout.split()
    return said, int(faults)


@pytest.mark.slow
def test_pages_are_mapped_once() -> None:
    said, kept = _faults("keep")
    assert said == str(platform.libc_ver()[0] == "glibc")
    if said == "False":  # another C library has other thresholds, which stay as they are
        return
    assert kept < 100
    assert _faults("not")[1] > 10_000  # else the test above shows nothing
    said, faults = _faults("keep", MALLOC_TRIM_THRESHOLD_="131072")
    assert said == "False"  # the user knows better
    assert faults > 10_000


@pytest.mark.parametrize(
    "variables", [{"MALLOC_MMAP_THRESHOLD_": "1"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1"}]
)
def test_what_the_user_set_stays(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "set_thresholds", lambda **_: pytest.fail("thresholds were set"))
    assert not host_memory.keep_freed_memory(variables)


def test_another_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda _: object())
    assert not host_memory.keep_freed_memory({})
