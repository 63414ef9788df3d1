"""Hub interface: a checkpoint in use, from text to answers.

    model = HierarchicalBert.from_pretrained("runs/books")
    model.fill_mask("The <mask> sat on the mat.")

Sequences are built as in pre-training: ``<s> A </s>`` and ``<s> A </s> B </s>``.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import torch
from torch import Tensor, nn

from hmtl_plugin.checkpoints import LoadedCheckpoint, load_checkpoint
from hmtl_plugin.corruption.vocabulary import MASK
from hmtl_plugin.errors import UserError
from hmtl_plugin.finetuning.inference import Answered, QuestionAnswerer, sentence_rows
from hmtl_plugin.glue.tasks import GlueTask, find_task, is_task
from hmtl_plugin.hierarchy import Hierarchy
from hmtl_plugin.models.mix import Shares, shares_of
from hmtl_plugin.models.pooling import find_pooling, pool
from hmtl_plugin.objectives import bigram_shift
from hmtl_plugin.objectives.base import Objective, known_objectives
from hmtl_plugin.precision import check_device
from hmtl_plugin.preparation.readers.text import check_text
from hmtl_plugin.tokenizers.base import Tokenizer

Texts = str | Sequence[str]


class Filled(NamedTuple):
    """One way to fill a mask."""

    text: str
    probability: float
    piece: str


class WordOrder(NamedTuple):
    """A word and the probability that it stands in a swapped pair."""

    word: str
    moved: float


class Predicted(NamedTuple):
    """What a head says: the likeliest class and the probabilities of all, or a score."""

    answer: str | float
    probabilities: dict[str, float]


class PredictedWord(NamedTuple):
    """A word, and what the head of an objective says of it: the mean over its pieces."""

    word: str
    predicted: Predicted


class HierarchicalBert(nn.Module):
    """A pre-trained encoder with its heads and tokenizer. Methods take one text or a list and answer alike."""

    def __init__(self, checkpoint: LoadedCheckpoint) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.model = checkpoint.model
        self.dictionary = checkpoint.dictionary
        self.vocabulary = checkpoint.vocabulary

    @classmethod
    def from_pretrained(cls, path: str | Path, device: str | torch.device = "cpu") -> "HierarchicalBert":
        """Load a checkpoint file, or a folder's model.pt, checkpoint_best.pt or checkpoint_last.pt.

        Raises:
            UserError: in one line, if there is none or it cannot be used.
        """
        check_device(device, "device")
        return cls(load_checkpoint(path)).to(device).eval()

    @property
    def hierarchy(self) -> Hierarchy:
        """Of pre-training; a fine-tuned checkpoint has none (`UserError`)."""
        return self.checkpoint.hierarchy

    @property
    def mixes(self) -> dict[str, Shares]:
        """Objective that reads a mix of layers -> the share of each; see `models.mix` for what that does not say."""
        return shares_of(self.model.mixes)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the pre-training text."""
        if self.checkpoint.tokenizer is None:
            raise UserError(
                f"{self.checkpoint.path}: no tokenizer inside or beside it: copy the data folder's (sentencepiece.bpe.model or tokenizer.json) there, "
                "or give token ids instead of text"
            )
        return self.checkpoint.tokenizer

    # ---- text and ids ----

    def encode(self, text: str, pair: str | None = None) -> Tensor:
        """(T,) ids of ``<s> text </s>`` or ``<s> text </s> pair </s>``. The string ``<mask>`` stands for the mask."""
        for each in (text,) if pair is None else (text, pair):
            check_text(each, "text")
        ids = [self.vocabulary.bos, *self._pieces(text), self.vocabulary.eos]
        if pair is not None:
            ids += [*self._pieces(pair), self.vocabulary.eos]
        longest = self.model.max_positions()
        if longest is not None and len(ids) > longest:
            raise UserError(f"a text of {len(ids)} tokens is longer than the model's {longest} positions: cut it")
        return torch.tensor(ids)

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """Text of ids; special tokens other than ``<mask>`` are left out, the two segments joined by a blank."""
        parts: list[str] = []
        run: list[int] = []
        for token in [*map(int, ids), self.vocabulary.eos]:
            if token == self.vocabulary.eos:
                parts.append(self.tokenizer.decode(run))
                run = []
            elif token not in (self.vocabulary.bos, self.vocabulary.pad):
                run.append(token)
        return " ".join(part for part in parts if part)

    def _pieces(self, text: str) -> list[int]:
        first, *others = self.tokenizer.encode_parts(text.split(MASK))
        return [*first, *(token for ids in others for token in (self.vocabulary.mask, *ids))]

    def _batches(self, rows: Sequence[Tensor], batch_size: int) -> Iterator[tuple[list[int], Tensor]]:
        """Row numbers and (B, T) padded ids, rows of similar length together."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            padded = nn.utils.rnn.pad_sequence(
                [rows[i] for i in numbers], batch_first=True, padding_value=self.vocabulary.pad
            )
            yield numbers, padded.to(self.device)

    # ---- representations ----

    @torch.inference_mode()
    def extract_features(self, tokens: Tensor, return_all_hiddens: bool = False) -> Tensor | list[Tensor]:
        """Hidden states of (B, T) or (T,) ids: (B, T, H) of the top layer, or of all layers, embeddings first."""
        tokens_BT = tokens.to(self.device) if tokens.dim() == 2 else tokens.to(self.device)[None]
        features, extra = self.model(tokens_BT, features_only=True, return_all_hiddens=return_all_hiddens)
        return extra["hidden_states"] if return_all_hiddens else features

    @torch.inference_mode()
    def sentence_embedding(self, texts: Texts, layer: int = -1, pooling: str = "mean", batch_size: int = 32) -> Tensor:
        """(B, H) embeddings of texts, or (H,) of one text.

        Args:
            layer: 0 (embeddings) to L, or from the top: -1 is L.
            pooling: ``mean`` or ``max`` over the text's tokens, specials left out, or ``cls`` (or ``first``), the state
                of ``<s>``.
        """
        how = find_pooling(pooling)
        depth = self.model.config.layers
        number = layer + depth + 1 if layer < 0 else layer
        if not 0 <= number <= depth:
            raise UserError(f"layer {layer}: use 0..{depth} or -1..-{depth + 1}")
        rows = [self.encode(text) for text in _listed(texts)]
        result = torch.empty(len(rows), self.model.config.hidden, device=self.device)
        for numbers, tokens_BT in self._batches(rows, batch_size):
            hidden_BTH, _ = self.model(tokens_BT, features_only=True, layer=number)
            result[numbers] = pool(hidden_BTH.float(), tokens_BT, how)
        return result[0] if isinstance(texts, str) else result

    # ---- the objectives' answers ----

    @overload
    def fill_mask(self, texts: str, topk: int = ...) -> list[Filled]: ...  # type: ignore[overload-overlap]
    @overload
    def fill_mask(self, texts: Sequence[str], topk: int = ...) -> list[list[Filled]]: ...
    @torch.inference_mode()
    def fill_mask(self, texts: Texts, topk: int = 5) -> list[Filled] | list[list[Filled]]:
        """The ``topk`` likeliest fillings of a text's first ``<mask>``, best first; others stay masked in ``text``.

        Raises:
            UserError: if a text holds no ``<mask>`` or the hierarchy no masked LM.
        """
        self._need("mlm")
        rows = [self.encode(text) for text in _listed(texts)]
        answers: list[list[Filled]] = [[] for _ in rows]
        for numbers, tokens_BT in self._batches(rows, 32):
            is_mask = tokens_BT == self.vocabulary.mask
            if not bool(is_mask.any(1).all()):
                raise UserError(
                    f"fill_mask: a text holds no {MASK}: write it where a piece is missing (BERT's [MASK] is plain text here)"
                )
            column_B = is_mask.int().argmax(1)
            positions = column_B + torch.arange(len(tokens_BT), device=self.device) * tokens_BT.shape[1]
            logits_BV = self._logits(tokens_BT, {"mlm": positions})["mlm"].float()
            # specials are never a prediction target
            logits_BV[:, torch.from_numpy(self.vocabulary.special_V).to(self.device)] = float("-inf")
            best = torch.softmax(logits_BV, -1).topk(min(topk, len(self.vocabulary.replacements)))
            for row, number in enumerate(numbers):
                answers[number] = [
                    self._filled(tokens_BT[row], int(column_B[row]), int(token), float(probability))
                    for probability, token in zip(best.values[row], best.indices[row], strict=True)
                ]
        return answers[0] if isinstance(texts, str) else answers

    def _filled(self, tokens_T: Tensor, column: int, token: int, probability: float) -> Filled:
        filled = tokens_T.clone()
        filled[column] = token
        return Filled(self.decode(filled), probability, self.dictionary[token])

    @overload
    def next_sentence(self, first: str, second: str) -> float: ...  # type: ignore[overload-overlap]
    @overload
    def next_sentence(self, first: Sequence[str], second: Sequence[str]) -> list[float]: ...
    @torch.inference_mode()
    def next_sentence(self, first: Texts, second: Texts) -> float | list[float]:
        """Probability that ``second`` follows ``first`` (of sop: that they stand in their order)."""
        name = next((name for name in ("nsp", "sop") if name in self.checkpoint.objectives), None) or self._need("nsp")
        rows = [self.encode(a, b) for a, b in zip(_listed(first), _listed(second), strict=True)]
        answers = [0.0] * len(rows)
        for numbers, tokens_BT in self._batches(rows, 32):
            probability_B = torch.softmax(self._logits(tokens_BT, {})[name].float(), -1)[:, 1]
            for row, number in enumerate(numbers):
                answers[number] = float(probability_B[row])
        return answers[0] if isinstance(first, str) else answers

    @overload
    def word_order(self, texts: str) -> list[WordOrder]: ...  # type: ignore[overload-overlap]
    @overload
    def word_order(self, texts: Sequence[str]) -> list[list[WordOrder]]: ...
    @torch.inference_mode()
    def word_order(self, texts: Texts) -> list[WordOrder] | list[list[WordOrder]]:
        """For each word the probability of standing in a swapped pair (mean over its pieces)."""
        self._need("bigram_shift")
        if bigram_shift.TOKEN not in self.checkpoint.objectives["bigram_shift"].target_names:
            raise UserError(
                "word_order: this checkpoint was trained with --bigram-granularity sentence, it has one label a sample"
            )
        moved = bigram_shift.BigramShift.labels[1]
        answers = [
            [WordOrder(word, predicted.probabilities[moved]) for word, predicted in words]
            for words in self.predict_words("bigram_shift", _listed(texts))
        ]
        return answers[0] if isinstance(texts, str) else answers

    def _words(self, tokens_T: np.ndarray, said_TC: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Each word of a row of ids, and (C,) the mean of what is said of its pieces."""
        inside = slice(1, -1)
        tokens, said = tokens_T[inside], said_TC[inside]
        if not len(tokens):
            return []
        starts = self.vocabulary.word_start_V[tokens].copy()
        starts[0] = True
        begin = np.flatnonzero(starts)
        means = np.add.reduceat(said, begin) / np.diff(begin, append=len(tokens))[:, None]
        return [(self.decode(run.tolist()), mean) for run, mean in zip(np.split(tokens, begin[1:]), means, strict=True)]

    # ---- answers of fine-tuned heads ----

    @overload
    def predict(self, head: str, a: str, b: str | None = ...) -> Predicted: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, head: str, a: Sequence[str], b: Sequence[str] | None = ...) -> list[Predicted]: ...
    @torch.inference_mode()
    def predict(self, head: str, a: Texts, b: Texts | None = None) -> Predicted | list[Predicted]:
        """What a head says of sentences or pairs of them.

        Args:
            head: the GLUE task that the checkpoint was fine-tuned on, or an objective that it was pre-trained on and
                that asks of whole samples, as ``nsp`` does.

        Raises:
            UserError: if the checkpoint has no such head, or the task takes another number of sentences.
        """
        first, second = _listed(a), None if b is None else _listed(b)
        if second is not None and (isinstance(a, str) != isinstance(b, str) or len(first) != len(second)):
            raise UserError(f"predict: {len(first)} first and {len(second)} second sentences: give as many of each")
        objective = self._objective(head, "sentence")
        if objective is None:
            task = self._task(head, 1 if second is None else 2)
            labels, longest = tuple(task.labels), int(self.checkpoint.config["task"]["tokens_per_sample"])
        else:
            if objective.pairing and second is None:
                raise UserError(f"predict: {head} takes pairs: give b too")
            labels, longest = objective.labels, self.model.config.max_positions
        rows = sentence_rows(self.tokenizer, first, second, longest)
        answers = [Predicted("", {})] * len(rows)
        for numbers, tokens_BT in self._batches(rows, 32):
            if objective is None:
                logits_BC = self._head_logits(tokens_BT)
            else:
                logits_BC = self._logits(tokens_BT, {})[objective.target_names[0]]
                labels = labels or _numbers(logits_BC)
            for number, logits_C in zip(numbers, logits_BC.float().cpu(), strict=True):
                answers[number] = _predicted(logits_C, labels)
        return answers[0] if isinstance(a, str) else answers

    @overload
    def predict_words(self, objective: str, texts: str) -> list[PredictedWord]: ...  # type: ignore[overload-overlap]
    @overload
    def predict_words(self, objective: str, texts: Sequence[str]) -> list[list[PredictedWord]]: ...
    @torch.inference_mode()
    def predict_words(self, objective: str, texts: Texts) -> list[PredictedWord] | list[list[PredictedWord]]:
        """What the head of an objective that asks of tokens, as ``bigram_shift`` does, says of each word.

        Raises:
            UserError: if the checkpoint was not pre-trained on it, or it asks of whole samples or of masks.
        """
        found = self._objective(objective, "token")
        if found is None:
            self._need(objective)
            raise UserError(f"predict_words: {objective} is no objective of pre-training: use predict")
        rows = [self.encode(text) for text in _listed(texts)]
        answers: list[list[PredictedWord]] = [[] for _ in rows]
        for numbers, tokens_BT in self._batches(rows, 32):
            logits_BTC = self._logits(tokens_BT, {})[found.target_names[0]].float()
            labels = found.labels or _numbers(logits_BTC)
            said_BTC = torch.softmax(logits_BTC, -1) if labels else logits_BTC
            for row, number in enumerate(numbers):
                tokens_T = rows[number].numpy()
                words = self._words(tokens_T, said_BTC[row, : len(tokens_T)].cpu().numpy())
                answers[number] = [PredictedWord(word, _of_shares(mean_C.tolist(), labels)) for word, mean_C in words]
        return answers[0] if isinstance(texts, str) else answers

    def _objective(self, head: str, scope: str) -> Objective | None:
        """The objective of this name, if it is one.

        Raises:
            UserError: if the checkpoint was not trained on it, or it asks of something else than ``scope``.
        """
        if head not in known_objectives():
            return None
        objective = self.checkpoint.objectives[self._need(head)]
        if objective.scope == "token" and objective.sparse:
            raise UserError(f"predict: {head} answers where something is masked: use fill_mask")
        if objective.scope != scope:
            other = "predict_words" if scope == "sentence" else "predict"
            raise UserError(
                f"predict: {head} asks of {'words' if scope == 'sentence' else 'whole samples'}: use {other}"
            )
        return objective

    def _task(self, head: str, sentences: int) -> GlueTask:
        if not self.checkpoint.head and not is_task(head):
            raise UserError(f"predict: '{head}' is none of this checkpoint's objectives ({self.hierarchy})")
        task = find_task(head)
        if self.checkpoint.head != task.name:
            has = f"the head of {self.checkpoint.head}" if self.checkpoint.head else "no head of a GLUE task"
            raise UserError(
                f"{self.checkpoint.path}: has {has}, not of {task.name}: give a checkpoint fine-tuned on that"
            )
        if len(task.text) != sentences:
            raise UserError(f"predict: {task.name} takes {'pairs' if len(task.text) == 2 else 'single sentences'}")
        return task

    def _head_logits(self, tokens_BT: Tensor) -> Tensor:
        logits: Tensor = self.model(tokens_BT, task_head=True)[0]
        return logits

    @overload
    def answer(self, question: str, context: str, top_k: int = ...) -> Answered: ...  # type: ignore[overload-overlap]
    @overload
    def answer(self, question: Sequence[str], context: Sequence[str], top_k: int = ...) -> list[Answered]: ...
    def answer(self, question: Texts, context: Texts, top_k: int = 1) -> Answered | list[Answered]:
        """The ``top_k`` likeliest answers to each question on the context beside it, with their places in it.

        A context longer than the model is read in windows.

        Raises:
            UserError: if the checkpoint was not fine-tuned on SQuAD.
        """
        if self.checkpoint.head != "squad":
            raise UserError(f"{self.checkpoint.path}: was not fine-tuned on SQuAD: run recipes/finetune_squad.sh first")
        if top_k < 1:
            raise UserError(f"answer: top_k {top_k}: use 1 or more")
        questions, contexts = _listed(question), _listed(context)
        if isinstance(question, str) != isinstance(context, str) or len(questions) != len(contexts):
            raise UserError(f"answer: {len(questions)} questions and {len(contexts)} contexts: give as many of each")
        answerer = QuestionAnswerer(self.checkpoint, self.tokenizer)
        answers = answerer.answer(questions, contexts, top_k, batch_size=32)
        return answers[0] if isinstance(question, str) else answers

    def _logits(self, tokens_BT: Tensor, positions: dict[str, Tensor]) -> dict[str, Tensor]:
        targets = {name: {"positions": where, "labels": torch.zeros_like(where)} for name, where in positions.items()}
        logits, _ = self.model(tokens_BT, targets=targets)
        return logits

    def _need(self, objective: str) -> str:
        if objective not in self.checkpoint.objectives:
            raise UserError(f"this checkpoint was not trained on {objective} (its hierarchy is '{self.hierarchy}')")
        return objective


def _listed(texts: Texts) -> Sequence[str]:
    listed = [texts] if isinstance(texts, str) else texts
    for text in listed:
        check_text(text, "text")
    return listed


def _predicted(logits_C: Tensor, labels: Sequence[str]) -> Predicted:
    return _of_shares((torch.softmax(logits_C, -1) if labels else logits_C).tolist(), labels)


def _of_shares(shares: Sequence[float], labels: Sequence[str]) -> Predicted:
    """Of probabilities of the labels; of a score, if there are no labels."""
    if not labels:
        return Predicted(shares[0], {})
    return Predicted(labels[int(np.argmax(shares))], dict(zip(labels, shares, strict=True)))


def _numbers(logits: Tensor) -> tuple[str, ...]:
    """Of classes that have no names; none of a score."""
    classes = logits.shape[-1]
    return tuple(map(str, range(classes))) if classes > 1 else ()
