"""Multi-token prediction: its rows and guesses are those of its equations, and it changes nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ramet import models
from ramet.models import CheckpointError, loading
from ramet.models.base import Model
from ramet.models.decoder import Decoder
from ramet.models.random import write_random_checkpoint
from ramet.models.run import TrainingRun
from ramet.models.states import PAGE_TOKENS, Span
from tests.models_support import ties_to_the_lowest_index

PRESETS = ("tiny", "tiny-moe", "tiny-deepseek-v3", "tiny-kimi", "tiny-deepseek-v32", "tiny-glm", "tiny-deepseek-v4")
LENGTH = 90  # beyond a page, and beyond the sparse presets' top-k


class Session:
    """One session of a model, run span by span."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.position = 0
        self.pages = [model.layout.new_page() for _ in range(LENGTH // PAGE_TOKENS + 2)]
        self.state = model.layout.new_state()

    def run(self, tokens: Tensor, logits: int = 1) -> tuple[Tensor, Span]:
        span = Span(tokens, self.position, self.pages, self.state, logits)
        self.position += len(tokens)
        return self.model.forward([span]), span


@pytest.fixture(params=PRESETS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_random_checkpoint(tmp_path, seed=3, preset=request.param, ahead=True)


def reference(folder: Path, tokens: Tensor, guesses: int) -> list[int]:
    """The equations over the whole session at once, by the differentiable ops: guesses behind its last token."""
    if (folder / "config.json").read_text().count('"deepseek_v4"'):
        return v4_reference(folder, tokens, guesses)
    model, sources = loading._match(folder, ahead=True)
    for name in sources.floats():
        tensor = sources.tensor(name)
        loading._set(model, name, tensor, trainable=False)
    assert isinstance(model, Decoder) and model.ahead is not None
    run = TrainingRun(tokens[None, :-1], None, torch.arange(len(tokens) - 1)[None])
    seen = model.norm(model.hidden(run), run)
    before = torch.cat([torch.zeros_like(seen[:, :1]), seen], 1)
    found: list[int] = []
    for _ in range(guesses):
        known = torch.cat([tokens, torch.tensor(found, dtype=torch.int64)])[None]
        run = TrainingRun(known, None, torch.arange(known.shape[1])[None])
        x = model.ahead(model.embed_tokens(known), before, run)
        found.append(int(model._output(model.ahead.normed(x, run))[0, -1].argmax()))
        before = torch.cat([before, x[:, -1:]], 1)
    return found


@torch.no_grad()
def v4_reference(folder: Path, tokens: Tensor, guesses: int) -> list[int]:
    """By transformers' layers: of a model whose last layer, last collapse and norm are those of the part."""
    transformers = pytest.importorskip("transformers")
    told = {"dtype": torch.float32, "experts_implementation": "eager"}
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, **told).eval()
    tensors = load_file(folder / "model.safetensors")
    part = {name.removeprefix("mtp.0."): tensor for name, tensor in tensors.items() if name.startswith("mtp.0.")}
    config = json.loads((folder / "config.json").read_text())
    layers, streams = config["num_hidden_layers"], config["hc_mult"]
    own = ("enorm.", "hnorm.", "e_proj.", "h_proj.")
    last = {name: tensor for name, tensor in part.items() if name.startswith(("hc_head_", "norm."))}
    block = {f"layers.{layers}.{name}": part[name] for name in part if name not in last and not name.startswith(own)}
    config["layer_types"].append("sliding_attention")
    config["mlp_layer_types"].append("moe")
    other = folder / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers + 1}))
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("mtp.")}
    save_file(kept | block | last, other / "model.safetensors")
    longer = transformers.AutoModelForCausalLM.from_pretrained(other, **told).eval()

    def normed(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + config["rms_norm_eps"]).sqrt() * weight

    seen: list[Tensor] = []
    plain.model.hc_head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with ties_to_the_lowest_index():
        plain(tokens[None, :-1])
    before = torch.cat([torch.zeros_like(seen[0][:, :1]), seen[0]], 1)
    known, found = tokens[None], []
    begin: list[Tensor] = []
    longer.model.layers[layers].register_forward_pre_hook(lambda _, given: (begin[0], *given[1:]))
    longer.model.layers[layers].register_forward_hook(lambda _, __, given: seen.append(given))
    for _ in range(guesses):
        token = normed(longer.model.embed_tokens(known), part["enorm.weight"]) @ part["e_proj.weight"].T
        begin[:] = [token[:, :, None] + normed(before, part["hnorm.weight"]) @ part["h_proj.weight"].T]
        assert begin[0].shape[2] == streams
        found.append(int(longer(known).logits[0, -1].argmax()))  # what its other layers do is thrown away
        known = torch.cat([known, torch.tensor([found[-1:]])], 1)
        before = torch.cat([before, seen[-1][:, -1:]], 1)
    return found


def test_guesses_are_those_of_the_equations_however_the_session_was_cut(folder: Path) -> None:
    model = models.load(folder, ahead=True)
    assert model.predicts_ahead
    tokens = torch.randint(0, 256, (LENGTH,), generator=torch.Generator().manual_seed(1))
    expected = reference(folder, tokens, 3)
    for cuts in ([LENGTH - 1], [1] * (LENGTH - 1), [40, 30, LENGTH - 71]):
        session, at = Session(model), 0
        for count in cuts:
            session.run(tokens[at : at + count])
            at += count
        span = Span(torch.cat([tokens[-1:], torch.zeros(3, dtype=torch.int64)]), at, session.pages, session.state)
        before = session.state.clone()
        model.draft([span], 3, [None])
        assert span.tokens.tolist() == [int(tokens[-1]), *expected]
        assert torch.equal(session.state, before)
    # several known tokens: what the output layer saw at them is handed over, not in the state
    session = Session(model)
    session.run(tokens[:-3])
    _, ran = Session.run(Session(model), tokens[:-1], logits=0)
    assert ran.hidden is not None
    known = torch.cat([tokens[-3:], torch.zeros(3, dtype=torch.int64)])
    span = Span(known, LENGTH - 3, session.pages, session.state)
    model.draft([span], 3, [ran.hidden[-2:]])
    assert span.tokens[3:].tolist() == expected


def test_logits_are_the_same_bits_with_and_without_it(folder: Path) -> None:
    tokens = torch.randint(0, 256, (LENGTH,), generator=torch.Generator().manual_seed(2))
    plain, ahead = models.load(folder), models.load(folder, ahead=True)
    assert not plain.predicts_ahead
    assert plain.fingerprint != ahead.fingerprint  # they keep other states
    without, _ = Session(plain).run(tokens, LENGTH)
    session = Session(ahead)
    first, _ = session.run(tokens[:50], 50)
    guess = Span(torch.tensor([5, 0, 0]), 50, session.pages, session.state)
    ahead.draft([guess], 2, [None])  # whatever it guessed from, what is run next counts
    second, _ = session.run(tokens[50:], LENGTH - 50)
    assert torch.equal(torch.cat([first, second]), without)


def test_files_without_it_and_torn_ones(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, seed=3)
    assert not models.load(tmp_path, ahead=True).predicts_ahead
    write_random_checkpoint(tmp_path, seed=3, ahead=True)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["mtp.fc.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    assert not models.load(tmp_path).predicts_ahead
    with pytest.raises(CheckpointError, match=r"tensor mtp\.fc\.weight is missing"):
        models.load(tmp_path, ahead=True)
