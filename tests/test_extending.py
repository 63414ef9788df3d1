"""The examples of docs/extending.md that are no objectives (`objectives.test_outside` has these): parts of an encoder, an
optimizer and a probing task in a folder outside of the project.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.probing.texts import sentences
from tests.training.runs import ROOT, arguments, fairseq_command, make_data, run, weights

EXAMPLES = REPOSITORY / "tests" / "extension"
OWN_PARTS = ("--norm", "scale", "--activation-fn", "silu", "--transfer", "nsp>mlm:scale", "--sentence-pooling", "mean")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def trained(data: Path, folder: Path, module: str, *options: str, updates: int = 6) -> subprocess.CompletedProcess[str]:
    """``fairseq-train`` with a module of one's own in the place of ours."""
    command = fairseq_command(
        [*arguments(data, folder), *options, "--max-update", str(updates), "--log-format", "json"]
    )
    command[command.index("--user-dir") + 1] = str(EXAMPLES / module)
    return run(command)


def script(name: str, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)], **environ)


def test_parts_of_an_encoder(data: Path, tmp_path: Path) -> None:
    """They train, go on, are measured; without the module one line says what is missing."""
    for updates in (4, 8):
        done = trained(data, tmp_path / "run", "scaled_parts", *OWN_PARTS, updates=updates)
        assert done.returncode == 0, done.stderr[-2000:]
    model = weights(tmp_path / "run")
    scales = {name: value for name, value in model.items() if name.endswith("norm.weight") and value.numel() == 1}
    assert len(scales) == 5 and all(value != 1 for value in scales.values())  # they learn
    assert any(name.startswith("transfers.nsp>mlm:scale") and value.abs().sum() > 0 for name, value in model.items())
    measured = ("--data", data, "--samples", "40")
    done = script("evaluate", tmp_path / "run", *measured, "--user-dir", EXAMPLES / "scaled_parts")
    assert done.returncode == 0 and " nsp " in done.stdout, done.stderr
    done = script("evaluate", tmp_path / "run", *measured)
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: --norm scale: known are layer, rms; for one of your own give --user-dir DIR .*",
        done.stderr.splitlines()[-1],
    )


@pytest.mark.parametrize(
    ("option", "known"),
    [
        ("--norm", "layer, rms"),
        ("--positions", "learned, rotary"),
        ("--feed-forward", "plain, gated"),
        ("--activation-fn", "gelu, gelu_tanh, relu, relu2"),
        ("--sentence-pooling", "first, mean, pair, aligned"),
    ],
)
def test_a_part_that_nobody_knows_is_a_line(data: Path, tmp_path: Path, option: str, known: str) -> None:
    done = run(fairseq_command([*arguments(data, tmp_path), option, "nothing"]))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {option} nothing: known are {known}; ")


def test_an_optimizer(data: Path, tmp_path: Path) -> None:
    """It learns; a run that is resumed gives the weights of the one that never stopped."""
    lion = ("--optimizer", "lion", "--lr", "1e-3", "--log-interval", "4")
    for folder, stops in (("whole", (30,)), ("resumed", (9, 30))):
        for updates in stops:
            done = trained(data, tmp_path / folder, "lion", *lion, updates=updates)
            assert done.returncode == 0, done.stderr[-2000:]
    one, other = (weights(tmp_path / folder) for folder in ("whole", "resumed"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    losses = [float(loss) for loss in re.findall(r'"mlm_loss": "([0-9.]+)"', done.stdout)]
    assert len(losses) > 3 and losses[-1] < losses[0]


def test_an_optimizer_leaves_weights_alone_where_the_gradient_is_not_finite() -> None:
    sys.path.insert(0, str(EXAMPLES))
    try:
        from lion import Lion
    finally:
        sys.path.remove(str(EXAMPLES))
    weight = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = Lion([weight], {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.1})
    for gradient, found in ((1.0, 0.0), (float("nan"), 1.0), (1.0, 0.0)):
        before = weight.detach().clone(), {**optimizer.state[weight]}.get("exp_avg", torch.zeros(1)).clone()
        weight.grad = torch.full_like(weight, gradient)
        optimizer.found_inf = torch.tensor(found)
        optimizer.step()
        moved = not torch.equal(weight.detach(), before[0])
        assert moved == (found == 0) and torch.isfinite(weight).all()
        if found:
            assert torch.equal(optimizer.state[weight]["exp_avg"], before[1])


def test_the_examples_are_those_of_the_page() -> None:
    """Each line of code that docs/extending.md shows stands in an example; what is other there is listed here."""
    page = (REPOSITORY / "docs/extending.md").read_text(encoding="utf-8")
    shown = [line.strip() for line in page.splitlines() if line.startswith("    ")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.rglob("*.py")))
    lines = {line.split("  #")[0].strip() for line in code.splitlines()}
    begun = (
        "import ",
        "from ",
        "fairseq-train",
        "python ",
        "HMTL_USER_DIR",
        "print(",
        "--hierarchy",
        "@pytest",
        "check(",
    )
    other = [
        *(
            'asks = "sentence"                     # or "token"',
            'batch.targets["length"] = np.minimum((batch.lengths_B - 1) // 12, 3)',
        ),
        *('@register_optimizer("lion", dataclass=HmtlAdamWConfig)', "def test_length(check, tmp_path):"),
    ]
    left = [line for line in shown if line.split("  #")[0].strip() not in lines and not line.startswith(begun)]
    assert [line for line in left if line and line not in other] == []
    assert len(shown) > 60


def test_the_options_page_lists_them() -> None:
    for module, expected in (
        ("lion", "## `--optimizer lion`"),
        ("scaled_parts", "**layer** \\| rms \\| scale |"),
        ("sample_length", "| `--length-step` | `12` | length: tokens by which its classes differ |"),
    ):
        done = script("list_options", "--user-dir", EXAMPLES / module)
        assert done.returncode == 0 and expected in done.stdout, done.stderr


BROKEN = {
    "raise ValueError('not today')": r"ValueError: not today \(.*/mine/__init__.py, line 1\)",
    "def f(:": r"SyntaxError: .*\(__init__.py, line 1\)",
    "import nowhere_at_all": r"ModuleNotFoundError: No module named 'nowhere_at_all' \(.*, line 1\)",
}


@pytest.mark.parametrize("content", [None, *BROKEN])
def test_a_module_that_cannot_be_imported_is_a_line(data: Path, tmp_path: Path, content: str | None) -> None:
    """Named in the environment, for scripts and for fairseq-train; and by the option."""
    folder = tmp_path / "mine"
    expected = rf"error: --user-dir {folder}: no such folder: give that of your own module"
    if content is not None:
        folder.mkdir()
        (folder / "__init__.py").write_text(content)
        expected = rf"error: --user-dir {folder}: cannot be imported: {BROKEN[content]}"
    places = [
        script("results", "--help", HMTL_USER_DIR=str(folder)),
        script("evaluate", tmp_path, "--data", data, "--user-dir", folder),
        run(fairseq_command(arguments(data, tmp_path / "run")), HMTL_USER_DIR=str(folder)),
    ]
    for done in places:
        assert done.returncode == 1
        assert re.fullmatch(expected, done.stderr.splitlines()[-1]), done.stderr
        assert "Traceback" not in done.stderr


def test_a_probing_task(tmp_path: Path) -> None:
    """From text to a row of the table, by the example's script."""
    texts = sentences(400)
    documents = [texts[begin : begin + 10] for begin in range(0, len(texts), 10)]
    text, task = tmp_path / "text.txt", tmp_path / "repeated_word.txt"
    text.write_text("\n\n".join("\n".join(document) for document in documents) + "\n")
    made = [sys.executable, str(EXAMPLES / "repeated_word.py"), str(text), str(task)]
    done = run(made)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in task.read_text().splitlines()]
    assert {row[0] for row in rows} == {"tr", "va", "te"} and {row[1] for row in rows} == {"once", "twice"}
    data = tmp_path / "data"
    prepared = ("--format", "sentences", "--vocab-size", "60", "--out", data, "--workers", "1")
    done = script("prepare_corpus", text, *prepared)
    assert done.returncode == 0, done.stderr
    done = run(fairseq_command([*arguments(data, tmp_path / "run"), "--max-update", "4"]))
    assert done.returncode == 0, done.stderr[-2000:]
    asked = ("--tasks", task, "--out", tmp_path / "out", "--no-plots", "--no-untrained")
    done = script("probe", tmp_path / "run", *asked)
    assert done.returncode == 0 and "Repeated word" in done.stdout, done.stdout + done.stderr
