"""How a study was made, as texts for its report: data, sizes, statistics, what differs from the paper."""

from typing import Any

from hmtl_plugin.reporting.study.data import StudyReport
from hmtl_plugin.reporting.study.findings import ALWAYS_DIFFERS, GIVEN_TEXT, OWN_TEXT, PAPER_OPEN
from hmtl_plugin.reporting.study.tables import Table

QUESTION = "Does a hierarchy of pre-training tasks make better embeddings than solving all of them at the last layer"
PAIRING = (
    "All variants have the same sizes, text, tokenizer, updates and tokens an update. With the same seed they begin with the same "
    "encoder and see the same pairs and masks (no word is both masked and moved; sentence order, where it is an "
    "objective, has pairs of its own). MLM and NSP are measured in one common view of the validation split: the same pairs and masks for all, no shifts. Fine-tuning has "
    "the same seeds for all variants; where it has several, their mean is one value. Its checkpoints are chosen on the "
    "same development set that is reported, so scores are a little optimistic, for all alike. A probe's layer is chosen on "
    "the validation rows. Nothing was tuned for a variant."
)


def question(study: StudyReport) -> str:
    """What the study asks."""
    text = "another corpus" if _given(study) else "the downstream tasks' own"
    return f"{QUESTION}, when the pre-training text is {text}?"


def _given(study: StudyReport) -> bool:
    """Whether ``--corpus`` took the place of the tasks' text."""
    return "given" in study.about["prepared"]["text"]


def data_table(study: StudyReport) -> Table:
    """Pre-training text by source."""
    text = study.about["prepared"]["text"]
    rows = [
        (", ".join(g["files"]), g["format"], f"{g['documents']:,}", f"{g['sentences']:,}", f"{g['excluded']:,}")
        for g in text.get("gathered", [])
    ]
    splits = text.get("splits", {})
    if _given(study):
        total = {name: sum(c[name] for c in splits.values()) for name in ("documents", "sentences")}
        known = [f"{count:,}" if splits else "not known" for count in total.values()]
        rows = [(text["given"], "binarised", *known, "not known")]
    counts = "; ".join(
        f"{name}: {c['documents']:,} documents, {c['sentences']:,} sentences, {c['tokens']:,} tokens"
        for name, c in splits.items()
    )
    excluded = text.get("excluded_files")
    caption = f"Together {counts or 'a corpus that was given'}. "
    if excluded:
        words = study.about["profile"]["text"]["exclude_min_words"]
        caption += f"Left out: documents that share a sentence of {words} words or more with {', '.join(excluded)}."
    elif _given(study):
        caption += "It was given: whether it shares text with the tasks' development and test files was not looked at."
    header = ("files", "format", "documents", "sentences", "documents left out")
    return Table("Pre-training text", caption.strip(), header, tuple(rows), 2)


def settings(study: StudyReport) -> dict[str, str]:
    """What was run, by name."""
    profile: dict[str, Any] = study.about["profile"]
    pretraining = profile["pretraining"]
    found = {
        "profile": f"{profile['name']}: {profile['why']}",
        "pre-training": f"{pretraining['updates']:,} updates of {pretraining['batches']} batches, "
        + " ".join(f"{name}={value}" for name, value in pretraining["options"].items()),
        "precision": f"autocast {profile['autocast']}; probing features fp32",
    }
    missing = study.about["prepared"].get("missing", [])
    for task in profile["finetuning"]:
        if task["task"] in missing:
            found[task["task"]] = "no files were given"
            continue
        rows = f"at most {task['train_rows']:,} training rows" if task["train_rows"] else "all rows"
        found[task["task"]] = (
            f"{' '.join(task['grid'])}; {task['seeds']} seed(s) a pre-training; {task['tokens']} tokens; {rows}"
        )
    probing = profile["probing"]
    found["probing"] = f"{probing['probe']} probes of every layer, {probing['pooling']} pooling"
    versions = ", ".join(f"{name} {version}" for name, version in study.about["versions"].items())
    made: dict[str, dict[str, list[str]]] = {
        "versions": {versions: []},
        "commit": {study.about["commit"] or "unknown": []},
    }
    made.update(study.made)  # of the records, once there are some
    found |= {f"{name} of the records" if study.made else name: "; ".join(values) for name, values in made.items()}
    found["command"] = study.about["command"]
    return found


def differs(study: StudyReport) -> list[str]:
    """What differs from the paper's setting."""
    own = study.about["profile"]["differs"]
    text = GIVEN_TEXT if _given(study) else OWN_TEXT
    return [ALWAYS_DIFFERS, text, *([f"This profile: {own}."] if own else [])]


def left_open() -> list[str]:
    """What the paper leaves open, for us."""
    return list(PAPER_OPEN)
