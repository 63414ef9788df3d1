"""Every place where the project reads what a user, another program or an earlier run wrote."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary

from hmtl_plugin.checkpoints import load_checkpoint, load_vocabulary
from hmtl_plugin.conformance import make_data
from hmtl_plugin.criterions.weighting import parse_warmup
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.manifest import check_manifest
from hmtl_plugin.errors import UserError
from hmtl_plugin.finetuning.grid import parse_grid, parse_seeds
from hmtl_plugin.finetuning.pretrained import PretrainedCheckpoint
from hmtl_plugin.glue.dataset import open_split
from hmtl_plugin.glue.prepare import prepare_glue, read_glue_manifest
from hmtl_plugin.glue.tasks import find_task
from hmtl_plugin.hierarchy import Hierarchy, HierarchyError
from hmtl_plugin.interop.importing import import_bert
from hmtl_plugin.models.transfer import OPERATORS
from hmtl_plugin.objectives.base import known_objectives
from hmtl_plugin.preparation.exclude import read_excluded
from hmtl_plugin.preparation.prepare import PrepareOptions, prepare_corpus
from hmtl_plugin.probing.tasks import read_task
from hmtl_plugin.reporting.finetuning import glue_table, squad_table
from hmtl_plugin.results import read_results
from hmtl_plugin.squad.dataset import SquadSplit
from hmtl_plugin.squad.prepare import prepare_squad, read_squad_manifest
from hmtl_plugin.study.profile import read_profile
from hmtl_plugin.study.records import Records
from hmtl_plugin.study.variants import read_variants
from hmtl_plugin.tokenizers.base import Tokenizer
from hmtl_plugin.tokenizers.loading import load_tokenizer, tokenizer_from_bytes
from hmtl_plugin.tokenizers.training import train_tokenizer
from tests.conftest import REPOSITORY
from tests.finetuning.squad.texts import random_squad
from tests.fuzzing.engine import Door
from tests.fuzzing.mutations import damaged, odd_archive, odd_json, odd_lines, odd_text
from tests.interop.checkpoints import save_checkpoint
from tests.preparation.texts import documents
from tests.probing.texts import sentences, write_task
from tests.tokenizers.test_wordpiece import vocabulary_file

DOCS = documents(12, length=4)
_TOKENIZER: list[Tokenizer] = []


def tokenizer() -> Tokenizer:
    """Of the texts below; trained once."""
    if not _TOKENIZER:
        lines = [sentence for doc in documents(200) for sentence in doc] + sentences(200)
        _TOKENIZER.append(tokenizer_from_bytes("sentencepiece.bpe.model", train_tokenizer(lines, 120)))
    return _TOKENIZER[0]


def _text(name: str, content: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "tokenizer.model").write_bytes(tokenizer().to_bytes())
        (folder / name).write_text(content, encoding="utf-8")
        return folder / name

    return make


def _prepared(format: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        out = path.parent / "out"
        shutil.rmtree(out, ignore_errors=True)
        model = str(path.parent / "tokenizer.model")
        held_out = 0.0 if format in ("documents", "squad") else 0.2  # few documents
        prepare_corpus([str(path)], out, PrepareOptions(format, tokenizer=model, valid_fraction=held_out, workers=1))
        corpus = Corpus(str(out / "train"))
        assert corpus.token_count > 0
        corpus.check_vocabulary(len(tokenizer()))

    return read


def _jsonl(field: str) -> str:
    return "".join(json.dumps({field: "\n".join(doc), "n": 1}) + "\n" for doc in DOCS)


def _nli() -> str:
    rows = [{"sentence1": doc[0], "sentence2": doc[-1], "gold_label": "neutral"} for doc in DOCS]
    return "".join(json.dumps(row) + "\n" for row in rows)


def _pairs() -> str:
    return "sentence1\tsentence2\tlabel\n" + "".join(f"{doc[0]}\t{doc[-1]}\t1\n" for doc in DOCS)


def _make_squad(folder: Path) -> Path:
    (folder / "tokenizer.model").write_bytes(tokenizer().to_bytes())
    return random_squad(folder / "train.json", 1, 6)


def _excluded(path: Path) -> None:
    read_excluded([str(path)], "auto", "en", 1)


def _tokenizer_file(kind: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        if kind == "sentencepiece":
            (folder / "sentencepiece.bpe.model").write_bytes(tokenizer().to_bytes())
            return folder / "sentencepiece.bpe.model"
        vocabulary_file(folder, do_lower_case=True)
        if kind == "json":
            content = load_tokenizer(folder / "vocab.txt").to_bytes()
            (folder / "tokenizer.json").write_bytes(content)
            return folder / "tokenizer.json"
        return folder / kind

    return make


def _use_tokenizer(path: Path) -> None:
    opened = load_tokenizer(path.parent / "vocab.txt" if path.name == "tokenizer_config.json" else path)
    ids = opened.encode("The cat sees <mask> 12 文.")
    assert all(0 <= number < len(opened) for number in ids)
    opened.decode(ids)
    opened.dictionary_text()


def _make_corpus(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "t.txt").write_text("\n\n".join("\n".join(doc) for doc in DOCS), encoding="utf-8")
        (folder / "tokenizer.model").write_bytes(tokenizer().to_bytes())
        options = PrepareOptions(
            "sentences", tokenizer=str(folder / "tokenizer.model"), valid_fraction=0.2, write_valid=True, workers=1
        )
        prepare_corpus([str(folder / "t.txt")], folder / "d", options)
        np.save(folder / "tokens.npy", _all_tokens(Corpus(str(folder / "d" / "train"))))
        return folder / "d" / file

    return make


def _all_tokens(corpus: Corpus) -> np.ndarray:
    starts, ends = corpus.documents
    tokens, first = corpus.gather(starts, ends - starts)
    return np.stack([tokens, first])


def _read_corpus(path: Path) -> None:
    """What an index leads to are the tokens that were written, or nothing."""
    corpus = Corpus(str(path.parent / "train"))
    found = _all_tokens(corpus)
    if path.suffix == ".idx":
        assert np.array_equal(found, np.load(path.parent.parent / "tokens.npy")), "other tokens"


def _open_corpus(path: Path) -> None:
    check_manifest(path.parent, "train")
    prepare_corpus(
        [str(path.parent.parent / "t.txt")],
        path.parent,
        PrepareOptions(
            "sentences",
            tokenizer=str(path.parent.parent / "tokenizer.model"),
            valid_fraction=0.2,
            write_valid=True,
            workers=1,
        ),
    )


_GLUE = {
    "RTE": "index\tsentence1\tsentence2\tlabel\n0\ta cat\ta dog\tentailment\n1\tthe cat\ta bird\tnot_entailment\n",
    "CoLA": "gj04\t1\t\tThe cat sees.\nks08\t0\t*\tCat the sees.\n",
    "STS-B": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
    + "0\tg\tf\t2012\t1\tnone\tnone\ta cat\ta dog\t2.5\n1\tg\tf\t2012\t2\tnone\tnone\ta cat\ta cat\t5.0\n",
    "SST-2": "sentence\tlabel\na nice cat \t1\nan ugly dog \t0\n",
}


def _make_glue(task: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "glue" / task).mkdir(parents=True)
        for split in ("train", "dev"):
            (folder / "glue" / task / f"{split}.tsv").write_text(_GLUE[task])
        return folder / "glue" / task / "train.tsv"

    return make


def _read_glue(path: Path) -> None:
    out = path.parents[2] / "out"
    shutil.rmtree(out, ignore_errors=True)
    opened = tokenizer()
    for data in prepare_glue(
        [find_task(path.parent.name)], path.parents[1], out, opened.dictionary(), opened, 1, False
    ):
        dataset = open_split(data.folder, data.manifest, "train", 32)
        assert len(dataset) > 0 and dataset.sizes.max() <= 32


def _make_prepared_glue(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        _read_glue(_make_glue("RTE")(folder))
        return folder / "out" / "RTE" / file

    return make


def _read_prepared_glue(path: Path) -> None:
    folder = next(place for place in path.parents if place.name == "RTE")
    manifest = read_glue_manifest(folder)
    assert manifest is not None
    dataset = open_split(folder, manifest, "train", 32)
    dataset.collater(list(range(len(dataset))))
    opened = tokenizer()
    prepare_glue([find_task("RTE")], folder.parents[1] / "glue", folder.parent, opened.dictionary(), opened, 1, False)


def _read_squad(path: Path) -> None:
    out = path.parent / "out"
    shutil.rmtree(out, ignore_errors=True)
    opened = tokenizer()
    prepare_squad(path, None, None, out, opened.dictionary(), opened, 1, False)
    split = SquadSplit(out / "train")
    assert len(split.table) > 0
    split.windows(32, 8, 8)


def _make_prepared_squad(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        _read_squad(_make_squad(folder))
        return folder / "out" / file

    return make


def _read_prepared_squad(path: Path) -> None:
    folder = next(place for place in path.parents if place.name == "out")
    assert read_squad_manifest(folder) is not None
    split = SquadSplit(folder / "train")
    split.windows(32, 8, 8)
    opened = tokenizer()
    prepare_squad(folder.parent / "train.json", None, None, folder, opened.dictionary(), opened, 1, False)


def _make_checkpoint(head: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        return save_checkpoint(folder / "run", tokenizer(), "bigram_shift@1,nsp@2,mlm@3", "nsp>mlm:concat", head) / (
            "model.pt"
        )

    return make


def _read_checkpoint(path: Path) -> None:
    PretrainedCheckpoint.find(path)
    load_vocabulary(path)
    loaded = load_checkpoint(path)
    states = loaded.model.encoder(torch.tensor([[0, 7, 8, 2]]), [3])
    assert states is not None


def _make_bert(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        from tests.interop.berts import save_bert  # imports transformers

        save_bert(folder / "hf", num_hidden_layers=1)
        return folder / "hf" / file

    return make


def _import_bert(path: Path) -> None:
    out = path.parents[1] / "run"
    shutil.rmtree(out, ignore_errors=True)
    import_bert(path.parent, out)
    load_checkpoint(out)


def _record(seed: int, score: float) -> dict[str, Any]:
    return {
        "schema": 1, "kind": "glue", "run": "r", "checkpoint": "c", "checkpoint_sha256": "s", "variant": "v",
        "hierarchy": "nsp@-1,mlm@-1", "transfer": "", "seed": seed, "task": "RTE", "split": "valid", "layer": 2,
        "pooling": "cls", "metrics": {"accuracy": score, "score": score, "low": 40.0, "high": 60.0, "baseline": 50.0},
        "hyper": {"lr": 1e-3, "batch-size": 16, "epochs": 3, "autocast": "none", "options": []}, "seconds": 1.0,
        "versions": {}, "commit": None, "command": "x", "stage_fingerprint": "f",
    }  # fmt: skip


def _make_results(folder: Path) -> Path:
    closing = {"kind": "stage", "fingerprint": "f", "lines": 3, "stage_fingerprint": "f", "run": "r", "stage": "RTE"}
    lines = [*(_record(seed, 50.0 + seed) for seed in (1, 2, 3)), closing]
    (folder / "records").mkdir()
    (folder / "records" / "flat-seed1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "records" / "flat-seed1.jsonl"


def _read_results(path: Path) -> None:
    found = read_results(path)
    glue_table(found)
    squad_table(found)
    Records(path.parent.parent)


def _make_probing(folder: Path) -> Path:
    texts = sentences(60)
    return write_task(folder / "cats.txt", texts, ["cat" if "cat" in text else "none" for text in texts], (40, 50))


def _read_probing(path: Path) -> None:
    task = read_task(path)
    assert len(task.sentences(np.arange(len(task)))) == len(task)


def _copy(place: str) -> Callable[[Path], Path]:
    return lambda folder: Path(shutil.copy(REPOSITORY / place, folder))


def _option(text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "value.option").write_text(text, encoding="utf-8")
        return folder / "value.option"

    return make


def _value(parse: Callable[[str], object]) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        try:
            parse(path.read_bytes().decode("utf-8", "surrogateescape"))  # as Python takes arguments
        except HierarchyError as error:  # of which the task and the model make the line
            raise UserError(error) from None

    return read


def _hierarchy(text: str) -> None:
    hierarchy = Hierarchy.parse(text, "nsp>mlm:concat")
    assert str(Hierarchy.parse(str(hierarchy), hierarchy.transfer)) == str(hierarchy)
    hierarchy.validate(12, known_objectives(), OPERATORS)


def _transfer(text: str) -> None:
    Hierarchy.parse("bigram_shift@4,nsp@8,mlm@12", text).validate(12, known_objectives(), OPERATORS)


def _make_stock(folder: Path) -> Path:
    return make_data(folder / "d") / "dict.txt"


def _read_dictionary(path: Path) -> None:
    Dictionary.load(str(path))


TEXT, TABLE, JSON = (damaged, odd_lines), (damaged, odd_lines), (damaged, odd_json, odd_json)
DOORS = (
    Door("text: sentences", _text("t.txt", "\n\n".join("\n".join(doc) for doc in DOCS)), _prepared("sentences"), TEXT),
    Door(
        "text: paragraphs", _text("t.txt", "\n\n".join("\n".join(doc) for doc in DOCS)), _prepared("paragraphs"), TEXT
    ),
    Door("text: documents", _text("t.txt", "\n\n".join(" ".join(d) for d in DOCS)), _prepared("documents"), TEXT),
    Door("text: jsonl", _text("t.jsonl", _jsonl("text")), _prepared("jsonl"), JSON),
    Door("text: squad", _make_squad, _prepared("squad"), JSON),
    Door("text: pairs", _text("t.tsv", _pairs()), _prepared("pairs"), TABLE),
    Door("text: nli-jsonl", _text("t.jsonl", _nli()), _prepared("nli-jsonl"), JSON),
    Door("excluded: jsonl", _text("t.jsonl", _nli()), _excluded, JSON),
    Door("excluded: tsv", _text("t.tsv", _pairs()), _excluded, TABLE),
    Door("excluded: squad", _make_squad, _excluded, JSON),
    Door("tokenizer: sentencepiece", _tokenizer_file("sentencepiece"), _use_tokenizer, (damaged,)),
    Door("tokenizer: tokenizer.json", _tokenizer_file("json"), _use_tokenizer, JSON),
    Door("tokenizer: vocab.txt", _tokenizer_file("vocab.txt"), _use_tokenizer, TABLE),
    Door("tokenizer: config", _tokenizer_file("tokenizer_config.json"), _use_tokenizer, JSON),
    Door("corpus: train.idx", _make_corpus("train.idx"), _read_corpus, (damaged,), 4),
    Door("corpus: train.bin", _make_corpus("train.bin"), _read_corpus, (damaged,)),
    Door("corpus: corpus.json", _make_corpus("corpus.json"), _open_corpus, JSON, 2),
    Door("corpus: held_out.txt", _make_corpus("held_out.txt"), _open_corpus, TEXT),
    Door("corpus: dict.txt", _make_corpus("dict.txt"), _open_corpus, TABLE),
    Door("GLUE: RTE", _make_glue("RTE"), _read_glue, TABLE),
    Door("GLUE: CoLA", _make_glue("CoLA"), _read_glue, TABLE),
    Door("GLUE: STS-B", _make_glue("STS-B"), _read_glue, TABLE),
    Door("GLUE: SST-2", _make_glue("SST-2"), _read_glue, TABLE),
    Door("GLUE: glue.json", _make_prepared_glue("glue.json"), _read_prepared_glue, JSON),
    Door("GLUE: train.idx", _make_prepared_glue("input1/train.idx"), _read_prepared_glue, (damaged,)),
    Door("GLUE: label/train.bin", _make_prepared_glue("label/train.bin"), _read_prepared_glue, (damaged,)),
    Door("SQuAD: file", _make_squad, _read_squad, JSON, 2),
    Door("SQuAD: squad.json", _make_prepared_squad("squad.json"), _read_prepared_squad, JSON),
    Door("SQuAD: questions.npy", _make_prepared_squad("train/questions.npy"), _read_prepared_squad, (damaged,)),
    Door("SQuAD: offsets.npy", _make_prepared_squad("train/offsets.npy"), _read_prepared_squad, (damaged,)),
    Door("checkpoint: pre-training", _make_checkpoint(""), _read_checkpoint, (damaged, odd_archive, odd_archive), 3),
    Door("checkpoint: RTE", _make_checkpoint("RTE"), _read_checkpoint, (damaged, odd_archive, odd_archive)),
    Door("import: config.json", _make_bert("config.json"), _import_bert, JSON),
    Door("import: weights", _make_bert("model.safetensors"), _import_bert, (damaged,)),
    Door("import: vocab.txt", _make_bert("vocab.txt"), _import_bert, TABLE),
    Door("import: tokenizer_config.json", _make_bert("tokenizer_config.json"), _import_bert, JSON),
    Door("results: records", _make_results, _read_results, JSON, 2),
    Door("probing: task", _make_probing, _read_probing, TABLE),
    Door("study: variants", _copy("recipes/variants.tsv"), read_variants, TABLE),
    Door("study: profile", _copy("recipes/profiles/smoke.toml"), read_profile, TEXT),
    Door("option: hierarchy", _option("bigram_shift@4*0.5,nsp@50%,mlm@-1"), _value(_hierarchy), (odd_text,), 2),
    Door("option: transfer", _option("nsp>mlm:concat!,bigram_shift>nsp:add~"), _value(_transfer), (odd_text,)),
    Door("option: warmup", _option("nsp:500,mlm:20"), _value(lambda t: parse_warmup(t, ("nsp", "mlm"))), (odd_text,)),
    Door("option: grid", _option("lr=1e-4,3e-4"), _value(lambda t: parse_grid([t], {})), (odd_text,)),
    Door("option: grid epochs", _option("epochs=3,10"), _value(lambda t: parse_grid([t], {})), (odd_text,)),
    Door("option: seeds", _option("1,2,3"), _value(parse_seeds), (odd_text,)),
)
