"""scripts/probe.py on checkpoints that fairseq-train wrote, from text to report."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hmtl_plugin import HierarchicalBert
from hmtl_plugin.errors import UserError
from hmtl_plugin.probing import probe
from hmtl_plugin.probing.loading import checkpoint_encoder, untrained_encoder
from tests.commands.running import run_script
from tests.probing.texts import sentences, write_task
from tests.training.runs import arguments, train

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one shape, a hierarchy and a flat one, and two tasks, one of them bigram shift by name."""
    folder = tmp_path_factory.mktemp("probe")
    text = folder / "text.txt"
    lines = sentences(400)
    text.write_text("\n".join("\n".join(lines[i : i + 8]) + "\n" for i in range(0, 400, 8)))
    run_script("prepare_corpus", text, "--format", "sentences", "--vocab-size", "60", "--valid-fraction", "0.2",
               "--workers", "1", "--out", folder / "data")  # fmt: skip
    train(arguments(folder / "data", folder / "runs/hierarchy", "--max-update", "5", "--disable-validation"))
    train(arguments(folder / "data", folder / "runs/flat", "--max-update", "5", "--disable-validation",
                    "--hierarchy", "nsp@-1,mlm@-1", "--transfer", ""))  # fmt: skip
    texts = sentences(500, seed=7)
    write_task(folder / "tasks/cats.txt", texts, ["cat" if "cat" in text else "none" for text in texts], (300, 400))
    random = np.random.default_rng(0)
    swapped = [" ".join(t.split()[::-1]) if random.random() < 0.5 else t for t in texts]
    write_task(
        folder / "tasks/bigram_shift.txt", swapped, ["O" if a == b else "I" for a, b in zip(texts, swapped)], (300, 400)
    )
    return folder


def command(folder: Path, out: Path, *extra: str) -> None:
    run_script(
        "probe", folder / "runs/hierarchy", folder / "runs/flat", "--tasks", folder / "tasks", "--out", out, *extra
    )


def test_from_checkpoints_to_a_report(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command(folder, out)
    printed = capsys.readouterr().out
    # two checkpoints and their untrained twin, two poolings
    assert printed.count("pooling\n") == 6 and "Bigram shift +" in printed
    assert "(bigram_shift at 1, nsp at 1, mlm at 2)" in printed and f"differs from {folder}/runs/flat" in printed
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "Bigram shift" in report and "untrained" in report
    assert {path.suffix for path in (out / "plots").iterdir()} == {".png", ".svg"}
    result = json.loads((out / "results.json").read_text())
    assert result["baseline"] == f"{folder}/runs/flat"
    probes = [line for line in result["lines"] if line["role"] == "probe"]
    assert len(probes) == 3 * 2 * 2 * 3 and all(line["kind"] == "probe" for line in probes)
    command(folder, out, "--no-plots")
    again = capsys.readouterr()
    assert again.err == "" and again.out.splitlines() == printed.splitlines()[:-2]


def test_a_full_disk(folder: Path, tmp_path: Path, file_limit: Callable[[int], None]) -> None:
    file_limit(50_000)
    with pytest.raises(UserError, match=r"out/features: cannot be written \(File too large\): make room there"):
        command(folder, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.npy"))


def test_features_are_the_hub_s(folder: Path) -> None:
    texts = ["the old cat sees that blue door", "my friend", "a young dog likes the long road again again"]
    features = checkpoint_encoder(folder / "runs/hierarchy", ("mean", "cls", "max"))(texts)
    hub = HierarchicalBert.from_pretrained(folder / "runs/hierarchy")
    for pooling, values in features.items():
        for layer in range(3):
            expected = hub.sentence_embedding(texts, layer, pooling).numpy()
            assert values[:, layer] == pytest.approx(expected, abs=1e-5)


def test_first_is_another_name_of_cls(folder: Path) -> None:
    """Which results know it by; what has weights or compares two sentences is not for probes."""
    assert checkpoint_encoder(folder / "runs/flat", ("first", "mean", "cls")).poolings == ("cls", "mean")
    hub = HierarchicalBert.from_pretrained(folder / "runs/flat")
    first, cls = (hub.sentence_embedding("my friend", pooling=name) for name in ("first", "cls"))
    assert first.tolist() == cls.tolist()
    message = "^pooling 'pair': use one of mean, cls, max$"
    with pytest.raises(UserError, match=message):
        checkpoint_encoder(folder / "runs/flat", ("pair",))
    with pytest.raises(UserError, match=message):
        hub.sentence_embedding("my friend", pooling="pair")


def test_the_untrained_twin_is_the_model_before_its_first_update(folder: Path, tmp_path: Path) -> None:
    """Same shape and tokenizer, the weights that training with that seed began with; another seed gives others."""
    fresh = tmp_path / "fresh"
    # a learning rate of 0: the checkpoint holds the first weights
    train(arguments(folder / "data", fresh, "--max-update", "1", "--disable-validation", "--lr", "0"))
    texts = sentences(5)
    begun = checkpoint_encoder(fresh)(texts)["mean"]
    assert untrained_encoder(folder / "runs/hierarchy", 3)(texts)["mean"] == pytest.approx(begun, abs=1e-5)
    assert np.abs(untrained_encoder(folder / "runs/hierarchy", 4)(texts)["mean"] - begun).max() > 0.1
    one, other = (untrained_encoder(folder / "runs/flat", seed).about.fingerprint for seed in (1, 2))
    assert one != other


def test_the_untrained_twin_of_a_run_whose_outputs_began_at_zero_is_no_copy_of_its_embeddings(
    folder: Path, tmp_path: Path
) -> None:
    fresh = tmp_path / "fresh"
    train(arguments(folder / "data", fresh, "--max-update", "1", "--disable-validation", "--zero-init-outputs"))
    states = untrained_encoder(fresh, 3)(sentences(5))["mean"]
    assert np.abs(states[:, 1] - states[:, 0]).max() > 0.01


def test_a_run_named_untrained_and_a_run_named_twice(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "runs/flat", "untrained")
    study = probe("untrained", folder / "tasks/cats.txt", "out", poolings=["mean"], controls=False)
    assert [encoder.name for encoder in study.encoders] == ["untrained", "untrained (as untrained)"]
    with pytest.raises(UserError, match="are the same encoder"):
        probe(["untrained", folder / "runs/flat"], folder / "tasks/cats.txt", "out")


def test_automatic_precision_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hmtl_plugin import precision

    found = {}
    for native in (False, True):
        monkeypatch.setattr(precision, "computes_in_bf16", lambda device, native=native: native)
        found[native] = checkpoint_encoder(folder / "runs/flat", precision="auto")
    assert (found[False].precision, found[True].precision) == ("none", "bf16")
    assert found[False].about.fingerprint != found[True].about.fingerprint


def test_a_device_that_is_not_there(folder: Path) -> None:
    with pytest.raises(UserError, match="--device nonsense"):
        checkpoint_encoder(folder / "runs/flat", device="nonsense")


def test_precision_is_part_of_what_is_kept(folder: Path) -> None:
    assert (
        checkpoint_encoder(folder / "runs/flat").about.fingerprint
        != checkpoint_encoder(folder / "runs/flat", precision="bf16").about.fingerprint
    )


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--baseline nobody"):
        command(folder, tmp_path / "out", "--no-plots", "--baseline", "nobody", "--pooling", "mean")
    with pytest.raises(UserError, match="pooling 'sum'"):
        command(folder, tmp_path / "out", "--pooling", "sum")
    with pytest.raises(UserError, match="no such checkpoint"):
        run_script("probe", tmp_path / "absent", "--tasks", folder / "tasks", "--out", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no probing task"):
        run_script("probe", folder / "runs/flat", "--tasks", tmp_path / "empty", "--out", tmp_path / "out")


def test_a_checkpoint_without_tokenizer(folder: Path, tmp_path: Path) -> None:
    import torch

    state = torch.load(folder / "runs/flat/checkpoint_last.pt", weights_only=True)
    for key in ("tokenizer", "tokenizer_name"):
        del state["task_state"][key]
    bare = tmp_path / "bare.pt"
    torch.save(state, bare)
    with pytest.raises(UserError, match=r"bare.pt: no tokenizer inside or beside it"):
        run_script("probe", bare, "--tasks", folder / "tasks", "--out", tmp_path / "out")
