"""Every objective that is registered passes the checks of `hmtl_plugin.conformance`, with each kind of its options."""

from pathlib import Path

import pytest

import hmtl_plugin.objectives  # noqa: F401  registers
from hmtl_plugin.conformance import CHECKS, Trial
from hmtl_plugin.objectives.base import objective_names

OPTIONS: dict[str, list[dict[str, object]]] = {
    "mlm": [{"mask_scheme": "word"}, {"mask_scheme": "ngram"}],
    "bigram_shift": [{"bigram_granularity": "sentence"}, {"bigram_granularity": "both"}],
}
TRIALS = [(name, options) for name in objective_names() for options in [{}, *OPTIONS.get(name, [])]]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize(
    ("name", "options"),
    TRIALS,
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_it_does_what_every_objective_must(check, name: str, options: dict[str, object], tmp_path: Path) -> None:
    check(Trial(name, tmp_path, **options))
