"""Launch checks: every wrong launch is corrected or refused; a save-dir has one training at a time."""

import copy
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf
from torch._utils import ExceptionWrapper

from hmtl_plugin.errors import UserError
from hmtl_plugin.fairseq_hooks import launch
from hmtl_plugin.files.run_lock import hold_save_dir

TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
TORCHRUN |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture(scope="module")
def parsed() -> Any:
    """What ``fairseq-train`` makes of a plain command line, under the name of our task."""
    parser = options.get_training_parser()
    command = "data --task masked_lm --arch roberta_base --criterion masked_lm --optimizer adam --lr 1e-3"
    arguments = options.parse_args_and_arch(parser, [*command.split(), "--max-tokens", "64"])
    cfg = convert_namespace_to_omegaconf(arguments)
    cfg.task._name, cfg.criterion._name = "hmtl_pretraining", "hmtl"
    cfg.distributed_training.distributed_world_size = 1
    return cfg


@pytest.fixture
def cfg(parsed: Any) -> Any:
    return copy.deepcopy(parsed)


def refused(cfg: Any, text: str, environ: dict[str, str] | None = None, **kwargs: Any) -> None:
    with pytest.raises(UserError, match=text) as error:
        launch.check_launch(cfg, environ or {}, **kwargs)
    assert "\n" not in str(error.value)


def test_a_plain_launch_is_left_alone(cfg: Any) -> None:
    before = copy.deepcopy(cfg)
    launch.check_launch(cfg, {}, gpus=0)
    assert cfg == before
    launch.check_launch(cfg, {}, gpus=1)
    assert cfg == before
    cfg.distributed_training.distributed_world_size = 4  # fairseq's default on a machine with 4 GPUs
    launch.check_launch(cfg, {}, gpus=4)
    assert cfg.distributed_training.distributed_world_size == 4


@pytest.mark.parametrize("world_size", [1, 2])
def test_torchrun_on_the_cpu_is_completed(cfg: Any, world_size: int) -> None:
    cfg.common.cpu = True
    distributed = cfg.distributed_training
    distributed.distributed_world_size = world_size
    launch.check_launch(cfg, TORCHRUN, gpus=0)
    assert (distributed.distributed_world_size, distributed.distributed_rank) == (2, 1)
    assert (distributed.distributed_backend, distributed.ddp_backend) == ("gloo", "legacy_ddp")
    assert distributed.distributed_init_method == "env://"
    assert distributed.distributed_no_spawn


def test_torchrun_on_gpus_is_completed(cfg: Any) -> None:
    distributed = cfg.distributed_training
    launch.check_launch(cfg, TORCHRUN, gpus=2)
    assert (distributed.distributed_world_size, distributed.distributed_rank) == (2, 1)
    assert distributed.device_id == 1
    assert (distributed.distributed_backend, distributed.ddp_backend) == ("nccl", "pytorch_ddp")
    assert distributed.distributed_no_spawn


def test_torchrun_over_two_machines_counts_all_processes(cfg: Any) -> None:
    cfg.distributed_training.distributed_world_size = 2  # the default: GPUs of this machine
    environ = TORCHRUN | {"WORLD_SIZE": "4", "RANK": "3"}
    launch.check_launch(cfg, environ, gpus=2)
    assert cfg.distributed_training.distributed_world_size == 4
    assert (cfg.distributed_training.distributed_rank, cfg.distributed_training.device_id) == (3, 1)


def test_torchrun_with_one_process_is_a_plain_launch(cfg: Any) -> None:
    launch.check_launch(cfg, TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"}, gpus=0)
    assert cfg.distributed_training.distributed_init_method is None


def test_torchrun_that_disagrees_with_options_or_machine(cfg: Any) -> None:
    refused(cfg, "machine with 1 GPU.*--nproc_per_node 1", TORCHRUN, gpus=1)
    cfg.distributed_training.distributed_world_size = 3
    refused(cfg, "torchrun started 2 processes: leave the option out", TORCHRUN, gpus=0)


def test_processes_that_nothing_starts(cfg: Any) -> None:
    cfg.common.cpu = True
    cfg.distributed_training.distributed_world_size = 2
    refused(cfg, "world-size 2 on the CPU.*recipes/pretrain_two_processes.sh", gpus=0)
    cfg.distributed_training.distributed_init_method = "tcp://localhost:29500"
    refused(cfg, "would start no process.*recipes/pretrain_two_processes.sh", gpus=0)
    cfg.distributed_training.distributed_world_size = 1  # fairseq: exit status 0, nothing trained
    refused(cfg, "would start no process", gpus=0)


def test_two_shells_on_the_cpu_keep_what_they_say(cfg: Any) -> None:
    distributed = cfg.distributed_training
    distributed.distributed_world_size, distributed.distributed_rank = 2, 1
    distributed.distributed_init_method, distributed.distributed_no_spawn = "tcp://localhost:29500", True
    launch.check_launch(cfg, {}, gpus=0)
    assert distributed.distributed_init_method == "tcp://localhost:29500"
    assert (distributed.distributed_rank, distributed.distributed_world_size) == (1, 2)
    assert (distributed.distributed_backend, distributed.ddp_backend) == ("gloo", "legacy_ddp")
    distributed.ddp_backend = "fully_sharded"
    refused(cfg, "fully_sharded needs GPUs.*legacy_ddp", gpus=0)
    distributed.distributed_init_method = "env://"
    refused(cfg, "nothing starts these processes", gpus=0)


def test_cpu_on_a_machine_with_gpus_is_one_process(cfg: Any) -> None:
    cfg.common.cpu = True
    cfg.distributed_training.distributed_world_size = 4  # fairseq's default there
    launch.check_launch(cfg, {}, gpus=4)
    assert cfg.distributed_training.distributed_world_size == 1


def test_more_processes_than_gpus(cfg: Any) -> None:
    cfg.distributed_training.distributed_world_size = 8
    refused(cfg, "machine with 2 GPU.*recipes/pretrain_torchrun.sh", gpus=2)
    launch.check_launch(cfg, {"SLURM_JOB_NODELIST": "node[0-3]"}, gpus=2)
    cfg.distributed_training.distributed_init_method = "tcp://node0:29500"
    launch.check_launch(cfg, {}, gpus=2)


@pytest.mark.parametrize(
    ("option", "gpus", "text"),
    [
        ("bf16", 1, "--bf16 means TPU.*--autocast bf16"),
        ("memory_efficient_bf16", 1, "--autocast bf16"),
        ("tpu", 1, "not supported"),
        ("amp", 1, "--amp .*--autocast bf16"),
        ("fp16", 0, "--fp16 needs a GPU.*--autocast bf16"),
        ("memory_efficient_fp16", 0, "--autocast bf16"),
    ],
)
def test_precision_options_that_do_harm(cfg: Any, option: str, gpus: int, text: str) -> None:
    cfg.common[option] = True
    refused(cfg, text, gpus=gpus)


@pytest.mark.parametrize("optimizer", ["hmtl_adamw", "hmtl_muon"])
def test_fp16_on_gpus(cfg: Any, optimizer: str) -> None:
    cfg.common.fp16 = True
    launch.check_launch(cfg, {}, gpus=1)
    cfg.optimizer._name = optimizer
    refused(cfg, f"--optimizer {optimizer} needs --fp16-no-flatten-grads", gpus=1)
    launch.check_launch(cfg, {}, gpus=1, training=False)
    cfg.common.fp16_no_flatten_grads = True
    launch.check_launch(cfg, {}, gpus=1)
    cfg.common.memory_efficient_fp16 = True
    refused(cfg, "--memory-efficient-fp16 .*--optimizer adam", gpus=1)
    cfg.optimizer._name = "adam"
    launch.check_launch(cfg, {}, gpus=1)


def test_layers_at_rates_of_their_own_need_an_optimizer_of_the_plugin(cfg: Any) -> None:
    cfg.task._name = "squad"
    cfg.criterion._name = "span_qa"
    OmegaConf.update(cfg, "task.layer_decay", 0.5, force_add=True)
    for optimizer in ("hmtl_adamw", "hmtl_muon"):
        cfg.optimizer._name = optimizer
        launch.check_parts(cfg)
    cfg.optimizer._name = "adam"
    with pytest.raises(UserError, match="needs --optimizer hmtl_adamw or hmtl_muon: adam gives all layers one"):
        launch.check_parts(cfg)


def test_fp16_weights_under_bf16_products(cfg: Any) -> None:
    cfg.common.fp16 = True
    OmegaConf.update(cfg, "task.autocast", "auto", force_add=True)
    refused(cfg, "exclude each other", gpus=1)


def test_validation_on_the_cpu_is_one_process(cfg: Any) -> None:
    refused(cfg, "leave out torchrun", TORCHRUN, gpus=0, training=False)
    cfg.distributed_training.distributed_world_size = 2
    refused(cfg, "leave out --distributed-world-size", gpus=0, training=False)


def call(cfg: Any, main: Callable[..., None], **kwargs: Any) -> None:
    """``call_main`` with its check around a stand-in for fairseq's."""
    launch._checked_call_main(lambda cfg, main, **kwargs: main(cfg, **kwargs))(cfg, main, **kwargs)


def test_other_tasks_pass_untouched(cfg: Any) -> None:
    def main(cfg: Any) -> None:
        raise UserError("not ours")

    cfg.task._name = "translation"
    cfg.common.amp = True
    with pytest.raises(UserError):
        call(cfg, main)


def test_a_user_error_ends_in_one_line(cfg: Any) -> None:
    def main(cfg: Any, **kwargs: Any) -> None:
        raise UserError("data/books: no dictionary")

    with pytest.raises(SystemExit) as end:
        call(cfg, main)
    assert end.value.code == "error: data/books: no dictionary"
    cfg.common.amp = True
    with pytest.raises(SystemExit, match="--amp"):
        call(cfg, main, override_args=None)


def test_other_errors_keep_their_traceback(cfg: Any) -> None:
    def main(cfg: Any) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        call(cfg, main)


def test_an_error_from_a_data_loader_worker_is_one_line() -> None:
    try:
        raise UserError("train.bin: truncated")
    except UserError:
        carried = ExceptionWrapper(where="in DataLoader worker process 0")  # what a worker sends
    with pytest.raises(UserError, match=r"^train.bin: truncated$") as error:
        carried.reraise()
    assert launch.user_message(error.value) == "train.bin: truncated"


def spawned(rank: int) -> None:
    raise UserError("train.bin: truncated")


@pytest.mark.slow  # a fresh interpreter imports everything again
def test_an_error_from_a_spawned_process_is_one_line() -> None:
    with pytest.raises(torch.multiprocessing.ProcessRaisedException) as error:
        torch.multiprocessing.spawn(spawned, nprocs=1)
    assert launch.user_message(error.value) == "train.bin: truncated"


def test_a_hydra_job_ends_in_one_line() -> None:
    from hydra.core.utils import JobReturn, JobStatus

    launch.install()
    job = JobReturn(status=JobStatus.FAILED)
    job.return_value = UserError("hierarchy: no layer 9")
    with pytest.raises(SystemExit, match="error: hierarchy: no layer 9"):
        _ = job.return_value
    job.return_value = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        _ = job.return_value
    assert JobReturn(status=JobStatus.COMPLETED, _return_value=3).return_value == 3


def test_install_twice_wraps_once() -> None:
    from fairseq.distributed import utils as distributed_utils
    from fairseq.trainer import Trainer

    launch.install()
    wrapped = distributed_utils.call_main, Trainer.__init__
    launch.install()
    assert wrapped == (distributed_utils.call_main, Trainer.__init__)
    assert not hasattr(wrapped[0].__wrapped__, "__wrapped__")


def test_the_trainer_refuses_processes_that_never_met(cfg: Any, tmp_path: Path) -> None:
    cfg.common.cpu = True
    cfg.checkpoint.save_dir = str(tmp_path / "run")
    with pytest.raises(UserError, match=r"each would train alone.*\+launch=gloo"):
        launch.check_trainer(cfg, TORCHRUN)
    assert not (tmp_path / "run").exists()
    cfg.distributed_training.distributed_world_size = 2
    launch.check_trainer(cfg, TORCHRUN)
    assert cfg.distributed_training.ddp_backend == "legacy_ddp"
    assert (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize(("no_save", "rank"), [(True, 0), (False, 1)])
def test_only_rank_0_of_a_run_that_saves_locks(cfg: Any, tmp_path: Path, no_save: bool, rank: int) -> None:
    cfg.checkpoint.save_dir, cfg.checkpoint.no_save = str(tmp_path / "run"), no_save
    cfg.distributed_training.distributed_rank = rank
    launch.check_trainer(cfg, {})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("cpu", "gpu", "kept"), [(False, False, True), (True, True, True), (False, True, False)])
def test_training_on_a_cpu_keeps_memory(
    cfg: Any, cpu: bool, gpu: bool, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    monkeypatch.setattr(launch, "keep_freed_memory", called.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    cfg.common.cpu, cfg.checkpoint.save_dir = cpu, str(tmp_path / "run")
    launch.check_trainer(cfg, {})
    assert bool(called) == kept


def hold(folder: Path, report: Connection) -> None:
    """In another process: take the lock, start a worker that outlives its parent, say so, and wait."""
    hold_save_dir(folder)
    worker = os.fork()
    if not worker:
        time.sleep(60)
        os._exit(0)
    report.send(worker)
    time.sleep(60)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Any]:
    """A process that holds the lock of ``tmp_path``, ended with its worker."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path, theirs))
    process.start()
    worker = ours.recv()
    yield process
    for pid in (process.pid, worker):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.join()


def test_one_training_a_folder(tmp_path: Path, holder: Any) -> None:
    with pytest.raises(UserError, match=rf"process {holder.pid} on .* is training into this folder") as error:
        hold_save_dir(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="is training"):
        hold_save_dir(tmp_path / "link")
    hold_save_dir(tmp_path / "other")

    os.kill(holder.pid, signal.SIGKILL)  # its worker lives on
    holder.join()
    hold_save_dir(tmp_path)
    hold_save_dir(tmp_path)  # again in this process: ours already
    assert f"process {os.getpid()} " in (tmp_path / ".lock").read_text()
