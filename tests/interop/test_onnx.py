"""ONNX: onnxruntime computes what ours computes, for any batch and length, from the ids of the exported tokenizer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hmtl_plugin.errors import UserError
from hmtl_plugin.tokenizers.loading import tokenizer_from_bytes

for package in ("onnx", "onnxscript", "onnxruntime", "tokenizers"):
    pytest.importorskip(package)
from hmtl_plugin.checkpoints import load_checkpoint  # noqa: E402
from hmtl_plugin.interop import onnx  # noqa: E402
from hmtl_plugin.interop.tokenizer_files import id_order  # noqa: E402
from hmtl_plugin.tokenizers.base import SENTENCEPIECE  # noqa: E402
from hmtl_plugin.tokenizers.training import train_tokenizer, train_wordpiece  # noqa: E402
from tests.interop.checkpoints import save_checkpoint  # noqa: E402
from tests.preparation.texts import documents  # noqa: E402

SENTENCES = [s for doc in documents(60) for s in doc]


def _run(file: Path, ids: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, {"input_ids": ids, "attention_mask": mask})
    return found


@pytest.mark.parametrize(
    ("kind", "options", "outputs"),
    [
        ("wordpiece", {"hierarchy": "bigram_shift@1,nsp@2,mlm@3"}, ["last_hidden_state", "hidden_states"]),
        (
            "sentencepiece",
            {"encoder_normalize_before": True, "hierarchy": "mlm@2"},
            ["last_hidden_state", "hidden_states"],
        ),
        (
            "sentencepiece",
            {"head": "RTE", "task": {"head_pooling": "pair"}},
            ["last_hidden_state", "hidden_states", "logits"],
        ),
        ("sentencepiece", {"head": "MNLI"}, ["last_hidden_state", "hidden_states", "logits"]),
        ("wordpiece", {"head": "squad"}, ["last_hidden_state", "hidden_states", "logits"]),
    ],
)
def test_outputs_are_ours(tmp_path: Path, kind: str, options: dict[str, Any], outputs: list[str]) -> None:
    if kind == "wordpiece":
        tokenizer = tokenizer_from_bytes("tokenizer.json", train_wordpiece(SENTENCES, 120, lowercase=True))
    else:
        tokenizer = tokenizer_from_bytes(SENTENCEPIECE, train_tokenizer(SENTENCES, 120))
    run = save_checkpoint(tmp_path / "run", tokenizer, **options)
    summary = onnx.export_onnx(run, tmp_path / "my.onnx", all_layers=True)
    assert summary.outputs == outputs
    assert summary.difference < 1e-4
    loaded = load_checkpoint(run)
    order = id_order(tokenizer, loaded.dictionary.symbols)
    their_id = {ours: theirs for theirs, ours in enumerate(order)}
    for texts in (
        SENTENCES[:5],
        SENTENCES[7:8],
        [SENTENCES[3], " ".join(SENTENCES[:4])],
    ):  # other batches, other lengths
        ids = [tokenizer.encode(text)[:90] for text in texts]
        rows = [[0, *row[: len(row) // 2], 2, *row[len(row) // 2 :], 2] for row in ids]
        width = max(map(len, rows))
        ours_BT = torch.tensor([row + [1] * (width - len(row)) for row in rows])
        mask = ours_BT.ne(1).long().numpy()
        theirs = np.array([[their_id[i] for i in row] for row in ours_BT.tolist()])
        found = dict(zip(outputs, _run(tmp_path / "my.onnx", theirs, mask)))
        with torch.no_grad():
            states, extra = loaded.model(ours_BT, features_only=True, return_all_hiddens=True, layer=summary.layers)
            head = loaded.model(ours_BT, task_head=True)[0] if "logits" in outputs else None
        real = mask.astype(bool)
        assert np.allclose(found["last_hidden_state"][real], states.numpy()[real], atol=1e-4)
        for number, state in enumerate(extra["hidden_states"]):
            assert np.allclose(found["hidden_states"][number][real], state.numpy()[real], atol=1e-4)
        if head is not None:
            keep = real if head.dim() == 3 else slice(None)
            assert np.allclose(found["logits"][keep], head.numpy()[keep], atol=1e-4)


def test_what_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_from_bytes(SENTENCEPIECE, train_tokenizer(SENTENCES, 120))
    run = save_checkpoint(tmp_path / "run", tokenizer)
    monkeypatch.setattr(onnx, "TOLERANCE", 0.0)
    with pytest.raises(UserError, match=r"differs by .* nothing was kept"):
        onnx.export_onnx(run, tmp_path / "my.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    (tmp_path / "my.onnx").touch()
    with pytest.raises(UserError, match="is there already"):
        onnx.export_onnx(run, tmp_path / "my.onnx")


def test_no_number_is_a_difference(tmp_path: Path) -> None:
    run = save_checkpoint(tmp_path / "run", tokenizer_from_bytes(SENTENCEPIECE, train_tokenizer(SENTENCES, 120)))
    state = torch.load(run / "model.pt", weights_only=True)
    state["model"]["encoder.layers.0.fc1.bias"][0] = float("nan")
    torch.save(state, run / "model.pt")
    with pytest.raises(UserError, match="differs by nan from ours; nothing was kept"):
        onnx.export_onnx(run, tmp_path / "my.onnx")


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    run = save_checkpoint(tmp_path / "run", tokenizer_from_bytes(SENTENCEPIECE, train_tokenizer(SENTENCES, 120)))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out .*: cannot be written .*; nothing was kept"):
        onnx.export_onnx(run, tmp_path / "file" / "my.onnx")


def test_all_positions_rows_of_padding_and_short_models(tmp_path: Path) -> None:
    tokenizer = tokenizer_from_bytes(SENTENCEPIECE, train_tokenizer(SENTENCES, 120))
    run = save_checkpoint(tmp_path / "run", tokenizer, max_positions=8)
    onnx.export_onnx(run, tmp_path / "my.onnx")
    model = load_checkpoint(run).model
    ours_BT = torch.tensor([[0, 9, 8, 7, 6, 5, 10, 2], [1] * 8])
    ids, mask = ours_BT.numpy(), ours_BT.ne(1).long().numpy()
    (states,) = _run(tmp_path / "my.onnx", ids, mask)
    with torch.no_grad():
        expected, _ = model(ours_BT, features_only=True)
    assert np.isfinite(states).all()
    assert np.allclose(states[0], expected.numpy()[0], atol=1e-4)


def test_length_is_free_up_to_learned_positions(tmp_path: Path) -> None:
    """As the page says; rotary ones have no end."""
    tokenizer = tokenizer_from_bytes(SENTENCEPIECE, train_tokenizer(SENTENCES, 120))
    for positions, length in (("learned", 96), ("rotary", 150)):
        run = save_checkpoint(tmp_path / positions, tokenizer, positions=positions)
        onnx.export_onnx(run, tmp_path / f"{positions}.onnx")
        ids = np.arange(length, dtype=np.int64)[None] % 100 + 5
        (found,) = _run(tmp_path / f"{positions}.onnx", ids, np.ones_like(ids))
        with torch.no_grad():
            states, _ = load_checkpoint(run).model(torch.from_numpy(ids), features_only=True)
        assert np.allclose(found, states.numpy(), atol=1e-4)
    ids = np.full((1, 97), 7)
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        _run(tmp_path / "learned.onnx", ids, np.ones_like(ids))
