"""Profiles: values, defaults, and every refusal with the file and the entry."""

from pathlib import Path

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.recipe.options import plain
from hmtl_plugin.study.profile import Block, Finetuning, read_profile
from tests.conftest import REPOSITORY
from tests.recipe.configurations import TABLE
from tests.refusals import refusal

GOOD = """
why = "tests"
[[plan]]
variants = ["flat"]
seeds = [1, 2]
[text]
vocab_size = 100
[pretraining]
updates = 10
warmup = 0
[pretraining.options]
lr = "1e-3"
encoder-normalize-before = true
dropout = 0
[[finetuning]]
task = "RTE"
grid = ["lr=1e-3"]
[[finetuning]]
task = "SNLI"
grid = ["lr=1e-3"]
optional = true
[probing]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_values_and_defaults(tmp_path: Path) -> None:
    profile = read_profile(written(tmp_path, GOOD))
    assert profile.name == "small" and profile.plan == [Block(["flat"], [1, 2])]
    assert profile.pretraining.options == {"lr": "1e-3", "encoder-normalize-before": True, "dropout": 0}
    assert profile.finetuning == [Finetuning("RTE", ["lr=1e-3"]), Finetuning("SNLI", ["lr=1e-3"], optional=True)]
    assert profile.probing.rows == [0, 0, 0] and profile.keep_checkpoints and profile.jobs == 0
    rows = read_profile(written(tmp_path, GOOD + "rows = [30, 20, 10]\n")).probing.rows
    assert rows == [30, 20, 10]
    whole = read_profile(written(tmp_path, GOOD.replace("[text]", "[text]\nvalid_fraction = 0"))).text.valid_fraction
    assert whole == 0  # a whole number serves for a fraction
    for text in ("of ${HOME}", "???"):  # text is what it says
        assert read_profile(written(tmp_path, GOOD.replace('"tests"', f'"{text}"'))).why == text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('why = "tests"', 'why = "tests"\nwhy_not = 1', "why_not: unknown; use name, why"),
        ("updates = 10", "updates = 10\nupdate = 3", "pretraining.update: unknown; use updates"),
        ('task = "RTE"', 'task = "RTE"\nseed = 1', "finetuning[0].seed: unknown"),
        ("updates = 10", "", "pretraining.updates: missing"),
        ("[probing]", "", "probing: missing"),
        ("updates = 10", 'updates = "10"', "pretraining.updates: '10' is no int"),
        ("updates = 10", "updates = 1.5", "pretraining.updates: 1.5 is no int"),
        ("updates = 10", "updates = true", "pretraining.updates: True is no int"),
        ('why = "tests"', "why = 3", "why: 3 is no str"),
        ('why = "tests"', 'why = "tests"\ntoy = "yes"', "toy: 'yes' is no bool"),
        ('why = "tests"', 'why = "tests"\ntoy = 1', "toy: 1 is no bool"),
        ("updates = 10", "updates = 0", "pretraining.updates: 0 is too small: at least 1"),
        ("updates = 10", "updates = 10\ncurve_points = 0", "pretraining.curve_points: 0 is too small"),
        ("warmup = 0", "warmup = -1", "pretraining.warmup: -1 is too small: at least 0"),
        ("vocab_size = 100", "vocab_size = 100\nvalid_fraction = true", "text.valid_fraction: True is no float"),
        ("seeds = [1, 2]", 'seeds = [1, "2"]', "plan[0].seeds[1]: '2' is no int"),
        ("seeds = [1, 2]", "seeds = []", "plan[0].seeds: must be a list with something in it"),
        ("seeds = [1, 2]", "seeds = 1", "plan[0].seeds: must be a list"),
        ('why = "tests"', 'why = "tests"\njobs = -1', "jobs: -1 is too small"),
        ("[probing]", "[probing]\nrows = [1, 2]", "probing.rows: write [TRAIN, VALID, TEST]"),
        ("[probing]", "[probing]\nrows = [1, 0, 2]", "probing.rows"),
        ('lr = "1e-3"\nenc', "enc", "pretraining.options.lr: missing"),
        (
            'task = "RTE"\ngrid = ["lr=1e-3"]',
            'task = "RTE"\ngrid = ["lr=1,2"]',
            "finetuning[0].grid: 'lr=1,2': give one value",
        ),
        (
            'task = "RTE"\ngrid = ["lr=1e-3"]',
            'task = "RTE"\ngrid = ["rate=1"]',
            "finetuning[0].grid: rate=1: 'rate' is no",
        ),
        ('task = "SNLI"', 'task = "RTE"', "finetuning: 'RTE' comes twice"),
        ("dropout = 0", "dropouts = 0", "pretraining.options.dropouts: no option of fairseq-train"),
        ("dropout = 0", 'dropout = "much"', "pretraining.options.dropout: 'much' is no float"),
        ("dropout = 0", 'optimizer = "hmtl_mouon"', "pretraining.options.optimizer: 'hmtl_mouon': use "),
        ("dropout = 0", 'arch = "hmtl_bert_tyni"', "pretraining.options.arch: 'hmtl_bert_tyni': use hmtl_bert"),
        ("dropout = 0", "seed = 4", "pretraining.options.seed: 'seeds' of [[plan]] decides that: take it out"),
        (
            "dropout = 0",
            'lr-scheduler = "fixed"',
            "pretraining.options.lr-scheduler: the study (polynomial_decay for all) decides",
        ),
    ],
)
def test_refusals_name_file_and_entry(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert GOOD.count(old) == 1
    path = written(tmp_path, GOOD.replace(old, new))
    assert message in refusal(path, read_profile)


def with_recipe(tmp_path: Path, options: str = "", recipe: str = "quickstart") -> Path:
    """The profile on a part of the table, with these options of its own."""
    old = 'lr = "1e-3"\nencoder-normalize-before = true\ndropout = 0\n'
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, options).replace("warmup = 0", f'warmup = 0\nrecipe = "{recipe}"')
    return written(tmp_path, text)


def test_a_recipe_holds_where_the_profile_has_no_option_of_its_own(tmp_path: Path) -> None:
    part, options = TABLE["quickstart"], read_profile(with_recipe(tmp_path)).pretraining.options
    by_variants = {"hierarchy", "transfer"}
    decided = by_variants | {"autocast", "lr-scheduler", "max-update", "seed", "update-freq", "warmup-updates"}
    assert options == {name: plain(value) for name, value in part.items() if name not in decided}
    own = 'dropout = 0.2\nzero-init-outputs = false\noptimizer = "hmtl_adamw"\nlr = "2e-3"\n'
    options = read_profile(with_recipe(tmp_path, own)).pretraining.options
    assert (options["dropout"], options["zero-init-outputs"], options["lr"]) == (0.2, False, "0.002")
    assert (options["optimizer"], options["positions"]) == ("hmtl_adamw", "rotary") and "matrix-lr" not in options


@pytest.mark.parametrize(
    ("options", "recipe", "message"),
    [
        ("", "huge", "pretraining.recipe huge: use tiny, "),
        ("dropouts = 0.1", "tiny", "pretraining.options.dropouts: no option of fairseq-train"),
        ('positions = "none"', "tiny", "pretraining.options.positions: 'none': use learned, rotary"),
        ('optimizer = "hmtl_mouon"', "tiny", "pretraining.options.optimizer: 'hmtl_mouon': use "),
        ("max-update = 5", "tiny", "pretraining.options.max-update: 'updates' of [pretraining] decides that"),
        (
            "matrix-lr = 0.1",
            "base",
            "pretraining.options.matrix-lr: no option of fairseq-train with optimizer hmtl_adamw",
        ),
    ],
)
def test_what_does_not_fit_a_recipe_is_refused(tmp_path: Path, options: str, recipe: str, message: str) -> None:
    path = with_recipe(tmp_path, f"{options}\n", recipe)
    assert refusal(path, read_profile).startswith(message)


def test_files_that_are_no_profile(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.toml: No such file .*: name a profile"):
        read_profile(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b'why = "\xff"')
    with pytest.raises(UserError, match=r"bytes\.toml: .*utf-8"):
        read_profile(tmp_path / "bytes.toml")
    with pytest.raises(UserError, match=r"small\.toml: .*at line 2"):
        read_profile(written(tmp_path, "why = 1\nwhy\n[text]\n"))
    with pytest.raises(UserError, match=r"small\.toml: probing: must be a table"):
        read_profile(written(tmp_path, "probing = 3\n" + GOOD.replace("[probing]\n", "")))


@pytest.mark.parametrize("path", sorted((REPOSITORY / "recipes" / "profiles").glob("*.toml")), ids=lambda p: p.stem)
def test_profiles_of_this_repository(path: Path) -> None:
    """All variants get the same budget, and each profile says how it differs from the paper."""
    profile = read_profile(path)
    assert profile.why and profile.pretraining.warmup < profile.pretraining.updates
    assert not {"hierarchy", "transfer", "seed", "max-update"} & set(profile.pretraining.options)
