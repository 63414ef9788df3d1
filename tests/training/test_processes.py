"""Two processes train as one with twice the accumulation; hydra trains as the command line does."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.training.runs import (
    PLUGIN,
    ROOT,
    arguments,
    assert_same_weights,
    run,
    train,
    train_in_two_processes,
    weights,
)

NO_DROPOUT = ["--dropout", "0", "--attention-dropout", "0"]


def test_two_processes_give_the_gradients_of_one(data: Path, tmp_path: Path) -> None:
    """Without dropout (whose draws differ by rank) the weights agree to the last bit; resumed in two processes
    half-way.
    """
    one = arguments(data, tmp_path / "one", *NO_DROPOUT, "--max-update", "8", "--update-freq", "2")
    train(one)
    for updates in ("5", "8"):
        two = arguments(data, tmp_path / "two", *NO_DROPOUT, "--max-update", updates)
        train_in_two_processes(two, port=29541)
    assert_same_weights(weights(tmp_path / "two"), weights(tmp_path / "one"))


def test_hydra_trains_as_the_command_line_does(data: Path, tmp_path: Path) -> None:
    new = [
        "--positions",
        "rotary",
        "--encoder-normalize-before",
        "--zero-init-outputs",
        "--local-init",
        "2",
        "--sentence-pooling",
        "aligned",
        "--bigram-head",
        "both",
    ]
    new += "--init-std 0.03 --mask-prob 0.4 --optimizer hmtl_muon --matrix-lr 0.02".split()
    train(arguments(data, tmp_path / "argparse", *new, "--max-update", "4"))
    overrides = f"""common.user_dir={PLUGIN} common.seed=3 ++common.cpu=true task.data={data} task.tokens_per_sample=40 task.autocast=none
        model.encoder_layers=2 model.encoder_embed_dim=32 ++model.encoder_attention_heads=2 ++model.max_positions=64
        ++optimizer.weight_decay=0.01 lr_scheduler.total_num_update=200 lr_scheduler.warmup_updates=3 optimization.lr=[0.002]
        optimization.max_update=4 optimization.clip_norm=0 dataset.max_tokens=400 dataset.num_workers=0
        checkpoint.save_dir={tmp_path / "hydra"} hydra.run.dir={tmp_path / "log"}""".split()
    overrides += ['model.hierarchy="bigram_shift@1,nsp@1,mlm@2"', 'model.transfer="nsp>mlm:concat"']
    overrides = ["--config-dir", str(ROOT / "recipes/configs"), "--config-name", "small", *overrides]
    script = "from fairseq_cli.hydra_train import cli_main; cli_main()"
    result = run([sys.executable, "-c", script, *overrides])
    assert result.returncode == 0, result.stderr[-3000:]
    assert_same_weights(weights(tmp_path / "hydra"), weights(tmp_path / "argparse"))


@pytest.mark.parametrize(("hierarchy", "said"), [("nsp@9", "'nsp@9' names no layer"), ("mlm@1", "ended by SIGKILL")])
def test_what_is_wrong_in_two_processes_is_said_once(hierarchy: str, said: str, data: Path, tmp_path: Path) -> None:
    """torchrun alone ends with a traceback of its own, and the line comes once a process."""
    args = arguments(data, tmp_path, "--hierarchy", hierarchy, "--transfer", "")
    kill = "import os, signal; os.environ['RANK'] == '1' and os.kill(os.getpid(), signal.SIGKILL)" * (
        hierarchy == "mlm@1"
    )
    script = tmp_path / "train.py"
    script.write_text(f"{kill}\nfrom fairseq_cli.train import cli_main; cli_main()")
    torchrun = ["-P", f"{PLUGIN}/fairseq_hooks/torchrun.py", "--nproc_per_node", "2", "--master_port", "29542"]
    result = run([sys.executable, *torchrun, str(script), *args])
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and said in errors[0] and result.stderr.splitlines()[-1] == errors[0]
    assert "Traceback" not in result.stderr and result.returncode == (1 if hierarchy == "nsp@9" else 128 + 9)


def test_a_wrong_launch_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        train(arguments(data, tmp_path, "--max-update", "2", "--distributed-world-size", "2"))
    assert "recipes/pretrain_two_processes.sh" in str(caught.value.code)
    shutil.rmtree(tmp_path)
