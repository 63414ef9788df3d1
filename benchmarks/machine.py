"""What a measurement depends on beside the code: machine, versions, and the command, without anything private."""

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        names = tuple(name for flag, name in _INSTRUCTIONS.items() if flag in flags)
        return cls(about, cores, names, round(memory / _GIB), "hypervisor" in flags, _gpu())

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Machine":
        """From what `to_json` gave."""
        gpu = Gpu(**values["gpu"]) if values["gpu"] else None
        return cls(**{**values, "instruction_sets": tuple(values["instruction_sets"]), "gpu": gpu})

    def to_json(self) -> dict[str, Any]:
        """For a record."""
        return asdict(self)


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


def versions() -> dict[str, str]:
    """Python and the installed ones of the packages that figures depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    torch = sys.modules.get("torch")
    if torch is not None:
        found["torch"] = str(torch.__version__)  # says for which CUDA it was built, its package's version may not
    return found


def commit() -> str | None:
    """As `hmtl_plugin.results.commit`; the environment's HMTL_COMMIT in a copy without git's folder."""
    from hmtl_plugin import results  # late: it imports fairseq, which reading records does not need

    return results.commit() or os.environ.get("HMTL_COMMIT")


def command() -> str:
    """The command line as typed, with paths that mean the same on any machine."""
    return shlex.join(["python", *map(_argument, sys.argv)])


def _argument(argument: str) -> str:
    """`/home/ann/data` -> `data`, `--json=/tmp/x.json` -> `--json=x.json`, files of the repository relative to it."""
    option, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    if not equals:
        value = argument if not option else ""
    leaves = ".." in Path(value).parts
    if value and (leaves or value.startswith(("/", "~"))) and ":" not in value:
        value = _short(Path(value).resolve() if leaves else Path(value))
    return public(f"{option}{equals}{value}")


def _short(path: Path) -> str:
    """Relative to the repository, or the name alone."""
    resolved = path.resolve() if path.exists() else path
    return str(resolved.relative_to(REPOSITORY)) if resolved.is_relative_to(REPOSITORY) else path.name


_ABSOLUTE = re.compile(r"(?<![\w.)\]}/])~?(?!//)(?:/[^\s/:=,;'\"]+)+")


def public(text: str) -> str:
    """The text without folders: each absolute path in it is made short. A unit such as tokens/s is no path."""
    return _ABSOLUTE.sub(lambda found: _short(Path(found[0])), text)
