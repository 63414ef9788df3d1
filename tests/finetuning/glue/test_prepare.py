"""Binarised GLUE data: what stock fairseq reads from it is what the files hold."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.glue.prepare import PreparedTask, prepare_glue, read_glue_manifest
from hmtl_plugin.glue.tasks import find_task
from hmtl_plugin.tokenizers.base import Tokenizer
from tests.conftest import REPOSITORY
from tests.finetuning.conftest import WORDS


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    """RTE, CoLA and STS-B with random sentences, one of them empty."""
    random = np.random.default_rng(1)

    def sentence() -> str:
        return " ".join(random.choice(WORDS, random.integers(1, 9)))

    def rows(label: str, count: int) -> list[str]:
        return [f"{i}\t{sentence()}\t{sentence() if i else ''}\t{label}" for i in range(count)]

    def write(task: str, name: str, header: str, lines: list[str]) -> None:
        (tmp_path / "glue" / task).mkdir(parents=True, exist_ok=True)
        (tmp_path / "glue" / task / name).write_text("\n".join([*([header] if header else []), *lines]))

    pair = "index\tsentence1\tsentence2\t"
    for name, count in (("train", 40), ("dev", 9)):
        half = rows("entailment", count), rows("not_entailment", count)
        write("RTE", f"{name}.tsv", pair + "label", [*half[0], *half[1]])
        scores = [f"{random.uniform(0, 5):.3f}" for _ in range(count)]
        write("STS-B", f"{name}.tsv", pair + "score", [row + score for row, score in zip(rows("", count), scores)])
        write("CoLA", f"{name}.tsv", "", [f"x\t{i % 2}\t\t{sentence()}" for i in range(count)])
    write("RTE", "test.tsv", pair.strip(), [row.removesuffix("\t") for row in rows("", 11)])
    return tmp_path / "glue"


def prepare(
    glue: Path, out: Path, tokenizer: Tokenizer, *names: str, workers: int = 1, **options: bool
) -> list[PreparedTask]:
    tasks = [find_task(name) for name in names]
    return list(prepare_glue(tasks, glue, out, tokenizer.dictionary(), tokenizer, workers, **options))


def lines_of(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().split("\n")]


def stock_dataset(folder: Path, split: str, classes: int, regression: bool = False):  # type: ignore[no-untyped-def]
    """The split as fairseq's own sentence_prediction loads it."""
    from fairseq.tasks.sentence_prediction import SentencePredictionConfig, SentencePredictionTask

    cfg = SentencePredictionConfig(
        data=str(folder), num_classes=classes, init_token=0, no_shuffle=True, regression_target=regression, seed=1
    )
    cfg.max_positions = 128
    task = SentencePredictionTask.setup_task(Namespace(**vars(cfg)))
    return task.load_dataset(split)


def test_stock_fairseq_reads_the_rows(glue: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    (prepared,) = prepare(glue, tmp_path / "out", tokenizer, "RTE")
    dataset = stock_dataset(prepared.folder, "train", 2)
    rows = lines_of(glue / "RTE" / "train.tsv")[1:]
    assert len(dataset) == len(rows) == prepared.manifest["splits"]["train"]["rows"]
    for number, (_, first, second, label) in enumerate(rows):
        item = dataset[number]
        expected = [0, *tokenizer.encode(first), 2, *tokenizer.encode(second), 2]
        assert item["net_input.src_tokens"].tolist() == expected
        assert item["target"].tolist() == [["entailment", "not_entailment"].index(label)]
    assert len(stock_dataset(prepared.folder, "test", 2)) == 11
    assert not (prepared.folder / "label" / "test.bin").exists()


def test_one_sentence_and_numbers(glue: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    cola, sts = prepare(glue, tmp_path / "out", tokenizer, "CoLA", "STS-B")
    assert not (cola.folder / "input1").exists()
    assert [stock_dataset(cola.folder, "valid", 2)[i]["target"].item() for i in range(4)] == [0, 1, 0, 1]
    numbers = [float(row[3]) for row in lines_of(glue / "STS-B" / "dev.tsv")[1:]]
    dataset = stock_dataset(sts.folder, "valid", 1, regression=True)
    assert [dataset[i]["target"][0] for i in range(len(dataset))] == pytest.approx(numbers)
    assert sts.manifest["labels"] == {}
    assert cola.manifest["labels"] == {"0": 0, "1": 1}


def test_workers_change_no_byte(
    glue: Path, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmtl_plugin.preparation.readers.text.SPAN_BYTES", 300)
    one, two = (prepare(glue, tmp_path / str(n), tokenizer, "RTE", workers=n)[0].folder for n in (1, 2))
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 21
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)


def test_what_is_prepared_is_kept_until_something_changes(glue: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    out = tmp_path / "out"
    assert [p.known for p in prepare(glue, out, tokenizer, "RTE")] == [False]
    assert [p.known for p in prepare(glue, out, tokenizer, "RTE", "CoLA")] == [True, False]
    assert [p.known for p in prepare(glue, out, tokenizer, "RTE", overwrite=True)] == [False]
    with (glue / "RTE" / "dev.tsv").open("a") as file:
        file.write("\n99\ta\tb\tentailment")
    with pytest.raises(UserError, match="holds data already; --overwrite replaces it"):
        prepare(glue, out, tokenizer, "RTE")
    assert prepare(glue, out, tokenizer, "RTE", overwrite=True)[0].manifest["splits"]["valid"]["rows"] == 19


def test_a_refused_row_leaves_nothing_and_finished_tasks_stay(glue: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    with (glue / "RTE" / "dev.tsv").open("a") as file:
        file.write("\n99\ta\tb\tperhaps")
    with pytest.raises(UserError, match="line 20 has the label 'perhaps'"):
        prepare(glue, tmp_path / "out", tokenizer, "CoLA", "RTE")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["CoLA"]


def test_a_file_without_rows_and_a_damaged_manifest(glue: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    (glue / "RTE" / "dev.tsv").write_text("index\tsentence1\tsentence2\tlabel\n")
    with pytest.raises(UserError, match=r"dev\.tsv: holds no rows"):
        prepare(glue, tmp_path / "out", tokenizer, "RTE")
    (cola,) = prepare(glue, tmp_path / "out", tokenizer, "CoLA")
    (cola.folder / "glue.json").write_text("{")
    with pytest.raises(UserError, match=r"glue\.json: damaged or of another version"):
        read_glue_manifest(cola.folder)


def test_the_command_refuses_in_one_line(glue: Path, tmp_path: Path) -> None:
    script = REPOSITORY / "scripts" / "prepare_glue.py"
    command = [sys.executable, script, tmp_path, "RTE", "--glue-dir", glue, "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}: holds none of model.pt")
    assert done.stderr.count("\n") == 1
