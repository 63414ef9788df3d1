"""Launch checks: a command that would train nothing, or twice into one folder, is corrected or refused.

fairseq accepts several launches that do harm without an error: processes of ``torchrun`` that never meet,
processes that are spawned one per GPU on a machine without one (exit status 0, nothing trained), ``--amp``,
which scales gradients down twice. `install` puts two checks around fairseq, for tasks of this plugin only:

- around ``call_main``, where ``fairseq-train`` and ``fairseq-validate`` decide how many processes run.
  ``--user-dir`` is imported while the command line is parsed, so the check is there by then, and can still
  complete the options.
- around ``Trainer.__init__``, which every training passes, also under ``fairseq-hydra-train``, where the
  plugin is imported after the processes have started: too late to correct, but not to refuse. The lock on the
  save-dir is taken here, and the step is made cheaper (`trainer_step`, `host_memory`).

One wrong launch stays unseen: under hydra, on a CPU, a ``tcp://`` init method without ``no_spawn``
starts no process at all: none of our code runs. ``recipes/configs/launch/gloo.yaml`` sets what is needed.
"""

import functools
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from hmtl_plugin.errors import UserError, system_message
from hmtl_plugin.fairseq_hooks.host_memory import keep_freed_memory
from hmtl_plugin.fairseq_hooks.resuming import check_checkpoint
from hmtl_plugin.fairseq_hooks.trainer_step import save_work
from hmtl_plugin.files.checkpoint_file import read_checkpoint
from hmtl_plugin.files.run_lock import hold_save_dir
from hmtl_plugin.optim.base import is_own, own_names

logger = logging.getLogger(__name__)

OUR_TASKS = ("hmtl", "squad", "glue")
CRITERIONS = {"hmtl_pretraining": "hmtl", "squad": "span_qa", "glue": "glue"}
TORCHRUN_KEYS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_EXPLODED = ("gradients are Nan/Inf", "Minimum loss scale reached")  # how fairseq's trainer says it
_WAIT_SECONDS = 5.0
_BEYOND_EPOCH = "Cannot resume training due to dataloader mismatch"
CPU_RECIPE = (
    "use recipes/pretrain_two_processes.sh, or put 'torchrun --nproc_per_node N --no-python' before the "
    "command and leave out the --distributed-... options"
)
GPU_RECIPE = "use recipes/pretrain_torchrun.sh"


def is_ours(cfg: Any) -> bool:
    """Whether ``cfg`` (a fairseq configuration) is of a task of this plugin."""
    name = getattr(getattr(cfg, "task", None), "_name", None)
    return isinstance(name, str) and name.startswith(OUR_TASKS)


def check_launch(cfg: Any, environ: Mapping[str, str], gpus: int | None = None, training: bool = True) -> None:
    """Complete the distributed options of ``cfg`` in place; raises `UserError` where that cannot be done.

    ``environ``: the environment (torchrun's variables); ``gpus``: visible GPUs, asked of torch when not
    given; ``training``: False for fairseq-validate.
    """
    gpus = torch.cuda.device_count() if gpus is None else gpus
    on_cpu = bool(cfg.common.cpu) or gpus == 0
    check_precision(cfg, on_cpu, training)
    if _torchrun_world_size(environ) > 1:
        if on_cpu and not training:
            raise UserError("validation on the CPU runs in one process: leave out torchrun")
        _join_torchrun(cfg.distributed_training, environ, gpus, on_cpu)
    elif on_cpu:
        _check_cpu(cfg.distributed_training, environ, gpus, training)
    else:
        _check_gpu(cfg.distributed_training, environ, gpus)


def check_precision(cfg: Any, on_cpu: bool, training: bool = True) -> None:
    """Refuse the precision options of fairseq that do not do what they say; raises `UserError`."""
    common = cfg.common
    if common.bf16 or common.memory_efficient_bf16:
        raise UserError("--bf16 means TPU in fairseq: use --autocast bf16")
    if common.tpu:
        raise UserError("--tpu is not supported: use a GPU, or --cpu")
    if common.amp:
        raise UserError("--amp of fairseq scales gradients down twice: use --autocast bf16")
    if on_cpu and (common.fp16 or common.memory_efficient_fp16):
        raise UserError("--fp16 needs a GPU: use --autocast bf16")
    if common.fp16 and str(getattr(cfg.task, "autocast", "none")) != "none":
        raise UserError("--fp16 and bf16 autocast exclude each other: leave out --fp16, or give --autocast none")
    optimizer = getattr(cfg.optimizer, "_name", None)
    own = is_own(optimizer)
    if training and common.memory_efficient_fp16 and own:
        raise UserError(
            "--memory-efficient-fp16 needs an optimizer of fairseq: add --optimizer adam, or use --autocast bf16"
        )
    flat = common.fp16 and not (common.memory_efficient_fp16 or common.fp16_no_flatten_grads)
    if training and flat and own:
        raise UserError(f"--fp16 with --optimizer {optimizer} needs --fp16-no-flatten-grads: add it")


def check_parts(cfg: Any) -> None:
    """Refuse a task without the criterion that is made for it, or without an optimizer; raises `UserError`."""
    needed = CRITERIONS.get(cfg.task._name)
    criterion, optimizer = (getattr(part, "_name", None) for part in (cfg.criterion, cfg.optimizer))
    if needed and criterion != needed:
        raise UserError(f"--task {cfg.task._name} needs --criterion {needed}, not {criterion}")
    if optimizer is None:
        raise UserError("no --optimizer: give one, as --optimizer hmtl_adamw")
    if getattr(cfg.task, "layer_decay", 1.0) != 1.0 and not is_own(optimizer):
        raise UserError(
            f"--layer-decay needs --optimizer {' or '.join(own_names())}: {optimizer} gives all layers one learning rate"
        )


def check_trainer(cfg: Any, environ: Mapping[str, str]) -> None:
    """What can be checked when the processes have started (see the module's text); locks the save-dir, sets up the
    memory.
    """
    on_cpu = bool(cfg.common.cpu) or not torch.cuda.is_available()
    check_precision(cfg, on_cpu)
    check_parts(cfg)
    if on_cpu:
        keep_freed_memory(environ)
    distributed = cfg.distributed_training
    world_size = _torchrun_world_size(environ)
    if world_size > 1 and distributed.distributed_world_size != world_size:
        raise UserError(
            f"torchrun started {world_size} processes, but distributed_training.distributed_world_size is "
            f"{distributed.distributed_world_size}: each would train alone; add +launch=gloo (on the CPU) or "
            "+launch=torchrun (on GPUs), which are files of recipes/configs"
        )
    if distributed.distributed_world_size > 1 and on_cpu:
        _set_cpu_backend(distributed)
    if not cfg.checkpoint.no_save and (distributed.distributed_rank or 0) == 0:
        save_dir = Path(cfg.checkpoint.save_dir)
        hold_save_dir(save_dir)
        for half in save_dir.glob("checkpoint*.pt.part"):  # of a killed run
            half.unlink(missing_ok=True)


def install() -> None:
    """Put the checks around fairseq's ``call_main`` and ``Trainer``; a second call does nothing.

    A `UserError` from anywhere in a training then ends the command with one line and exit status 1.
    """
    from fairseq.distributed import utils as distributed_utils
    from fairseq.trainer import Trainer
    from hydra.core.utils import JobReturn

    if hasattr(distributed_utils.call_main, "__wrapped__"):
        return
    distributed_utils.call_main = _checked_call_main(distributed_utils.call_main)
    Trainer.__init__ = _checked_init(Trainer.__init__)
    Trainer.load_checkpoint = _checked_load(Trainer.load_checkpoint)
    job_return: Any = JobReturn
    job_return.return_value = _one_line_result(job_return.return_value)


def _checked_call_main(call_main: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(call_main)
    def checked(cfg: Any, main: Callable[..., None], **kwargs: Any) -> None:
        if not is_ours(cfg):
            return call_main(cfg, main, **kwargs)
        try:
            # fairseq-validate is known by the argument that only it passes
            training = "override_args" not in kwargs
            check_launch(cfg, os.environ, training=training)
            updates = finished_updates(cfg) if training else None
            if updates is not None:
                logger.info(f"{cfg.checkpoint.save_dir}: finished at update {updates}; raise --max-update to train on")
                return
            call_main(cfg, main, **kwargs)
        except Exception as error:
            message = user_message(error)
            if message is None:
                raise
            _end_with(message, os.environ)

    return checked


def _checked_init(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def checked(self: Any, cfg: Any, *args: Any, **kwargs: Any) -> None:
        if is_ours(cfg):
            check_trainer(cfg, os.environ)
        init(self, cfg, *args, **kwargs)
        if is_ours(cfg):
            save_work(self)

    return checked


def _checked_load(load: Callable[..., Any]) -> Callable[..., Any]:
    """See `resuming`: fairseq stores a task's state and, when it trains on, never reads it."""

    @functools.wraps(load)
    def checked(self: Any, filename: str, *args: Any, **kwargs: Any) -> Any:
        if is_ours(self.cfg):
            check_checkpoint(self, filename, bool(kwargs.get("reset_optimizer", args[:1] and args[0])))
        return load(self, filename, *args, **kwargs)

    return checked


def _end_with(message: str, environ: Mapping[str, str]) -> NoReturn:
    """Exit status 1 and one line for all processes of torchrun on this machine: what is wrong is so for each of them.

    All but the first wait a little. If the first fails too, torchrun ends them meanwhile; else they say it.
    """
    sys.stdout.flush()  # fairseq logs there; the error comes last
    if _torchrun_world_size(environ) > 1 and environ.get("LOCAL_RANK", "0") != "0":
        time.sleep(_WAIT_SECONDS)
    sys.exit(f"error: {message}")


def _one_line_result(plain: property) -> property:
    """The result of a hydra job, at which hydra raises the job's error with a traceback."""

    def return_value(self: Any) -> Any:
        error = self._return_value
        message = user_message(error) if isinstance(error, Exception) else None
        if message is not None:
            _end_with(message, os.environ)
        return plain.fget(self)  # type: ignore[misc]

    return property(return_value, plain.fset)


def user_message(error: Exception) -> str | None:
    """The line of the `UserError` behind ``error``, None when there is none.

    A spawned process or a data loader worker hands its error on as text: a traceback that ends in the line. fairseq's
    trainer answers every error while loading a checkpoint by another one, which holds the first as its context.
    """
    link: BaseException | None = error
    while link is not None:
        text = str(link)
        carried = re.findall(
            r"^(?:hmtl_plugin\.[a-z_.]+\.)?(?:UserError|NonFiniteLoss): (.+)$", text, flags=re.MULTILINE
        )
        if carried:
            return str(carried[-1])
        if isinstance(link, UserError):
            return text
        if isinstance(link, FloatingPointError) and text.startswith(_EXPLODED):
            return f"{text.splitlines()[0].rstrip('.')}: lower --lr, warm up longer or set --clip-norm"
        if isinstance(link, RuntimeError) and text.startswith(_BEYOND_EPOCH):
            return (
                "the checkpoint stands in the middle of an epoch, and with these data, batches and processes an epoch "
                "ends before that place: train on with the --max-tokens, --batch-size, data and number of processes "
                "that it was trained with, or add --reset-dataloader to go on with the first epoch"
            )
        link = link.__cause__ or link.__context__
    return system_message(error)


def finished_updates(cfg: Any) -> int | None:
    """Updates of the run in the save-dir if it has reached ``--max-update``; fairseq would train one update more."""
    checkpoint, limit = cfg.checkpoint, cfg.optimization.max_update
    path = Path(checkpoint.save_dir) / "checkpoint_last.pt"
    if not limit or checkpoint.restore_file != "checkpoint_last.pt" or checkpoint.reset_optimizer or not path.is_file():
        return None
    history = read_checkpoint(str(path)).get("optimizer_history") or [{}]
    updates = int(history[-1].get("num_updates", 0))
    return updates if updates >= limit else None


def _torchrun_world_size(environ: Mapping[str, str]) -> int:
    """How many processes torchrun started; 1 when this is not one of them."""
    return int(environ["WORLD_SIZE"]) if all(key in environ for key in TORCHRUN_KEYS) else 1


def _join_torchrun(distributed: Any, environ: Mapping[str, str], gpus: int, on_cpu: bool) -> None:
    world_size = int(environ["WORLD_SIZE"])
    # the default is the number of GPUs of this machine, 1 without one: neither was asked for
    if distributed.distributed_world_size not in (1, gpus, world_size):
        raise UserError(
            f"--distributed-world-size {distributed.distributed_world_size}, but torchrun started "
            f"{world_size} processes: leave the option out"
        )
    local_processes = int(environ.get("LOCAL_WORLD_SIZE", "1"))
    if not on_cpu and local_processes > gpus:
        raise UserError(
            f"torchrun started {local_processes} processes on a machine with {gpus} GPU(s): give "
            f"--nproc_per_node {gpus}, or add --cpu"
        )
    distributed.distributed_world_size = world_size
    distributed.distributed_rank = int(environ["RANK"])
    distributed.distributed_init_method = distributed.distributed_init_method or "env://"
    distributed.distributed_no_spawn = True  # the processes are there
    distributed.device_id = 0 if on_cpu else int(environ.get("LOCAL_RANK", "0"))
    if on_cpu:
        _set_cpu_backend(distributed)


def _check_cpu(distributed: Any, environ: Mapping[str, str], gpus: int, training: bool) -> None:
    """One process started by hand, without GPU."""
    init_method = distributed.distributed_init_method
    if init_method is None and distributed.distributed_world_size == gpus:
        distributed.distributed_world_size = 1  # --cpu on a machine with GPUs: the default counts those
    if init_method is not None and not distributed.distributed_no_spawn:
        # fairseq spawns one process per GPU, here none: exit status 0, and nothing trained
        raise UserError(f"--distributed-init-method {init_method} on the CPU would start no process: {CPU_RECIPE}")
    if distributed.distributed_world_size == 1:
        if init_method is not None:
            _set_cpu_backend(distributed)
        return
    if not training:
        raise UserError("validation on the CPU runs in one process: leave out --distributed-world-size")
    if init_method is None or (init_method == "env://" and "MASTER_ADDR" not in environ):
        raise UserError(
            f"--distributed-world-size {distributed.distributed_world_size} on the CPU: nothing starts these "
            f"processes; {CPU_RECIPE}"
        )
    _set_cpu_backend(distributed)


def _check_gpu(distributed: Any, environ: Mapping[str, str], gpus: int) -> None:
    """One process started by hand, which fairseq multiplies by the GPUs; Slurm is left to fairseq."""
    if distributed.distributed_init_method is not None:
        return
    slurm = "SLURM_STEP_NODELIST" in environ or "SLURM_JOB_NODELIST" in environ
    if distributed.distributed_world_size > gpus and not slurm:
        raise UserError(
            f"--distributed-world-size {distributed.distributed_world_size} on a machine with {gpus} GPU(s): "
            f"leave it out to use them all; over several machines {GPU_RECIPE}"
        )


def _set_cpu_backend(distributed: Any) -> None:
    """Gradients meet over gloo, by the one wrapper of fairseq that works without GPUs."""
    if distributed.distributed_backend == "nccl":
        distributed.distributed_backend = "gloo"
    if distributed.ddp_backend in ("c10d", "pytorch_ddp"):
        distributed.ddp_backend = "legacy_ddp"
    elif distributed.ddp_backend not in ("no_c10d", "legacy_ddp"):
        raise UserError(f"--ddp-backend {distributed.ddp_backend} needs GPUs: use --ddp-backend legacy_ddp")
