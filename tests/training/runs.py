"""Small pre-training runs for tests: a made-up language in stock format, and fairseq-train in this process or another."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils, options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import utils as distributed_utils
from fairseq.logging import metrics
from fairseq_cli import train as fairseq_train

from hmtl_plugin import fairseq_hooks  # noqa: F401  as in fairseq-train
from hmtl_plugin.conformance import make_data as make_data  # for the tests that train on it

# Sums over two threads round otherwise than sums over one, and runs are compared to the last bit.
torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]
PLUGIN = str(ROOT / "hmtl_plugin")
HIERARCHY = ["--hierarchy", "bigram_shift@1,nsp@1,mlm@2", "--transfer", "nsp>mlm:concat"]
TINY = "--encoder-layers 2 --encoder-embed-dim 32 --encoder-attention-heads 2 --max-positions 64".split()


def arguments(data: Path | str, save_dir: Path, *extra: str) -> list[str]:
    """A fairseq-train command line; ``extra`` options come last and win."""
    return [
        *(str(data), "--user-dir", PLUGIN, "--task", "hmtl_pretraining", "--criterion", "hmtl", "--arch", "hmtl_bert"),
        *TINY,
        *HIERARCHY,
        *"--optimizer hmtl_adamw --lr 2e-3 --lr-scheduler polynomial_decay --total-num-update 200 --warmup-updates 3".split(),
        *"--tokens-per-sample 40 --max-tokens 400 --seed 3 --cpu --num-workers 0 --no-epoch-checkpoints".split(),
        *("--save-dir", str(save_dir)),
        *extra,
    ]


class _Statistics(logging.Handler):
    """Collects what ``--log-format json`` logs."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[dict[str, float]] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("{") and '"epoch"' in message:
            self.lines.append({key: float(value) for key, value in json.loads(message).items()})


def train(args: list[str]) -> list[dict[str, float]]:
    """``fairseq-train`` in this process, from a clean slate of fairseq's global state.

    Returns:
        The logged statistics in order: keys as in the log for training intervals, with ``train_`` at the end of an
        epoch, with ``valid_`` for validation.
    """
    metrics.reset()
    if hasattr(checkpoint_utils.save_checkpoint, "best"):
        del checkpoint_utils.save_checkpoint.best
    parser = options.get_training_parser()
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, [*args, "--log-format", "json"]))
    root, statistics = logging.getLogger(), _Statistics()
    level = root.level
    root.addHandler(statistics)
    root.setLevel(logging.INFO)
    try:
        distributed_utils.call_main(cfg, fairseq_train.main)
    finally:
        root.removeHandler(statistics)
        root.setLevel(level)
    return statistics.lines


def error_of(args: list[str]) -> str:
    """The one line with which `train` refuses or gives up."""
    with pytest.raises(SystemExit) as caught:
        train(args)
    message = str(caught.value.code)
    assert message.startswith("error: ") and "\n" not in message
    return message


def run(command: list[str], timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in another process, this repository importable, one thread."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env, check=False)


def train_in_two_processes(args: list[str], port: int) -> None:
    """``fairseq-train`` under torchrun, which talks over ``port``: each test has one of its own."""
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    result = run([sys.executable, *torchrun, "-m", "fairseq_cli.train", *args])
    assert result.returncode == 0, result.stderr[-3000:]


def fairseq_command(args: list[str], tool: str = "train") -> list[str]:
    """The console script ``fairseq-TOOL`` with the interpreter that runs the tests."""
    return [sys.executable, "-c", f"from fairseq_cli.{tool} import cli_main; cli_main()", *args]


def weights(save_dir: Path, name: str = "checkpoint_last.pt") -> dict[str, torch.Tensor]:
    """The model weights of a checkpoint."""
    state: dict[str, Any] = torch.load(save_dir / name, weights_only=True)
    return state["model"]


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Equal to the last bit."""
    assert one.keys() == other.keys()
    different = [key for key in one if not torch.equal(one[key], other[key])]
    assert not different, f"{len(different)} of {len(one)} tensors differ, first {different[0]}"
