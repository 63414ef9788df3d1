"""Packed batches: the losses and gradients of padded ones, without the padding."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from fairseq.data import Dictionary
from hypothesis import given
from hypothesis import strategies as st

import hmtl_plugin.objectives  # noqa: F401  registers the objectives
from hmtl_plugin.corruption.vocabulary import MASK, Vocabulary
from hmtl_plugin.data.batching import pack
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.dataset import PretrainingDataset, SampleSpec
from hmtl_plugin.data.pairing import PairingConfig
from hmtl_plugin.errors import UserError
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertModel
from hmtl_plugin.models.sequences import Sequences
from hmtl_plugin.special_tokens import PAD
from tests.data.corpora import random_documents, write
from tests.models.test_hierarchical_bert import build, learned
from tests.training.runs import arguments, make_data, train

LENGTH = 40
WORDS = 100


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    rng = np.random.default_rng(0)
    items: list[list[int]] = []
    for document in random_documents(rng, 30, 8, 7.0):
        items += [*(rng.integers(5, WORDS, tokens).tolist() for tokens in document), []]
    return Corpus(write(tmp_path_factory.mktemp("corpus"), items))


def dataset(corpus: Corpus, model: HierarchicalBertModel, packed: bool, kinds: tuple[str, ...]) -> PretrainingDataset:
    dictionary = Dictionary()
    dictionary.add_symbol(MASK)
    for number in range(WORDS - len(dictionary)):
        dictionary.add_symbol(f"\u2581{number:x}")
    objectives = tuple(model.objectives.values())
    names = tuple(name for objective in objectives for name in objective.target_names)
    views = [SampleSpec(kind, kind, objectives, names) for kind in kinds]
    config = PairingConfig(tokens_per_sample=LENGTH)
    return PretrainingDataset(corpus, Vocabulary.from_dictionary(dictionary), views, config, packed=packed)


def loss_and_gradients(model: HierarchicalBertModel, sample: dict) -> dict[str, torch.Tensor]:
    model.zero_grad()
    logits, _ = model(**sample["net_input"], targets=sample["targets"])
    losses = {
        name: objective.loss(logits, sample["targets"], sample["mean_tokens"]).scaled_sum
        for name, objective in model.objectives.items()
    }
    (torch.stack(list(losses.values())).sum() / sample["ntokens"]).backward()
    found = {name: loss.detach() / sample["ntokens"] for name, loss in losses.items()}
    return found | {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("operator", ["concat", "gate!", "add~", "label"])
@pytest.mark.parametrize(
    ("hierarchy", "source", "target", "granularity"),
    [
        ("bigram_shift@1,nsp@2,mlm@3", "nsp", "mlm", "token"),
        ("bigram_shift@1,nsp@3,mlm@3", "bigram_shift", "nsp", "token"),
        ("nsp@1,bigram_shift@2,mlm@3", "nsp", "bigram_shift", "both"),
        ("bigram_shift@1,mlm@2", "bigram_shift", "mlm", "both"),
        ("bigram_shift@1,sop@3,mlm@3", "sop", "mlm", "sentence"),
    ],
)
def test_packed_is_padded(
    corpus: Corpus, hierarchy: str, source: str, target: str, granularity: str, operator: str, pre_norm: bool
) -> None:
    if operator == "add~" and (source, target) == ("bigram_shift", "mlm"):
        pytest.skip("beyond the end of a shorter sample rows hold states of padding, packed ones nothing")
    model = learned(
        build(
            hierarchy,
            f"{source}>{target}:{operator}",
            granularity=granularity,
            tokens=WORDS,
            max_positions=LENGTH,
            dropout=0.0,
            attention_dropout=0.0,
            encoder_normalize_before=pre_norm,
        )
    )
    model.train()
    kinds = ("sop",) if "sop" in hierarchy else ("nsp", "single")  # two views, as in validation
    found = []
    for packed in (False, True):
        data = dataset(corpus, model, packed, kinds)
        numbers = np.random.default_rng(0).permutation(len(data))[:24].tolist()
        sample = data.collater(numbers)
        assert sample["net_input"]["src_tokens"].dim() == (1 if packed else 2)
        found.append(loss_and_gradients(model, sample))
    padded, packed_ = found
    assert padded.keys() == packed_.keys() and len(padded) > 20
    for name, value in padded.items():
        torch.testing.assert_close(packed_[name], value, atol=2e-6, rtol=2e-4, msg=lambda text, n=name: f"{n}: {text}")


def test_layout_of_packed_sequences() -> None:
    rows = torch.tensor([[0, 9, 8, 2, 7, 2, 1, 1], [0, 9, 2, 1, 1, 1, 1, 1], [0, 9, 2, 6, 5, 7, 8, 2]])
    keep = rows.ne(PAD)
    starts = torch.tensor([0, 6, 9, 17], dtype=torch.int32)
    packed, padded = Sequences.packed(rows[keep], starts, 8), Sequences(rows)
    assert packed.packing is not None
    assert torch.equal(packed.segments(), padded.segments()[keep])
    table = torch.arange(24.0).view(12, 2)
    assert torch.equal(padded.at_positions(table), table[:8])
    assert torch.equal(packed.at_positions(table), table[:8].expand(3, 8, 2)[keep])
    assert torch.equal(packed.as_rows().tokens, rows)
    assert torch.equal(packed.mask(), padded.mask())
    assert torch.equal(packed.tokens[packed.first()], torch.zeros(3).long())
    assert torch.equal(packed.samples(torch.tensor([0, 5, 6, 16])), torch.tensor([0, 0, 1, 2]))
    state = torch.randn(17, 4)
    assert torch.equal(packed.packing.unpad(packed.packing.pad(state)), state)
    torch.testing.assert_close(packed.mean_of_words(state)[1], state[7])


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=200),
    st.one_of(st.none(), st.integers(40, 300)),
    st.one_of(st.none(), st.integers(1, 20)),
)
def test_packs_cover_all_samples_in_order_and_keep_within_the_limits(
    sizes: list[int], tokens: int | None, samples: int | None
) -> None:
    sizes_S: npt.NDArray[np.int32] = np.array(sizes, dtype=np.int32)
    packs = pack(sizes_S, tokens, samples)
    assert [index for run in packs for index in range(run.start, run.stop)] == list(range(len(sizes)))
    for run in packs:
        assert tokens is None or sizes_S[run].sum() <= tokens
        assert samples is None or run.stop - run.start <= samples


def test_packs_are_full() -> None:
    """Of 4,096 tokens at most two samples' worth is left free."""
    sizes_S = np.random.default_rng(0).integers(5, 129, 20_000)
    packs = pack(sizes_S, 4096, None)
    assert min(sizes_S[run].sum() for run in packs[:-1]) > 4096 - 2 * 128


def test_a_sample_longer_than_a_batch_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"--max-tokens 30 cannot hold a sample of 40 tokens: raise it to 40 or more"):
        pack(np.array([10, 40]), 30, None)


def test_packed_batches_mix_lengths(corpus: Corpus) -> None:
    """Nothing has to be of like length, so each batch is like the epoch: sorting would make batches of short samples."""
    data = dataset(corpus, build("nsp@3,mlm@3", tokens=WORDS), True, ("nsp",))
    order = data.ordered_indices()
    assert sorted(order.tolist()) == list(range(len(data)))
    steps = np.abs(np.diff(data.sizes[order]))
    assert steps.mean() > 0.5 * np.abs(np.subtract.outer(data.sizes, data.sizes)).mean()
    data.set_epoch(2)
    assert order[:20].tolist() != data.ordered_indices()[:20].tolist()


def test_a_packed_epoch_is_every_sample_once(corpus: Corpus) -> None:
    model = build("nsp@3,mlm@3", tokens=WORDS)
    data = dataset(corpus, model, True, ("nsp",))
    batches = data.batch_by_size(data.ordered_indices(), max_tokens=200)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(data)))
    sample = data.collater(batches[0].tolist())
    assert len(sample["net_input"]["src_tokens"]) == sample["ntokens"] <= 200
    assert sample["net_input"]["longest"] == sample["net_input"]["starts"].diff().max()


def test_validation_of_a_packed_run_is_that_of_a_padded_one(tmp_path: Path) -> None:
    """By fairseq-train, with weights that do not move: the same samples, the same losses."""
    data = make_data(tmp_path / "data", documents=20)
    lines = {}
    for name, extra in {"padded": [], "packed": ["--pack"]}.items():
        options = arguments(data, tmp_path / name, "--max-update", "2", "--lr", "1e-30", "--max-tokens", "200", *extra)
        lines[name] = next(line for line in train(options) if "valid_loss" in line)
    keys = [key for key in lines["padded"] if key.startswith("valid_") and key.endswith(("loss", "accuracy", "auc"))]
    assert len(keys) >= 6
    for key in keys:
        assert lines["packed"][key] == pytest.approx(lines["padded"][key], abs=2e-4), key


def test_a_batch_that_cannot_hold_a_sample_is_refused_in_one_line(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", documents=20)
    with pytest.raises(SystemExit, match=r"error: --max-tokens 20 cannot hold a sample of \d+ tokens: raise it to"):
        train(arguments(data, tmp_path / "run", "--pack", "--max-tokens", "20"))
