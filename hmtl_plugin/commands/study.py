"""Run a study: variants times seeds, each pre-trained, evaluated, fine-tuned and probed; every result recorded.

    python scripts/study.py --profile cpu --data data --out study
    python scripts/study.py --profile gpu --data data --out study --time-limit 25m

The same command again does what is not done. Records are in STUDY/records; scripts/study_report.py makes the report of
them, at any time. recipes/reproduce.sh does both.
"""

import argparse
import dataclasses
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.publishing import write_json
from hmtl_plugin.finetuning.grid import parse_seeds
from hmtl_plugin.results import commit, versions
from hmtl_plugin.study.plan import Run, make_plan, narrowed, plan_content
from hmtl_plugin.study.prepare import Prepared, prepare
from hmtl_plugin.study.profile import Profile, read_profile
from hmtl_plugin.study.records import PACKED, Records, pack
from hmtl_plugin.study.runner import Runner
from hmtl_plugin.study.slots import find_slots
from hmtl_plugin.study.sources import find_sources
from hmtl_plugin.study.stages import Context
from hmtl_plugin.study.toy import write_toy_data
from hmtl_plugin.study.variants import Variant, read_variants, reference
from hmtl_plugin.user_dir import add_option

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
STUDY = "study.json"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--profile", required=True, metavar="NAME", help="smoke, cpu, gpu, paper, or a TOML file like theirs"
    )
    p.add_argument(
        "--data", type=Path, metavar="DIR", help="glue/, squad/ and probing/ as published (smoke: made up without)"
    )
    p.add_argument("--out", required=True, type=Path, metavar="STUDY", help="everything of the study")
    p.add_argument(
        "--corpus", type=Path, metavar="DIR", help="pre-train on this binarised corpus, not on the tasks' text"
    )
    p.add_argument("--variants", default="", metavar="A,B", help="of the table, in place of the profile's")
    p.add_argument("--seeds", default="", metavar="N,N", help="in place of the profile's")
    p.add_argument("--table", type=Path, default=RECIPES / "variants.tsv", metavar="FILE", help="of variants")
    p.add_argument(
        "--reference", action="append", default=[], metavar="NAME=CHECKPOINT", help="a published checkpoint as a row"
    )
    p.add_argument("--only", default="", metavar="A,B", help="run these of the plan, as flat-seed1 (for a cluster)")
    p.add_argument("--list-open", action="store_true", help="prepare, print the runs that are not all recorded, end")
    p.add_argument(
        "--jobs", type=int, default=0, metavar="N", help="runs side by side on the CPU (default: the profile's)"
    )
    p.add_argument("--devices", default="auto", metavar="0,1", help="GPUs, one run each; 0+1,2+3: two for each; cpu")
    p.add_argument("--time-limit", metavar="TIME", help="begin no run that would end later than that: 90s, 25m, 3h")
    add_option(p)
    return p


def main() -> None:
    """The command line."""
    args, begun = parser().parse_args(), time.monotonic()
    profile, variants, references = _profile(args), read_variants(args.table), _references(args.reference)
    time_limit = _seconds(args.time_limit)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {args.out}: {error.strerror}: give a folder that can be written") from None
    data = args.data or _toy(profile, args.out)
    prepared = prepare(find_sources(profile, data), profile, args.out / "data", args.corpus)
    plan = make_plan(profile, variants, prepared, references)
    chosen = _only(plan, args.only)
    _write_study(args.out, profile, variants, references, prepared, plan)
    records = Records(args.out)
    if args.list_open:
        for run in chosen:
            if any(stage.fingerprint not in records for stage in run.stages):
                print(run.name)
        return
    slots = find_slots(args.devices, args.jobs, profile.jobs, len(chosen))
    context = Context(args.out, args.out / "data", profile)
    print(f"{args.out}: {len(plan)} runs, {len(slots)} side by side on {slots[0].device}", flush=True)
    if others := sorted(_commits(records, plan) - {commit()}):
        listed = ", ".join(others)
        print(
            f"note: what is recorded was made at commit {listed}, this is {commit()}: the report will name what is mixed",
            flush=True,
        )
    left = None if time_limit is None else time_limit - (time.monotonic() - begun)  # preparation counts
    outcome = Runner(context, records, slots, left).run(chosen)
    size = pack(args.out, args.out / PACKED)
    print(f"{args.out / PACKED}: {size / 1e6:.2f} MB, all that the report needs beside {STUDY}")
    if outcome.out_of_time:
        print(f"no time for {len(outcome.out_of_time)} runs: {', '.join(run.name for run in outcome.out_of_time)}")
    if outcome.failures:
        listed = "; ".join(map(str, outcome.failures))
        raise UserError(f"{len(outcome.failures)} failed, the same command tries them again: {listed}")


def _profile(args: argparse.Namespace) -> Profile:
    known = RECIPES / "profiles" / f"{args.profile}.toml"
    path = known if known.is_file() else Path(args.profile)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in known.parent.glob("*.toml")))
        raise UserError(f"--profile {args.profile}: use {names}, or a TOML file like recipes/profiles/cpu.toml")
    profile = read_profile(path)
    seeds = parse_seeds(args.seeds) if args.seeds else []
    blocks = narrowed(profile.plan, args.variants.split(",") if args.variants else [], seeds)
    lowest = min(seed for block in blocks for seed in block.seeds)
    if lowest < 1:
        raise UserError(f"seed {lowest}: number seeds from 1, as probes do")
    return dataclasses.replace(profile, plan=blocks)


def _toy(profile: Profile, out: Path) -> Path:
    if not profile.toy:
        raise UserError(f"--profile {profile.name} needs --data DIR, with glue/, squad/ and probing/ as published")
    return write_toy_data(out / "toy")


def _references(texts: list[str]) -> list[Variant]:
    references = [_reference(text) for text in texts]
    names = [variant.name for variant in references]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"--reference {twice[0]}: is given twice: choose another name for one")
    return references


def _reference(text: str) -> Variant:
    name, equals, checkpoint = text.partition("=")
    if not equals or not Path(checkpoint).exists():
        raise UserError(f"--reference {text}: write NAME=CHECKPOINT, a file or folder that is there")
    return reference(name, checkpoint)


def _only(plan: list[Run], text: str) -> list[Run]:
    names = text.split(",") if text else [run.name for run in plan]
    unknown = set(names) - {run.name for run in plan}
    if unknown:
        raise UserError(
            f"--only {text}: the plan has no run {sorted(unknown)[0]}: use {', '.join(run.name for run in plan)}"
        )
    return [run for run in plan if run.name in names]


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh])", text)
    if not found:
        raise UserError(f"--time-limit {text}: write a number and s, m or h, as in 25m")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def _commits(records: Records, plan: list[Run]) -> set[str]:
    """At which the plan's recorded stages were made, where it is known."""
    groups = [records.groups.get(stage.fingerprint) for run in plan for stage in run.stages]
    return {str(group[-1]["commit"]) for group in groups if group and group[-1].get("commit")}


def _write_study(
    out: Path,
    profile: Profile,
    variants: dict[str, Variant],
    references: list[Variant],
    prepared: Prepared,
    plan: list[Run],
) -> None:
    """What a report needs beside the records."""
    content: dict[str, Any] = {
        "schema": 1,
        "profile": dataclasses.asdict(profile),
        "variants": [dataclasses.asdict(variant) for variant in [*variants.values(), *references]],
        "prepared": prepared,
        "plan": plan_content(plan),
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions(),
        "commit": commit(),
    }
    write_json(out / STUDY, content)
