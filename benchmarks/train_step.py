"""Time of a training step against Hugging Face's BertForPreTraining, and of three objectives against flat.

    python benchmarks/train_step.py [--sizes small,base] [--precisions fp32,bf16] [--json FILE]

Every row times two systems on the same batch in turns (A B A B ...) and gives medians. A step is forward,
loss, backward and optimizer, dropout 0.1 in both; sequences are full, so neither side needs a padding mask. On a CPU Hugging Face and we have a process each (`own_process.py`)
with the memory that users have; once more the peer keeps what it frees, as training with the plugin does.
What fairseq's trainer and the data cost beside it is in `train_pairs.py`, where its time goes in `step_profile.py`.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

# its CUDA build breaks transformers on CPU
sys.modules.setdefault("torchaudio", None)  # type: ignore[arg-type]

import torch  # noqa: E402
import transformers  # noqa: E402
from own_process import Started, Step, System  # noqa: E402
from record import Recorder, Row  # noqa: E402

import hmtl_plugin.objectives  # noqa: E402, F401  registers the objectives
from hmtl_plugin.commands.run import run_cli  # noqa: E402
from hmtl_plugin.models.hierarchical_bert import (  # noqa: E402
    ARCHITECTURES,
    HierarchicalBertConfig,
    HierarchicalBertModel,
)
from hmtl_plugin.objectives.base import build_objectives  # noqa: E402
from hmtl_plugin.optim.adamw import HmtlAdamW, HmtlAdamWConfig  # noqa: E402
from hmtl_plugin.precision import autocast, computes_in_bf16  # noqa: E402

VOCABULARY, LENGTH, MASK = 30522, 128, 4
BATCH = {"tiny": 16, "mini": 16, "small": 16, "medium": 8, "base": 8, "large": 4}
FLAT, THREE = ("nsp@-1,mlm@-1", ""), ("bigram_shift@50%,nsp@75%,mlm@100%", "nsp>mlm:concat")


def make_batch(rows: int, device: str, vocabulary: int = VOCABULARY, length: int = LENGTH) -> SimpleNamespace:
    """Full pairs ``<s> A </s> B </s>`` of random words, 15 % of them masked, half of them shift targets."""
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(5, vocabulary, (rows, length), generator=generator)
    ends_B = torch.randint(length // 4, 3 * length // 4, (rows,), generator=generator)
    tokens_BT[:, 0], tokens_BT[:, -1] = 0, 2
    tokens_BT[torch.arange(rows), ends_B] = 2
    draw_BT = torch.rand(rows, length, generator=generator)
    masked_BT = (draw_BT < 0.15) & (tokens_BT > 4)
    shift_N = ((draw_BT >= 0.5) & (tokens_BT > 4)).flatten().nonzero().squeeze(1)
    masked_M = masked_BT.flatten().nonzero().squeeze(1)
    labels_BT = tokens_BT.where(masked_BT, -100)
    targets = {
        "mlm": {"positions": masked_M, "labels": tokens_BT.flatten()[masked_M]},
        "nsp": {"positions": torch.arange(rows), "labels": torch.randint(2, (rows,), generator=generator)},
        "bigram_shift": {
            "positions": shift_N,
            "labels": torch.randint(2, (len(shift_N),), generator=generator),
        },
    }
    tokens_BT[masked_BT] = MASK
    segments_BT = (torch.arange(length) > ends_B[:, None]).long()
    to = lambda tensor: tensor.to(device)  # noqa: E731
    return SimpleNamespace(
        tokens_BT=to(tokens_BT),
        segments_BT=to(segments_BT),
        labels_BT=to(labels_BT),
        targets={name: {key: to(value) for key, value in target.items()} for name, target in targets.items()},
    )


def our_step(size: str, rows: int, device: str, bf16: bool, hierarchy: tuple[str, str] = FLAT) -> Step:
    """One training step of ``hmtl_bert`` with the objectives' own losses and our optimizer."""
    batch = make_batch(rows, device)
    torch.manual_seed(1)
    layers, hidden = ARCHITECTURES[size]
    config = HierarchicalBertConfig(
        hierarchy=hierarchy[0], transfer=hierarchy[1], encoder_layers=layers, encoder_embed_dim=hidden
    )
    names = [item.split("@")[0] for item in hierarchy[0].split(",")]
    objectives = build_objectives(names)
    task = SimpleNamespace(objectives=objectives, source_dictionary=["<mask>", *range(1, VOCABULARY)])
    model = HierarchicalBertModel.build_model(config, task).to(device).train()
    optimizer = HmtlAdamW(HmtlAdamWConfig(lr=[1e-4]), [p for p in model.parameters() if p.requires_grad])

    def step() -> int:
        optimizer.zero_grad()
        with autocast("bf16" if bf16 else "none", device):
            logits, _ = model(batch.tokens_BT, batch.targets, padded=False)
            losses = [objectives[name].loss(logits, batch.targets, LENGTH) for name in names]
        torch.stack([loss.scaled_sum for loss in losses]).sum().div(batch.tokens_BT.numel()).backward()
        optimizer.step()
        return int(batch.tokens_BT.numel())

    return step


def their_step(size: str, rows: int, device: str, bf16: bool) -> Step:
    """One training step of BertForPreTraining with its own loss and the AdamW its Trainer uses."""
    batch = make_batch(rows, device)
    torch.manual_seed(1)
    layers, hidden = ARCHITECTURES[size]
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
        attn_implementation="sdpa",
    )
    model = transformers.BertForPreTraining(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)

    def step() -> int:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = model(
                input_ids=batch.tokens_BT,
                token_type_ids=batch.segments_BT,
                labels=batch.labels_BT,
                next_sentence_label=batch.targets["nsp"]["labels"],
            ).loss
        loss.backward()
        optimizer.step()
        return int(batch.tokens_BT.numel())

    return step


def three_and_flat(size: str, rows: int, device: str, bf16: bool) -> Step:
    """Three objectives with a transfer, then flat, and so on: both are ours, and one process measures their small difference best."""
    turns = cycle([our_step(size, rows, device, bf16, THREE), our_step(size, rows, device, bf16)])
    return lambda: next(turns)()


def compare(first: Started, second: Started, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each, timed in turns after a warm-up round; where they differ, a step that does not count comes before each."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for system, times in zip((first, second), seconds, strict=True):
            if first is not second:
                system(1)
            took = system(1).seconds
            if number >= 1:
                times.append(took)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="small,base")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument(
        "--peers",
        default="hf,flat,memory",
        help="hf: against BertForPreTraining; flat: three objectives against flat; memory: kept against given back (CPU)",
    )
    parser.add_argument("--rows", type=int, help="sequences in a batch (default: by size)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="where to write the record")
    args = parser.parse_args()
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, {args.device}, "
        f"{torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, bf16 {'native' if computes_in_bf16(args.device) else 'emulated'}"
    )
    with Recorder("train_step", args.json) as recorder:
        for precision in args.precisions.split(","):
            for size in args.sizes.split(","):
                run(size, precision, args, recorder)


def run(size: str, precision: str, args: argparse.Namespace, recorder: Recorder) -> None:
    """The rows of one size and precision."""
    rows = args.rows or BATCH[size]
    step = (size, rows, args.device, precision == "bf16")
    device: Literal["cpu", "gpu"] = "gpu" if args.device == "cuda" else "cpu"

    def add(suffix: str, peer_name: str, first: Started, second: Started) -> None:
        ours, theirs = compare(first, second, args.rounds)
        what = f"{size}, {rows} x {LENGTH}, {precision}{suffix}"
        recorder.add(Row(what, "s", ours, better="lower", peer=theirs, peer_name=peer_name, device=device))

    if peers := peers_of(step, args.peers.split(","), args.device):
        with System(our_step, step, keeps_memory=True).start(args.device) as flat:
            for suffix, peer_name, system in peers:
                with system.start(args.device) as other:
                    add(suffix, peer_name, flat, other)
    if "flat" in args.peers.split(","):
        with System(three_and_flat, step, keeps_memory=True).start(args.device) as both:
            add(", three objectives with transfer", "our own flat step", both, both)


def peers_of(step: tuple[str, int, str, bool], chosen: Sequence[str], device: str) -> list[tuple[str, str, System]]:
    """What our flat step is compared with: rest of the row's name, name of the peer, the system."""
    peers = []
    if "hf" in chosen:
        peers.append(("", "BertForPreTraining", System(their_step, step)))
    if "hf" in chosen and device == "cpu":
        kept = System(their_step, step, keeps_memory=True)
        peers.append((", the peer keeps memory too", "BertForPreTraining", kept))
    if "memory" in chosen and device == "cpu":
        peers.append((", memory kept", "memory given back", System(our_step, step)))
    return peers


if __name__ == "__main__":
    run_cli(main)
