"""Fine-tune a checkpoint on SQuAD 1.1 or 2.0: from the official files to predictions and scores.

    python scripts/finetune_squad.py runs/books --train squad/train-v1.1.json --dev squad/dev-v1.1.json
    python scripts/finetune_squad.py runs/books --train squad/train-v2.0.json --dev squad/dev-v2.0.json --version-2

What comes out is in RUN/squad (RUN/squad2 with --version-2): model.pt, predictions.json, nbest.json and null_odds.json
of the best run in the official layout, a folder for each run; and a line for each run in RUN/results.jsonl.
"""

from pathlib import Path

from hmtl_plugin.checkpoints import load_vocabulary
from hmtl_plugin.commands import finetuning as command
from hmtl_plugin.finetuning.experiment import run_grid
from hmtl_plugin.finetuning.squad import DEFAULT_EPOCHS, SquadExperiment, usual_windows
from hmtl_plugin.reporting.finetuning import squad_table
from hmtl_plugin.results import read_results
from hmtl_plugin.squad.prepare import prepare_squad

GRID_NAMES = tuple(name for name in command.GRID_NAMES if name != "head-pooling")


def main() -> None:
    """The command line."""
    p = command.parser(__doc__, GRID_NAMES)
    p.add_argument("--train", required=True, type=Path, metavar="FILE", help="in SQuAD's JSON")
    p.add_argument("--dev", required=True, type=Path, metavar="FILE", help="measured on, and chosen by")
    p.add_argument("--version-2", action="store_true", help="a question may have no answer")
    p.add_argument("--doc-stride", type=int, metavar="N", help="tokens from a window to the next (128)")
    p.add_argument("--max-question-tokens", type=int, metavar="N", help="cut longer questions (64)")
    p.add_argument("--max-answer-tokens", type=int, metavar="N", help="longer spans are no answers (30)")
    args, extra = p.parse_known_args()
    settings = command.settings(args, extra)
    defaults = {"lr": settings.start.default_learning_rate(), "batch-size": "32", "epochs": DEFAULT_EPOCHS}
    cells = command.cells(args, defaults, GRID_NAMES)
    windows = usual_windows(settings.start.model["max_positions"])
    given = {name: getattr(args, name) for name in windows}
    windows |= {name: value for name, value in given.items() if value is not None}
    settings.start.options(windows["tokens_per_sample"], args.resize_positions)
    dictionary, tokenizer = load_vocabulary(settings.start.path)
    out = args.out or command.folder_of(settings.start) / ("squad2" if args.version_2 else "squad")
    prepared = prepare_squad(
        args.train,
        args.dev,
        None,
        out / "data",
        dictionary,
        tokenizer,
        command.workers(args),
        args.overwrite,
        args.version_2,
    )
    experiment = SquadExperiment(
        out, prepared.folder, prepared.manifest, args.version_2, windows, args.resize_positions, settings
    )
    print("\n".join(experiment.describe()), flush=True)
    best = run_grid(experiment, cells, settings)
    print(f"{out}: best run {best.folder.relative_to(out)}\n", flush=True)
    print(squad_table(read_results(settings.results)))
