"""Time of a training step against Hugging Face's BertForPreTraining, and of three objectives against flat.

    python benchmarks/train_step.py [--sizes small,base] [--precisions fp32,bf16] [--rounds 7] [--json FILE]

Every row times two systems on the same batch in turns (A B A B ...) and gives medians. A step is forward, loss,
backward and optimizer, dropout 0.1 in both; sequences are full, so neither side needs a padding mask. On a CPU Hugging
Face and we have a process each (`own_process.py`) with the memory that users have; once more the peer keeps what it
frees, as training with the plugin does. What fairseq's trainer and the data cost beside it is in `train_pairs.py`,
where its time goes in `step_profile.py`.
"""

from dataclasses import replace
from functools import partial
from itertools import cycle

from hugging_face import UNLABELLED, BertTraining, shape_of
from model_step import ModelStep, Setting, make_batch
from own_process import Started, Step, System
from record import Recorder, Row, command_line
from systems import HIERARCHY
from turns import interleaved

from hmtl_plugin.commands.run import run_cli

BATCH = {"tiny": 16, "mini": 16, "small": 16, "medium": 8, "base": 8, "large": 4}
THREE, TRANSFER = HIERARCHY[1::2]


def their_step(setting: Setting, device: str) -> Step:
    """A step of BertForPreTraining on our batch."""
    batch = make_batch(setting)
    masked = batch.targets["mlm"]
    labels = batch.tokens_BT.new_full((setting.rows * setting.length,), UNLABELLED)
    labels[masked["positions"]] = masked["labels"]
    inputs = {
        "input_ids": batch.tokens_BT,
        "token_type_ids": batch.segments_BT,
        "labels": labels.view_as(batch.tokens_BT),
        "next_sentence_label": batch.targets["nsp"]["labels"],
    }
    inputs = {name: value.to(device) for name, value in inputs.items()} | {"tokens": labels.numel()}
    shape = shape_of(setting.layers, setting.hidden, setting.vocabulary)
    return BertTraining(shape, [inputs], device, setting.precision == "bf16")


def three_and_flat(setting: Setting, device: str) -> Step:
    """Three objectives with a transfer, then flat, and so on: both are ours, and one process measures their small
    difference best.
    """
    turns = cycle([ModelStep(replace(setting, hierarchy=THREE, transfer=TRANSFER), device), ModelStep(setting, device)])
    return lambda: next(turns)()


def measure(recorder: Recorder, setting: Setting, device: str, rounds: int) -> None:
    """The rows of one size and precision."""
    what = (setting, device)

    def add(suffix: str, peer_name: str, ours: Started, theirs: Started, uncounted: int = 1) -> None:
        def step(system: Started) -> float:
            system(uncounted)  # another may have had the caches
            return system(1).seconds

        found = interleaved({"ours": partial(step, ours), "peer": partial(step, theirs)}, rounds, 1)
        recorder.add(Row(f"{setting}{suffix}", "s", found["ours"], "lower", found["peer"], peer_name, device))

    peers = [("", "BertForPreTraining", System(their_step, what))]
    if device == "cpu":
        kept = System(their_step, what, keeps_memory=True)
        peers.append((", the peer keeps memory too", "BertForPreTraining", kept))
        peers.append((", memory kept", "memory given back", System(ModelStep, what)))
    with System(ModelStep, what, keeps_memory=True).start(device) as flat:
        for suffix, peer_name, system in peers:
            with system.start(device) as other:
                add(suffix, peer_name, flat, other)
    with System(three_and_flat, what, keeps_memory=True).start(device) as both:
        add(", three objectives with transfer", "our own flat step", both, both, uncounted=0)


def main() -> None:
    """Measure and print one line a row."""
    parser = command_line(__doc__, device=True)
    parser.add_argument("--sizes", default="small,base")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--rows", type=int, help="sequences in a batch (default: by size)")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with Recorder("train_step", args.json) as recorder:
        for precision in args.precisions.split(","):
            for size in args.sizes.split(","):
                setting = Setting.sized(size, args.rows or BATCH[size], precision)
                measure(recorder, setting, args.device, args.rounds)


if __name__ == "__main__":
    run_cli(main)
