"""What a measurement depends on beside the code: machine, versions, and the command, without anything private."""

import contextlib
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hmtl_plugin import results
from hmtl_plugin.parallel import cpu_count

REPOSITORY = Path(__file__).resolve().parents[1]
_PACKAGES = ("torch", "triton", "fairseq-fixed", "transformers", "numpy", "sentencepiece")
# what Linux calls an instruction set (x86 "flags", ARM "Features") -> its name; only those that decide how fast a step is
_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX BF16",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "BF16",
}
_GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """The first GPU.

    Attributes:
        name: as its driver says, which `flops.peak_tflops` understands.
        driver: version, empty if unknown.
        memory_gib: GiB (2^30 bytes), 0 if unknown.
        count: GPUs of the machine.
    """

    name: str
    driver: str
    memory_gib: int
    count: int = 1


@dataclass(frozen=True)
class Machine:
    """A machine, as far as it matters for speed; equal for equal machines, so that reports describe each once.

    Attributes:
        cpu: model name.
        cores: that this process may use.
        instruction_sets: of those that matter to us.
        memory_gib: GiB (2^30 bytes).
        virtual: runs under a hypervisor.
    """

    cpu: str
    cores: int
    instruction_sets: tuple[str, ...]
    memory_gib: int
    virtual: bool
    gpu: Gpu | None = None

    @classmethod
    def here(cls) -> "Machine":
        """This one."""
        about, flags = _cpu()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        names = tuple(name for flag, name in _INSTRUCTIONS.items() if flag in flags)
        return cls(about, cpu_count(), names, round(memory / _GIB), "hypervisor" in flags, _gpu())

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Machine":
        """From what a record holds."""
        gpu = Gpu(**values["gpu"]) if values["gpu"] else None
        return cls(**{**values, "instruction_sets": tuple(values["instruction_sets"]), "gpu": gpu})


def _cpu() -> tuple[str, set[str]]:
    """Model and instruction sets of the first core; what Python knows where Linux does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    first = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", text.split("\n\n")[0], re.MULTILINE))
    model = first.get("model name") or platform.processor() or platform.machine()
    return model.strip(), set((first.get("flags") or first.get("Features") or "").split())


def _gpu() -> Gpu | None:
    """By nvidia-smi, which starts no CUDA context in this process (a forked loader worker would inherit it)."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    if not found:
        return None
    name, driver, mebibytes = (part.strip() for part in found[0].split(","))
    return Gpu(name, driver, round(int(mebibytes) / 1024) if mebibytes.isdigit() else 0, len(found))


def memory(kind: str) -> int:
    """Bytes of this process, by Linux's name in ``/proc/self/status``: ``RssAnon``, or ``VmHWM``, its highest so far."""
    found = re.search(rf"^{kind}:\s*(\d+) kB$", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def versions() -> dict[str, str]:
    """Python and the installed ones of the packages that figures depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    if torch := sys.modules.get("torch"):
        found["torch"] = str(torch.__version__)  # says for which CUDA it was built, its package's version may not
    return found


def commit() -> str | None:
    """As `hmtl_plugin.results.commit`; the environment's HMTL_COMMIT in a copy without git's folder."""
    return results.commit() or os.environ.get("HMTL_COMMIT")


def command() -> str:
    """The command line as typed, with paths that mean the same on any machine: files of the repository relative to it,
    others by name (`/home/ann/data` -> `data`, `--json=/tmp/x.json` -> `--json=x.json`).
    """
    return shlex.join(["python", *map(_argument, sys.argv)])


def _argument(argument: str) -> str:
    option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    if ":" not in value and (value.startswith(("/", "~")) or ".." in Path(value).parts):
        value = _short(value)
    return public(option + equals + value)


def _short(path: str) -> str:
    resolved = Path(os.path.expanduser(path)).resolve()
    return str(resolved.relative_to(REPOSITORY)) if resolved.is_relative_to(REPOSITORY) else resolved.name


_ABSOLUTE = re.compile(r"(?<![\w.)\]}/])~?(?!//)(?:/[^\s/:=,;'\"]+)+")


def public(text: str) -> str:
    """The text without folders: each absolute path in it is made short. A unit such as tokens/s is no path."""
    return _ABSOLUTE.sub(lambda found: _short(found[0]), text)
