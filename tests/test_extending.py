"""The examples of docs/extending.md that are no objectives (`objectives.test_outside` has these): parts of an encoder,
an optimizer and a probing task in a folder outside of the project.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hmtl_plugin.conformance import check_optimizer
from hmtl_plugin.errors import UserError
from hmtl_plugin.models.parts import ACTIVATIONS, FEED_FORWARDS, NORMS, POSITIONS, register_part
from hmtl_plugin.models.sentence_pooling import SENTENCE_POOLINGS
from hmtl_plugin.models.transfer import OPERATORS, Operator
from tests.conftest import REPOSITORY
from tests.models.test_hierarchical_bert import build as build_model
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("name", ["hmtl_adamw", "hmtl_muon"])
def test_optimizers_of_ours_pass_the_suite(name: str) -> None:
    check_optimizer(name)


CONFORM = """
import pathlib, sys
from hmtl_plugin.conformance import CHECKS, Trial, check_optimizer
if sys.argv[1] == "lion":
    check_optimizer("lion")
    from lion import Lion
    step = Lion.step
    def blind(self, closure=None):
        self.found_inf = None
        return step(self, closure)
    Lion.step = blind
    try:
        check_optimizer("lion")
    except AssertionError as error:
        assert "read found_inf" in str(error), error
    else:
        raise SystemExit("nobody noticed")
else:
    import torch
    from hmtl_plugin.models.parts import NORMS, register_part
    own = {"norm": "scale", "activation_fn": "silu"}
    for check in CHECKS:
        folder = pathlib.Path(sys.argv[2]) / check.__name__
        folder.mkdir()
        check(Trial("nsp", folder, model=own))
    class Mixing(NORMS["scale"]):
        def forward(self, x):
            return super().forward(x - x.mean(-2, keepdim=True))
    register_part(NORMS, "mixing", Mixing)
    packed = next(check for check in CHECKS if check.__name__ == "check_packed_equals_rows")
    try:
        packed(Trial("nsp", pathlib.Path(sys.argv[2]) / "packed", model={"norm": "mixing"}))
    except AssertionError:
        pass
    else:
        raise SystemExit("nobody noticed that positions mix")
print("passed")
"""


@pytest.mark.parametrize("module", ["lion", "scaled_parts"])
def test_the_suite_tries_parts_and_optimizers(module: str, tmp_path: Path) -> None:
    done = run([sys.executable, "-c", CONFORM, module, str(tmp_path)], HMTL_USER_DIR=str(EXAMPLES / module))
    assert done.stdout.strip().endswith("passed"), done.stderr


@pytest.mark.parametrize(
    ("table", "part", "said"),
    [
        (NORMS, lambda hidden, eps: None, "is a function: write a class of Module"),
        (ACTIVATIONS, nn.GELU, "is the class GELU: give a function of a tensor"),
        (ACTIVATIONS, nn.PReLU(), "is a PReLU: give a function of a tensor"),
        (FEED_FORWARDS, lambda inner, activation: inner, "is a function: give FeedForward"),
        (POSITIONS, nn.Module, "is the class Module: write a class of Positions"),
        (OPERATORS, type("Half", (Operator,), {}), "lacks build, forward, last: see Operator"),
        (SENTENCE_POOLINGS, SENTENCE_POOLINGS["mean"](8, 4), "is a MeanPooling: write a class of SentencePooling"),
        (NORMS, NORMS["layer"], "norm taken"),
    ],
)
def test_a_part_of_another_kind_is_not_registered(table: dict[str, Any], part: Any, said: str) -> None:
    before = dict(table)
    name = "rms" if said == "norm taken" else "mine"
    with pytest.raises(ValueError, match="registered twice" if name == "rms" else re.escape(said)):
        register_part(table, name, part)
    assert table == before


def test_an_operator_whose_code_has_changed_is_refused() -> None:
    """Half of it would be fresh, and the hub would answer all the same."""
    model = build_model("nsp@2,mlm@3", "nsp>mlm:gate")
    state = model.state_dict()
    model.upgrade_state_dict({**state})
    state["transfers.nsp>mlm:gate.renamed.weight"] = state.pop("transfers.nsp>mlm:gate.gate.weight")
    with pytest.raises(
        UserError, match=re.escape("transfer 'nsp>mlm:gate': the checkpoint has no gate.weight, as it is now")
    ):
        model.upgrade_state_dict(state)


@pytest.mark.slow
def test_an_option_of_an_objective_that_changes_on_the_way_is_said(data: Path, tmp_path: Path) -> None:
    for rate, updates in (("0.15", 4), ("0.15", 6), ("0.3", 8)):
        done = run(fairseq_command([*arguments(data, tmp_path), "--mask-prob", rate, "--max-update", str(updates)]))
        assert done.returncode == 0, done.stderr[-1000:]
        said = "goes on with --mask-prob 0.3 (so far 0.15): values before and after do not compare"
        assert (said in done.stdout + done.stderr) == (rate == "0.3")


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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, *BROKEN])
def test_a_module_that_cannot_be_imported_is_a_line(data: Path, tmp_path: Path, content: str | None) -> None:
    """Named in the environment, for scripts and for fairseq-train; and by the option."""
    folder = tmp_path / "mine"
    expected = rf"error: --user-dir {folder}: no such folder: give that of your own module"
    if content is not None:
        folder.mkdir()
        (folder / "__init__.py").write_text(content)
        expected = rf"error: --user-dir {folder}: cannot be imported: {BROKEN[content]}"
    places = [script("python_prose", "--help", HMTL_USER_DIR=str(folder))]
    if content is None:
        places.append(script("evaluate", tmp_path, "--data", data, "--user-dir", folder))
        places.append(run(fairseq_command(arguments(data, tmp_path / "run")), HMTL_USER_DIR=str(folder)))
    for done in places:
        assert done.returncode == 1
        assert re.fullmatch(expected, done.stderr.splitlines()[-1]), done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
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
