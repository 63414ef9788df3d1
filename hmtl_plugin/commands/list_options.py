"""The plugin's own options of fairseq-train as Markdown: fairseq's --help does not list what --user-dir brings.

python scripts/list_options.py > docs/options.md
python scripts/list_options.py --user-dir my_objectives    # and those of a module of your own
"""

import argparse
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from enum import Enum
from typing import Any

from hmtl_plugin import tasks  # noqa: F401  registers everything
from hmtl_plugin.criterions.hierarchical import HmtlCriterionConfig
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertConfig
from hmtl_plugin.optim.base import own_options
from hmtl_plugin.tasks.glue import GlueConfig
from hmtl_plugin.tasks.pretraining import task_config
from hmtl_plugin.tasks.squad import SquadConfig
from hmtl_plugin.user_dir import add_option

HEAD = """<!-- Written by scripts/list_options.py: change the options' help. -->
# Options of the plugin

What `--user-dir hmtl_plugin` adds to `fairseq-train`; all others are fairseq's (`fairseq-train --help`). Under hydra
the same names stand with underscores in the groups task, model, criterion and optimizer.
"""


def sections() -> dict[str, Any]:
    """The dataclass of options under each title; with ``--user-dir`` also what that module brings."""
    optimizers = {f"--optimizer {name}": config for name, config in sorted(own_options().items())}
    return {
        "--task hmtl_pretraining": task_config(),
        "--arch hmtl_bert (hmtl_bert_tiny ... hmtl_bert_large set the sizes)": HierarchicalBertConfig,
        "--criterion hmtl": HmtlCriterionConfig,
        **optimizers,
        "--task glue": GlueConfig,
        "--task squad": SquadConfig,
    }


def option_rows(config: Any) -> Iterator[str]:
    """A line of the table for each option of a dataclass; what is another group's value (no help) is left out."""
    for each in fields(config):
        if "help" in each.metadata:
            name = each.name if each.name == "data" else "--" + each.name.replace("_", "-")
            text = str(each.metadata["help"]).replace("|", "\\|")
            yield f"| `{name}` | {_default(each)} | {text} |"


def _default(each: "Field[Any]") -> str:
    value = each.default_factory() if each.default_factory is not MISSING else each.default
    names = each.metadata.get("choices") or ()
    if isinstance(each.type, type) and issubclass(each.type, Enum):
        names, value = [choice.value for choice in each.type], getattr(value, "value", value)
    if names:
        return " \\| ".join(f"**{name}**" if name == value else str(name) for name in names)
    if value is None or value == "" or str(value) == "???":
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value}`"


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option(parser)
    parser.parse_args()
    tables = [
        "\n".join([f"## `{title}`\n\n| option | default | |\n|---|---|---|", *option_rows(config)])
        for title, config in sections().items()
    ]
    print(HEAD, "\n\n".join(tables), sep="\n")
