#!/usr/bin/env python3
"""The plugin's own options of fairseq-train as Markdown: fairseq's --help does not list what --user-dir brings.

python scripts/list_options.py > docs/options.md
"""

import argparse
import logging
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from enum import Enum
from typing import Any

logging.basicConfig(level=logging.WARNING, format="%(message)s")  # before fairseq, which would log everything

import hmtl_plugin  # noqa: E402, F401  registers everything
from hmtl_plugin.criterions.hierarchical import HmtlCriterionConfig  # noqa: E402
from hmtl_plugin.errors import run_cli  # noqa: E402
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertConfig  # noqa: E402
from hmtl_plugin.optim.adamw import HmtlAdamWConfig  # noqa: E402
from hmtl_plugin.optim.muon import HmtlMuonConfig  # noqa: E402
from hmtl_plugin.tasks.glue import GlueConfig  # noqa: E402
from hmtl_plugin.tasks.pretraining import HmtlPretrainingConfig  # noqa: E402
from hmtl_plugin.tasks.squad import SquadConfig  # noqa: E402

SECTIONS = {
    "--task hmtl_pretraining": HmtlPretrainingConfig,
    "--arch hmtl_bert (hmtl_bert_tiny ... hmtl_bert_large set the sizes)": HierarchicalBertConfig,
    "--criterion hmtl": HmtlCriterionConfig,
    "--optimizer hmtl_adamw": HmtlAdamWConfig,
    "--optimizer hmtl_muon": HmtlMuonConfig,
    "--task glue": GlueConfig,
    "--task squad": SquadConfig,
}
HEAD = """<!-- Written by scripts/list_options.py: change the options' help. -->
# Options of the plugin

What `--user-dir hmtl_plugin` adds to `fairseq-train`; all others are fairseq's (`fairseq-train --help`). Under hydra
the same names stand with underscores in the groups task, model, criterion and optimizer.
"""


def option_rows(config: Any) -> Iterator[str]:
    """A line of the table for each option of a dataclass; what is another group's value (no help) is left out."""
    for each in fields(config):
        if "help" in each.metadata:
            name = each.name if each.name == "data" else "--" + each.name.replace("_", "-")
            text = str(each.metadata["help"]).replace("|", "\\|")
            yield f"| `{name}` | {_default(each)} | {text} |"


def _default(each: "Field[Any]") -> str:
    value = each.default_factory() if each.default_factory is not MISSING else each.default
    if isinstance(each.type, type) and issubclass(each.type, Enum):
        return " \\| ".join(f"**{m.value}**" if m.value == value else str(m.value) for m in each.type)
    if value is None or value == "" or str(value) == "???":
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value}`"


def main() -> None:
    """Print the page."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(HEAD)
    for title, config in SECTIONS.items():
        print(f"## `{title}`\n\n| option | default | |\n|---|---|---|")
        print("\n".join(option_rows(config)), end="\n\n" if config is not SquadConfig else "\n")


if __name__ == "__main__":
    run_cli(main)
