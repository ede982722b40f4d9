"""What every model family shares: a family's file adds its layers, and where its published tensors are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from ramet.models.errors import ContextLengthError
from ramet.models.layers import Embedding, Layer, Linear, RMSNorm
from ramet.models.pictures import Tower
from ramet.models.published import Published
from ramet.models.run import Run, ServingRun, TrainingRun, last_rows
from ramet.models.states import Recurrent, Rows, Span, StateLayout, Window


class Config(Protocol):
    """A family's sizes, a frozen dataclass under the names of `config.json`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def max_position_embeddings(self) -> int: ...
    @property
    def rms_norm_eps(self) -> float: ...
    @property
    def initializer_range(self) -> float: ...
    @property
    def tie_word_embeddings(self) -> bool: ...

    @classmethod
    def from_json(cls, config: Mapping[str, Any], source: str, refused: list[str] | None = None) -> Self:
        """Read a parsed `config.json`; `source` names it in errors. Raises CheckpointError.

        `refused`, if it is a list, takes what the config says that is not computed here, in place of an error: the
        sizes are known all the same.
        """
        ...

    def to_json(self, dtype: str, *, nested: bool) -> dict[str, Any]:
        """A `config.json` in the published form, or (not nested) that of a text model alone."""
        ...


class Ahead(Layer):
    """The part of a model that guesses one token further (multi-token prediction, MTP), from a token's embedding and
    what the model made of the token before it (`Decoder.seen_ahead`, `[..., width]`). Its call `(embedded, before,
    run)` gives what a further guess begins from, `[..., width]`; it writes rows as any layer does. Before a session's
    first token there are zeros.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.last = Recurrent("ahead.last", (width,))
        """What `Decoder.seen_ahead` gave at the session's last token."""

    def normed(self, x: Tensor, run: Run) -> Tensor:
        """What the model's output layer is to see: `[..., width] -> [..., hidden]`."""
        raise NotImplementedError


class Decoder(nn.Module):
    """Embedding, the family's layers, a norm, the output layer. Fresh ones have uninitialised weights.

    The layers are written once: `train_forward` runs them differentiably over packed rows; `forward`, after `pack()`,
    over the spans of a step on the compiled ops. A packed model cannot be trained. Modules and parameters carry the
    published names. A layer declares a state by holding a `Rows`, `Recurrent` or `Window`.
    """

    config_type: ClassVar[type[Config]]
    published: ClassVar[Published]
    visual: Tower | None
    """The vision tower, where the checkpoint has one; its parameters are below `visual.`."""

    def __init__(self, config: Config, layers: Iterable[Layer], *, zero_centred_norm: bool = False) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = config.vocab_size
        self.context_length = config.max_position_embeddings
        self.fingerprint = ""
        self.mapped = False
        self.visual = None
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, tied=config.tie_word_embeddings)
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, zero_centred=zero_centred_norm)
        self.lm_head = None if config.tie_word_embeddings else Linear(config.hidden_size, config.vocab_size)
        self.ahead: Ahead | None = None
        self.layout = self._lay_out()

    @property
    def predicts_ahead(self) -> bool:
        """Whether there is a part that guesses one token further."""
        return self.ahead is not None

    def look_ahead(self) -> None:
        """Add the part that guesses one token further, with uninitialised weights. Raises NotImplementedError."""
        self.ahead = self.make_ahead()
        self.layout = self._lay_out()

    def make_ahead(self) -> Ahead:
        """The family's part that guesses one token further."""
        raise NotImplementedError

    def _lay_out(self) -> StateLayout:
        states = [value for module in self.modules() for value in vars(module).values()]
        return StateLayout(
            rows=tuple(state for state in states if isinstance(state, Rows)),
            fixed=tuple(state for state in states if isinstance(state, Recurrent | Window)),
        )

    def hidden(self, run: Run) -> Tensor:
        """The run's tokens through all layers, before the last norm: `[..., hidden]`."""
        x = run.seen(self.embed_tokens(run.tokens))
        for layer in self.layers:
            x = layer(x, run)
        return x

    def seen_ahead(self, x: Tensor, run: Run) -> Tensor:
        """Of `hidden`'s rows, what guessing ahead begins from: what the output layer sees."""
        return self.norm(x, run)

    def logits(self, x: Tensor, run: Run) -> Tensor:
        """The last norm and the output layer: `[..., hidden] -> [..., vocab]`."""
        return self._output(self.norm(x, run))

    def _output(self, x: Tensor) -> Tensor:
        return self.embed_tokens.logits(x) if self.lm_head is None else self.lm_head(x)

    def train_forward(
        self, tokens: Tensor, segments: Tensor | None, positions: Tensor, *, at: Tensor | None = None
    ) -> Tensor:
        """Logits `[B, L, vocab]` with gradients, on whatever device the parameters are.

        `tokens`, `segments` and `positions` are int64 `[B, L]`; `segments` tells the documents packed into a row apart
        (None: one per row), `positions` count within each. `at`, bool `[B, L]`, chooses the places whose logits are
        wanted: `[at.sum(), vocab]`.
        """
        run = TrainingRun(tokens, segments, positions)
        x = self.hidden(run)
        return self.logits(x if at is None else x[at], run)

    @torch.no_grad()
    def forward(self, spans: Sequence[Span]) -> Tensor:
        """Run the spans one step on: see `models.base.Model.forward`. The model must be packed.

        Raises ContextLengthError, before anything is written, if a span goes past `context_length`.
        """
        for span in spans:
            self._check(span)
        run = ServingRun(spans, self.layout)
        x = self.hidden(run)
        if self.ahead is not None:
            hidden = self.seen_ahead(x, run)
            run.chosen = None
            self.ahead(run.seen(self.embed_tokens(run.tokens)), run.before(hidden, self.ahead.last.name), run)
            end = 0
            for span in spans:
                start, end = end, end + len(span.tokens)
                span.hidden = hidden[start:end]
        return self.logits(x[last_rows(spans)], run)

    @torch.no_grad()
    def draft(self, spans: Sequence[Span], guesses: int, before: Sequence[Tensor | None]) -> None:
        """Guess the last tokens of spans: see `models.base.Model.draft`. The model must be packed.

        One known token is met with what the model made of the one before it; each further guess with what the part
        itself gave for the last. Of equal scores the lowest id is taken. States are left as they were.
        """
        assert self.ahead is not None
        known = [len(span.tokens) - guesses for span in spans]
        offset, width = self.layout.fixed_offsets[self.ahead.last.name], self.ahead.last.shape[0]
        last = [span.state[offset : offset + width][None] for span in spans]
        own = [self._own_states(span) for span in spans]
        saved = [[state.clone() for state in states] for states in own]
        x = torch.cat([rows for pair in zip(last, before, strict=True) for rows in pair if rows is not None])
        parts = [
            Span(span.tokens[:n], span.position, span.pages, span.state, positions=_some(span.positions, 0, n))
            for span, n in zip(spans, known, strict=True)
        ]
        for guess in range(guesses):
            run = ServingRun(parts, self.layout)
            x = self.ahead(self.embed_tokens(run.tokens), x, run)[last_rows(parts)]
            top = self._output(self.ahead.normed(x, run)).argmax(-1)
            for i, span in enumerate(spans):
                at = known[i] + guess
                span.tokens[at] = top[i]
                positions = _some(span.positions, at, 1)
                parts[i] = Span(
                    span.tokens[at : at + 1], span.position + at, span.pages, span.state, positions=positions
                )
        for states, before_it in zip(own, saved, strict=True):
            for state, value in zip(states, before_it, strict=True):
                state.copy_(value)

    def _own_states(self, span: Span) -> list[Tensor]:
        """Those states of a session that only guessing changes: recurrent states and windows of the part's layers."""
        assert self.ahead is not None
        states = [value for module in self.ahead.modules() for value in vars(module).values()]
        found = []
        for state in states:
            if isinstance(state, Recurrent | Window) and state is not self.ahead.last:
                offset = self.layout.fixed_offsets[state.name]
                found.append(span.state[offset : offset + math.prod(state.shape)])
        return found

    def _check(self, span: Span) -> None:
        count = span.tokens.numel()
        end = span.position + count
        if count == 0 or span.position < 0 or not 0 <= span.logits <= count:
            raise ValueError(f"a span of {count} tokens at position {span.position} with {span.logits} logits")
        if end > self.context_length:
            raise ContextLengthError(
                f"the session would be {end} tokens long, but this model goes no further than {self.context_length}; "
                "start a new session or shorten the prompt"
            )
        low, high = int(span.tokens.min()), int(span.tokens.max())
        if low < 0 or high >= self.vocab_size:
            raise ValueError(f"token {low if low < 0 else high} is not in the vocabulary of {self.vocab_size}")

    def pack(self) -> Self:
        """Bring every weight into the compiled ops' form, for serving, module by module, freeing the parameters.

        Rows take the precision of the embedding, which is the checkpoint's.
        """
        assert self.embed_tokens.weight is not None
        self.layout = replace(self.layout, row_dtype=self.embed_tokens.weight.dtype)
        for module in self.modules():  # parents first: some pack two of their children as one
            if isinstance(module, Layer):
                module.pack()
        return self

    @torch.no_grad()
    def initialise(self, seed: int) -> Self:
        """Weights to train from."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, Layer):
                module.initialise(generator, self.config.initializer_range)
        return self


def _some(positions: Tensor | None, start: int, count: int) -> Tensor | None:
    return None if positions is None else positions[start : start + count]
