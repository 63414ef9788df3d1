"""Tasks of the plugin. Importing this registers them with fairseq, and what they need: model, criterions, optimizers,
and code of a user's own (`user_dir`).
"""

from typing import Any

from hmtl_plugin import (
    compat,  # noqa: F401  before fairseq itself
    criterions,  # noqa: F401
    models,  # noqa: F401
    optim,  # noqa: F401
    user_dir,
)
from hmtl_plugin.tasks import glue, pretraining, squad  # noqa: F401

# isort: split
from fairseq.tasks import TASK_DATACLASS_REGISTRY

PRETRAINING = "hmtl_pretraining"
"""The task whose models have a hierarchy and no fine-tuned head."""


def task_options(name: str) -> type[Any]:
    """The dataclass of a task's options, those of objectives that are registered by now among them."""
    options: type[Any] = TASK_DATACLASS_REGISTRY[name]
    return options


user_dir.import_outside()  # last, for it imports what stands above
