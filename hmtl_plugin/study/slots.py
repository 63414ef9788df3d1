"""Where runs go: processors or GPUs, shared out among those that run side by side."""

import os
from dataclasses import dataclass

import torch

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.shape import whole
from hmtl_plugin.parallel import cpu_count


@dataclass(frozen=True)
class Slot:
    """What one run has for itself.

    Attributes:
        gpus: as CUDA numbers them in this process; none: the CPU.
        threads: of torch.
    """

    gpus: tuple[str, ...]
    threads: int

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return "cuda" if self.gpus else "cpu"

    @property
    def processes(self) -> int:
        """That share a training."""
        return max(1, len(self.gpus))

    def environment(self) -> dict[str, str]:
        """Of a command in this slot."""
        return {
            **os.environ,
            "CUDA_VISIBLE_DEVICES": ",".join(map(_physical, self.gpus)),
            "OMP_NUM_THREADS": str(self.threads),
            "TOKENIZERS_PARALLELISM": "false",
        }


def _physical(gpu: str) -> str:
    """What a child must be told: numbers count what CUDA_VISIBLE_DEVICES leaves of the machine's GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible.split(",")[int(gpu)].strip() if visible else gpu


def find_slots(devices: str, jobs: int, default_jobs: int, runs: int) -> list[Slot]:
    """Slots for ``--devices`` and ``--jobs``.

    Args:
        devices: ``auto`` (all GPUs, one a run; without any the CPU), ``cpu``, or GPU numbers: ``0,1,2,3`` for four runs
            side by side, ``0+1,2+3`` for two on two GPUs each.
        jobs: runs side by side on the CPU; 0: ``default_jobs``, and if that is 0, one a core.
        runs: how many there are; fewer than that could be side by side share all cores.

    Raises:
        UserError: for GPUs that are not there, or named twice.
    """
    if jobs < 0:
        raise UserError(f"--jobs {jobs}: give 1 or more, or 0 for the profile's")
    if devices == "auto":
        devices = ",".join(map(str, range(torch.cuda.device_count()))) or "cpu"
    if devices == "cpu":
        count = min(jobs or default_jobs or cpu_count(), runs)
        return [Slot((), max(1, cpu_count() // count))] * count
    groups = [tuple(group.split("+")) for group in devices.split(",")]
    named = [gpu for group in groups for gpu in group]
    there = torch.cuda.device_count()
    wrong = [gpu for gpu in named if (number := whole(gpu)) is None or number >= there]
    if wrong or len(set(named)) < len(named):
        raise UserError(
            f"--devices {devices}: this machine has {there} GPUs; write cpu, auto, or each number once, as in 0,1 or 0+1,2+3"
        )
    if jobs:
        raise UserError(f"--jobs {jobs} is for the CPU: with --devices {devices} one run goes to each group of GPUs")
    groups = groups[:runs]
    return [Slot(group, max(1, cpu_count() // len(groups))) for group in groups]
