"""Fine-tune a checkpoint on GLUE tasks: from the official files to predictions, metrics and leaderboard files.

    python scripts/finetune_glue.py runs/books RTE STS-B --glue-dir glue --seeds 1,2,3
    python scripts/finetune_glue.py runs/books all --glue-dir glue --grid lr=1e-4,3e-4 batch-size=16,32

TASK: CoLA SST-2 MRPC STS-B QQP MNLI (with its mismatched sets and AX) QNLI RTE WNLI SNLI, or all of which there are
files. What comes out is in RUN/glue/TASK: model.pt, the leaderboard's files, a folder for each run;
RUN/glue/submission.zip; and a line for each run in RUN/results.jsonl. The head reads what pre-training's
--sentence-pooling read, of single sentences their mean where that is made for pairs; --grid head-pooling=cls gives it
BERT's <s>.
"""

import itertools
from pathlib import Path

from hmtl_plugin.checkpoints import load_vocabulary
from hmtl_plugin.commands import finetuning as command
from hmtl_plugin.errors import UserError
from hmtl_plugin.finetuning.experiment import Settings, named, published_checkpoint, run_grid
from hmtl_plugin.finetuning.glue import GlueExperiment, usual_tokens
from hmtl_plugin.finetuning.pretrained import PretrainedCheckpoint
from hmtl_plugin.glue.prepare import prepare_glue
from hmtl_plugin.glue.submission import ZIP, zip_submission
from hmtl_plugin.glue.tasks import TASKS, choose_tasks, find_task
from hmtl_plugin.models.finetuned_heads import check_pooling, default_pooling
from hmtl_plugin.reporting.finetuning import glue_table
from hmtl_plugin.results import read_results

FROM_MNLI = ("RTE", "MRPC", "STS-B")


def main() -> None:
    """The command line."""
    p = command.parser(__doc__, command.GRID_NAMES)
    p.add_argument("tasks", nargs="+", metavar="TASK", help="tasks, or all")
    p.add_argument("--glue-dir", required=True, type=Path, metavar="DIR", help="holds a folder for each task")
    p.add_argument(
        "--from-mnli",
        action="store_true",
        help=f"start {', '.join(FROM_MNLI)} from the model that RUN/glue/MNLI holds, as RoBERTa did; into TASK-from-MNLI",
    )
    args, extra = p.parse_known_args()
    settings = command.settings(args, extra)
    tasks = choose_tasks(args.tasks, args.glue_dir)
    # refuse a wrong grid, and heads that a task cannot have, before anything is prepared
    cells, passed_on = command.cells(args, {}, command.GRID_NAMES), dict(named(settings.options))
    for cell, task in itertools.product(cells, tasks):
        check_pooling(task, passed_on.get("--head-pooling", cell.get("head-pooling", "cls")))
    out = args.out or command.folder_of(settings.start) / "glue"
    max_tokens = args.tokens_per_sample or usual_tokens(settings.start.model["max_positions"])
    settings.start.options(max_tokens, args.resize_positions)
    dictionary, tokenizer = load_vocabulary(settings.start.path)
    prepared = prepare_glue(
        tasks, args.glue_dir, out / "data", dictionary, tokenizer, command.workers(args), args.overwrite
    )
    # of the zip: what this checkpoint gave in earlier commands, and what this one makes
    published = [out / name for name in TASKS if published_checkpoint(out / name) == settings.start.sha256]
    folders = {folder.name: folder for folder in published}
    for data in prepared:
        name = data.manifest["task"]
        chosen, folders[name] = settings, out / name
        if args.from_mnli and name in FROM_MNLI:
            chosen, folders[name] = _from_mnli(settings, out), out / f"{name}-from-MNLI"
        experiment = GlueExperiment(
            folders[name], data.folder, data.manifest, max_tokens, args.resize_positions, chosen
        )
        defaults = {
            "lr": chosen.start.default_learning_rate(),
            "batch-size": "32",
            "epochs": experiment.default_epochs,
        }
        pooling = default_pooling(find_task(name), settings.start.pooling)
        if pooling != "cls" and "--head-pooling" not in passed_on:
            defaults["head-pooling"] = pooling
        best = run_grid(experiment, command.cells(args, defaults, command.GRID_NAMES), chosen)
        print(f"{experiment.folder}: best run {best.folder.relative_to(experiment.folder)}", flush=True)
    missing = zip_submission(folders, out / ZIP)
    print(f"{out / ZIP}: {'complete' if not missing else 'lacks ' + ', '.join(missing)}\n")
    print(glue_table(read_results(settings.results)))


def _from_mnli(settings: Settings, out: Path) -> Settings:
    """The same, starting from the MNLI model; the records keep the hierarchy of pre-training."""
    path = out / "MNLI" / "model.pt"
    if not path.is_file():
        raise UserError(f"--from-mnli: no {path}: fine-tune on MNLI first")
    if published_checkpoint(path.parent) != settings.start.sha256:
        raise UserError(
            f"--from-mnli: {path} was fine-tuned from another checkpoint than {settings.start.path}: fine-tune on MNLI again"
        )
    found = PretrainedCheckpoint.find(path)
    start = PretrainedCheckpoint(
        found.path, found.sha256, found.model, settings.start.hierarchy, settings.start.transfer
    )
    return Settings(**{**vars(settings), "start": start, "variant": f"{settings.variant} via MNLI"})
