"""The model ``hmtl_bert``: a BERT encoder and, in the order of a hierarchy, the taps that its objectives read, the
transfers between them and their heads.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, make_dataclass
from pkgutil import resolve_name
from typing import Any, Optional, cast

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model, register_model_architecture
from torch import Tensor, nn

from hmtl_plugin.corruption.vocabulary import MASK
from hmtl_plugin.errors import UserError
from hmtl_plugin.hierarchy import Hierarchy, HierarchyError, Transfer
from hmtl_plugin.models import state
from hmtl_plugin.models.config import EncoderConfig, fairseq_fields
from hmtl_plugin.models.encoder import Encoder
from hmtl_plugin.models.initialisation import generator_for, initialise
from hmtl_plugin.models.mix import Mix
from hmtl_plugin.models.parts import ACTIVATIONS, check_part
from hmtl_plugin.models.sentence_pooling import SENTENCE_POOLINGS
from hmtl_plugin.models.sequences import Sequences, rows_at
from hmtl_plugin.models.transfer import OPERATORS, Rows, shape_source
from hmtl_plugin.objectives import bigram_shift
from hmtl_plugin.objectives.base import Head, HeadConfig, Objective, Targets, known_objectives
from hmtl_plugin.special_tokens import PAD


@dataclass(frozen=True)
class _Solved:
    """What a solved objective can hand on: its representation z and the logits of its first target."""

    z: Tensor
    logits: Tensor


class HierarchyPlan:
    """The plan of one hierarchy on an encoder of L layers; holds no weights.

    The highest tap is computed only at the rows its heads need, when these are few: ``<s>`` and masked
    positions.

    Attributes:
        layers: objective -> layer 1..L; of one that reads a mix of layers the highest.
        mixes: objective -> the layers of its mix.
        plain: layers that are read as they are.
        order: the objectives, sources before their targets.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        num_layers: int,
        objectives: Mapping[str, Objective],
        reads_all: Collection[str] = (),
    ) -> None:
        """``reads_all``: sentence objectives whose pooling reads the states of all tokens."""
        self.hierarchy = hierarchy
        self.layers = hierarchy.layers(num_layers)
        self.mixes = hierarchy.mixes(num_layers)
        self.plain = {layer for name, layer in self.layers.items() if name not in self.mixes}
        self.order = hierarchy.order(num_layers)
        self.objectives = {name: objectives[name] for name in self.order}
        sources = {edge.source for edge in hierarchy.transfers}
        self.kinds = {name: self._kind(name, name in sources) for name in self.order}
        self.top = max(self.layers.values())
        self.at_top = [name for name in self.order if self.layers[name] == self.top]
        self.few_rows_at_top = all(self.kinds[name] != "tokens" and name not in reads_all for name in self.at_top)

    def _kind(self, name: str, is_source: bool) -> str:
        """The rows an objective's head works on. A sparse one that hands its z on needs every token."""
        objective = self.objectives[name]
        if objective.scope == "sentence":
            return "sentence"
        return "sparse" if objective.sparse and not is_source else "tokens"

    def run(
        self,
        encoder: Encoder,
        heads: nn.ModuleDict,
        poolings: nn.ModuleDict,
        transfers: nn.ModuleDict,
        mixes: nn.ModuleDict,
        sequences: Sequences,
        targets: Targets,
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Run encoder and heads; see `HierarchicalBertModel.forward`."""
        rows = {name: Rows(kind, self._positions(name, sequences, targets)) for name, kind in self.kinds.items()}
        first_B = sequences.first()
        top_rows = self._top_rows(rows, first_B) if self.few_rows_at_top else None
        trunk: dict[int, Tensor] = {}
        states = encoder(
            sequences,
            self.plain,
            top_rows_R=None if top_rows is None else torch.cat(list(top_rows.values())),
            trunk=trunk,
            mixed={layer for layers in self.mixes.values() for layer in layers},
        )
        at_top, mixed_at_top = (
            {} if top_rows is None else _split(found.get(self.top), top_rows) for found in (states, trunk)
        )
        solved: dict[str, _Solved] = {}
        logits: dict[str, Tensor] = {}
        for name in self.order:
            pooling = poolings[name] if name in poolings else None  # noqa: SIM401  a ModuleDict has no `get`
            if name in self.mixes:
                h = self._mixed(name, mixes[name], trunk, mixed_at_top, rows[name], pooling, sequences)
            elif name in at_top:
                h = at_top[name]
            else:
                h = _select(states[self.layers[name]], rows[name], pooling, sequences)
            for edge in self.hierarchy.into(name):
                operator = transfers[f"{edge.source}>{edge.target}:{edge.operator}"]
                h = self._transfer(operator, edge, h, solved[edge.source], rows[name], sequences)
            head = cast(Head, heads[name])
            z = head.transform(h)
            classified = head.classify(
                self._classified_rows(name, z, rows[name]), encoder.embeddings.token.weight, first_B
            )
            logits.update(classified | head.read_out(h))
            solved[name] = _Solved(z, classified[self.objectives[name].target_names[0]])
        return logits, {"taps": {name: trunk[self.layers[name]] for name in self.order}}

    def _positions(self, name: str, sequences: Sequences, targets: Targets) -> Tensor | None:
        """Positions of a sparse objective's targets, none where the batch has no such target."""
        objective = self.objectives[name]
        if not (objective.sparse and objective.scope == "token"):
            return None
        target = targets.get(objective.target_names[0])
        return sequences.tokens.new_zeros(0) if target is None else target["positions"]

    def _top_rows(self, rows: Mapping[str, Rows], first_B: Tensor) -> dict[str, Tensor]:
        """Objective at the top -> positions its head reads."""
        positions = {name: rows[name].positions_M for name in self.at_top}
        return {name: first_B if own is None else own for name, own in positions.items()}

    def _mixed(
        self,
        name: str,
        mix: nn.Module,
        trunk: Mapping[int, Tensor],
        at_top: Mapping[str, Tensor],
        rows: Rows,
        pooling: nn.Module | None,
        sequences: Sequences,
    ) -> Tensor:
        """The rows that a head reads of a mix; only these are mixed, unless its pooling reads all."""
        layers = self.mixes[name]
        if pooling is not None:
            return _select(mix([trunk[layer] for layer in layers]), rows, pooling, sequences)
        parts = [
            at_top[name] if layer == self.top and name in at_top else _select(trunk[layer], rows, None, sequences)
            for layer in layers
        ]
        mixed: Tensor = mix(parts)
        return mixed

    def _transfer(
        self, operator: nn.Module, edge: Transfer, h: Tensor, source: _Solved, rows: Rows, sequences: Sequences
    ) -> Tensor:
        # of labels the probabilities: their mean over tokens is one too, that of logits would not be
        z = torch.softmax(source.logits.float(), -1) if edge.operator == "label" else source.z
        if edge.stop_gradient:
            z = z.detach()
        z, expand = shape_source(z, self.objectives[edge.source].scope, rows, sequences, edge.permuted)
        result: Tensor = operator(h, z, expand)
        return result

    def _classified_rows(self, name: str, z: Tensor, rows: Rows) -> Tensor:
        """A sparse objective transforms every token if it is a source, but classifies at its targets only."""
        if self.objectives[name].sparse and rows.kind == "tokens":
            return rows.of(z)
        return z


def _split(state: Tensor | None, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Objective -> its part of the rows that the highest layer has finished."""
    return {} if state is None else dict(zip(rows, state.split([len(r) for r in rows.values()]), strict=True))


def _select(state: Tensor, rows: Rows, pooling: nn.Module | None, sequences: Sequences) -> Tensor:
    """The rows that a head reads."""
    if rows.kind == "sentence":
        return rows_at(state, sequences.first()) if pooling is None else pooling(state, sequences)
    return rows.of(state) if rows.kind == "sparse" else state


logger = logging.getLogger(__name__)
HUB = "hmtl_plugin.fairseq_hub:from_pretrained"
"""What opens checkpoints, by its name: it is made of models and all that stands on them."""


@dataclass
class _HierarchyOptions(FairseqDataclass):
    hierarchy: str = field(
        default="nsp@-1,mlm@-1",
        metadata={
            "help": "objectives and the layers they are solved at: objective@layer[*weight],...; "
            "a layer is 1..L, -1..-L from the top or P%"
        },
    )
    transfer: str = field(
        default="",
        metadata={
            "help": "source>target:operator[!][~],... with operator concat, add, gate or label; "
            "! stops the gradient into the source, ~ hands on what another sample's source found (a control)"
        },
    )


_EncoderOptions: Any = make_dataclass(
    "_EncoderOptions", fairseq_fields(), bases=(_HierarchyOptions,), namespace={"__module__": __name__}
)


@dataclass
class HierarchicalBertConfig(_EncoderOptions):
    """Options of ``hmtl_bert``, those of its encoder (`EncoderConfig`) among them; the defaults are BERT base."""

    resize_positions: bool = field(
        default=False,
        metadata={"help": "accept a checkpoint with another number of positions and resize its table"},
    )
    untied_output: bool = field(
        default=False,
        metadata={"help": "the masked-LM head has an output matrix of its own, not the input embedding (BERT)"},
    )
    sentence_pooling: str = field(
        default="first",
        metadata={
            "help": "what objectives of pairs, as nsp, read: first: the state of <s> (BERT); mean: of all words; "
            "pair: the means of both segments, compared; aligned: each word compared with what it attends to in the "
            "other segment",
            "choices": SENTENCE_POOLINGS,
        },
    )
    bigram_head: ChoiceEnum(list(bigram_shift.HEADS)) = field(  # type: ignore[valid-type]
        default="hidden",
        metadata={
            "help": "what stands before bigram_shift's scores of words: hidden: a layer, as before those of mlm; linear: "
            "nothing, so that linear probes of the states, and of their means, find what it learns; both: a layer, and a "
            "linear head is trained beside it"
        },
    )
    compile: bool = field(
        default=False,
        metadata={
            "help": "compile layers, heads and losses with torch.compile: the first batches take minutes, the others less"
        },
    )
    # fairseq's hub passes this override, and overrides reach existing fields only
    load_checkpoint_heads: bool = field(default=False, metadata={"help": "used by fairseq's hub interface"})


@register_model("hmtl_bert", dataclass=HierarchicalBertConfig)
class HierarchicalBertModel(BaseFairseqModel):
    """Encoder, one head per placed objective, transfer operators, and the learned weights of the objectives.

    Attributes:
        hierarchy: None when the task has no objectives (fine-tuning); then there are no heads.
        task_weights: (K,) log-variances of the objectives in the order placed; fp32 in half-precision models too.
        task_head, task_head_name, task_layer: what `attach_head` was given; None, "", L without.
        fresh_layers: layers, from 1, that do not take the weights of a checkpoint with another head.
    """

    task_weights: nn.Parameter

    def __init__(
        self,
        config: EncoderConfig,
        hierarchy: Optional[Hierarchy] = None,
        objectives: Optional[Mapping[str, Objective]] = None,
        seed: int = 1,
        resize_positions: bool = False,
        untied_output: bool = False,
        sentence_pooling: str = "first",
        mask: int = PAD,
        bigram_head: str = "hidden",
    ) -> None:
        """Weights depend on ``seed`` alone; ``objectives`` holds at least those that ``hierarchy`` places.

        ``sentence_pooling``: what objectives that ask about pairs read; ``mask``: id of ``<mask>``, which it leaves
        out; ``bigram_head``: of `bigram_shift.HEADS`.

        Raises:
            HierarchyError: if the hierarchy cannot be on this encoder.
        """
        super().__init__()
        self.config, self.hierarchy, self.resize_positions = config, hierarchy, resize_positions
        self.untied_output, self.sentence_pooling, self.bigram_head = untied_output, sentence_pooling, bigram_head
        self.encoder = Encoder(config, seed)
        self.heads, self.poolings, self.transfers = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.mixes = nn.ModuleDict()
        self.plan: Optional[HierarchyPlan] = None
        self.task_head: Optional[nn.Module] = None
        self.task_head_name, self.task_layer = "", config.layers
        self.fresh_layers: tuple[int, ...] = ()
        if hierarchy is not None:
            hierarchy.validate(config.layers, known_objectives(), OPERATORS)
            self._build_heads(hierarchy, objectives or {}, seed, mask)
        self.register_buffer(state.RECORD_KEY, state.encode_record(config, self.objective_names))
        self._freeze_unused()

    @classmethod
    def build_model(cls, cfg: Any, task: Any) -> "HierarchicalBertModel":
        """fairseq's constructor. Without ``task.objectives`` (other tasks) there are no heads."""
        resolve_sizes(cfg)
        objectives = getattr(task, "objectives", None)
        try:
            hierarchy = Hierarchy.parse(cfg.hierarchy, cfg.transfer) if objectives else None
            config = EncoderConfig.of(cfg, len(task.source_dictionary))
            if cfg.resize_positions and not config.has_position_table:
                raise UserError(f"--resize-positions: {config.positions} positions have no table: leave it out")
            return cls(
                config,
                hierarchy,
                objectives,
                torch.initial_seed(),
                cfg.resize_positions,
                # not in checkpoints of versions before these options
                getattr(cfg, "untied_output", False),
                str(getattr(cfg, "sentence_pooling", "first")),
                task.source_dictionary.index(MASK) if hierarchy else PAD,
                str(getattr(cfg, "bigram_head", "hidden")),
            )
        except HierarchyError as error:
            raise UserError(str(error)) from None

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """The hub interface over a checkpoint, where fairseq's users look for it; see `fairseq_hub.from_pretrained`."""
        return resolve_name(HUB)(*args, **kwargs)

    @property
    def objective_names(self) -> tuple[str, ...]:
        """Names of the placed objectives, in the order of ``task_weights``."""
        return self.hierarchy.objectives if self.hierarchy else ()

    def _build_heads(self, hierarchy: Hierarchy, objectives: Mapping[str, Objective], seed: int, mask: int) -> None:
        config = self.config
        head_config = HeadConfig(
            hidden=config.hidden,
            vocabulary=config.vocabulary,
            activation=ACTIVATIONS[config.activation_fn],
            layer_norm_eps=config.layer_norm_eps,
            dropout=config.dropout,
            untied_output=self.untied_output,
            bigram_head=self.bigram_head,
        )
        with torch.random.fork_rng(devices=[]):  # torch's own initialisation draws from the global generator
            for name in hierarchy.objectives:
                self.heads[name] = objectives[name].build_head(head_config)
                initialise(self.heads[name], generator_for(seed, f"heads.{name}"), config.init_std)
        check_part(SENTENCE_POOLINGS, "--sentence-pooling", self.sentence_pooling)
        pooling = SENTENCE_POOLINGS[self.sentence_pooling]
        for name in hierarchy.objectives:
            if objectives[name].pairing and pooling.reads_all:
                self.poolings[name] = pooling(config.hidden, mask)
                initialise(self.poolings[name], generator_for(seed, f"poolings.{name}"), config.init_std)
        for edge in hierarchy.transfers:
            name = f"{edge.source}>{edge.target}:{edge.operator}"
            labels = objectives[edge.source].num_labels
            self.transfers[name] = OPERATORS[edge.operator](
                config.hidden, labels, generator_for(seed, f"transfers.{name}"), config.init_std
            )
        for name, layers in hierarchy.mixes(config.layers).items():
            self.mixes[name] = Mix(layers)
        self.task_weights = nn.Parameter(torch.zeros(len(hierarchy.objectives)))
        self.plan = HierarchyPlan(hierarchy, config.layers, objectives, tuple(self.poolings))

    def attach_head(self, head: nn.Module, name: str, layer: int, seed: int) -> None:
        """Add the head of a fine-tuning task, a function of (hidden_BTH, tokens_BT), on the states of ``layer``.

        Its weights are drawn from ``seed``, like those of all other parts. Checkpoints remember ``name``: a head that
        was trained on another task is not taken for this one's.
        """
        initialise(head, generator_for(seed, "task_head"), self.config.init_std)
        self.task_head, self.task_head_name, self.task_layer = head, name, layer
        self.register_buffer(state.RECORD_KEY, state.encode_record(self.config, self.objective_names, name))
        self._freeze_unused()

    def _freeze_unused(self) -> None:
        """Layers above the highest tap get no gradient, which distributed training takes for an error."""
        taps = set(self.plan.layers.values()) if self.plan else {self.task_layer}
        normed = self.plan.plain if self.plan else taps
        for number, layer in enumerate(self.encoder.layers, start=1):
            layer.requires_grad_(number <= max(taps))
        for number, norm in enumerate(self.encoder.output_norms, start=1):
            norm.requires_grad_(number in normed)
        if max(taps) < self.config.layers:
            logger.info(
                f"no head stands above layer {max(taps)}: "
                f"layers {max(taps) + 1} to {self.config.layers} are not trained"
            )

    def forward(
        self,
        src_tokens: Tensor,
        targets: Optional[Targets] = None,
        padded: Optional[bool] = None,
        features_only: bool = False,
        return_all_hiddens: bool = False,
        layer: Optional[int] = None,
        task_head: bool = False,
        starts: Optional[Tensor] = None,
        longest: int = 0,
        **unused: Any,
    ) -> tuple[Any, dict[str, Any]]:
        """Logits of all objectives, or features.

        Args:
            src_tokens: (B, T) ids, padded with 1 on the right; with ``starts`` (N,) ids, packed.
            targets: target name -> {"positions": (M,), "labels": (M,)}; None for features. An objective that
                is missing here runs all the same (on no rows, if it is sparse).
            padded: whether there is padding in the batch, if known; False is faster.
            features_only: features even if targets are given.
            return_all_hiddens: also give the states of all layers, (B, T, H) each, embeddings first.
            task_head: instead, the logits of the head that `attach_head` added, and {}; not of packed sequences.
            starts, longest: of packed sequences, see `Packing`.
            layer: whose features, 0 (embeddings) to L; None is the top. No layer above it is run.

        Returns:
            With targets (target name -> logits, {"taps": objective -> output of its layer}): mlm logits
            (M, V) at its positions. A tap is (B, T, H), packed (N, H), or only the rows that heads need, (R, H), at the
            highest layer; before the output norm, where there is one, so that losses of layers above depend on it.
            Without: features (B, T, H), {"hidden_states": list or None}.

        Raises:
            UserError: if T exceeds ``max_positions``.
        """
        sequences = Sequences(src_tokens, padded) if starts is None else Sequences.packed(src_tokens, starts, longest)
        if targets is not None and not features_only:
            if self.plan is None:
                raise ValueError("this model was built without objectives; call it without targets")
            parts = self.heads, self.poolings, self.transfers, self.mixes
            return self.plan.run(self.encoder, *parts, sequences, targets)
        if task_head:
            if self.task_head is None:
                raise ValueError("this model has no head of a fine-tuning task; call attach_head first")
            states = self.encoder(sequences, (self.task_layer,))
            return self.task_head(states[self.task_layer], src_tokens), {}
        wanted = self.config.layers if layer is None else layer
        layers = range(wanted + 1) if return_all_hiddens else (wanted,)
        states = self.encoder(sequences, layers)
        return states[wanted], {"hidden_states": [states[number] for number in layers] if return_all_hiddens else None}

    def max_positions(self) -> Optional[int]:
        """The longest sequence, in tokens; None if there is no limit."""
        return self.config.max_positions if self.config.has_position_table else None

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> None:
        """Called by fairseq before loading: refuses other architectures, fits positions and heads."""
        prefix = f"{name}." if name else ""
        relative = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        state.upgrade(
            relative,
            self.state_dict(),
            self.config,
            self.objective_names,
            self.resize_positions,
            self.task_head_name,
            self.fresh_layers,
        )
        for key in [key for key in state_dict if key.startswith(prefix)]:
            del state_dict[key]
        state_dict.update({prefix + key: value for key, value in relative.items()})

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "HierarchicalBertModel":
        """`nn.Module`'s; log-variances and weights of mixes keep fp32 under ``half()``: their steps are too small for
        11 bits.
        """
        kept = {
            name: weights.detach().clone()
            for name, weights in self.named_parameters()
            if name == state.WEIGHTS_KEY or name.startswith("mixes.")
        }
        super()._apply(fn, recurse)
        for name, before in kept.items():
            weights = self.get_parameter(name)
            if weights.dtype != torch.float32 and not weights.is_meta:
                weights.data = before.float().to(weights.device)
        return self


def resolve_sizes(cfg: Any) -> None:
    """Write derived sizes into a configuration, so that checkpoints hold what was built.

    Raises:
        UserError: for sizes that cannot be.
    """
    hidden = cfg.encoder_embed_dim
    cfg.encoder_ffn_embed_dim = cfg.encoder_ffn_embed_dim or 4 * hidden
    cfg.encoder_attention_heads = cfg.encoder_attention_heads or max(1, hidden // 64)
    if cfg.encoder_layers < 1:
        raise UserError(f"--encoder-layers {cfg.encoder_layers}: give 1 or more")
    if not 0 < cfg.init_std < 1:
        raise UserError(f"--init-std {cfg.init_std}: use a number above 0 and below 1")


# Sizes of Google's BERT miniatures (Turc et al. 2019): layers, hidden width.
ARCHITECTURES = {
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
}


def _register(name: str, layers: int, hidden: int) -> None:
    @register_model_architecture("hmtl_bert", f"hmtl_bert_{name}")
    def architecture(args: Any) -> None:
        args.encoder_layers = getattr(args, "encoder_layers", layers)
        args.encoder_embed_dim = getattr(args, "encoder_embed_dim", hidden)


for _name, (_layers, _hidden) in ARCHITECTURES.items():
    _register(_name, _layers, _hidden)
