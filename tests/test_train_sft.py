"""Training: rows and their loss, the optimizers, and runs that stop and go on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ramet.models import load
from ramet.models.states import PAGE_TOKENS, Span
from ramet.train.data import DataError, Tables, read_conversations, read_encoder
from ramet.train.optim import Muon, make_optimizers, orthogonalise
from ramet.train.packing import Document, assign, lay
from ramet.train.sft import SftConfig, TrainError, run

CONVERSATION = {
    "messages": [
        {"role": "user", "content": "how many"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function",
         "function": {"name": "sql", "arguments": '{"query": "SELECT 1"}'}}]},
        {"role": "tool", "tool_call_id": "1", "content": "1"},
        {"role": "assistant", "content": "wrong", "loss": False},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "one"},
    ]
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[SftConfig, list[dict[str, float]]]:
    """A tiny run of 4 steps on generated tables, uninterrupted."""
    config = SftConfig(
        out=tmp_path_factory.mktemp("whole"), task="tables", preset="tiny", steps=4, rows=2, length=128, warmup=2,
        log_every=1, checkpoint_every=2,
    )  # fmt: skip
    run(config)
    return config, read_log(config)


def read_log(config: SftConfig) -> list[dict[str, float]]:
    lines = (config.out / "training" / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "tokens_per_second"} for line in lines]


def test_documents_share_rows_without_overlap() -> None:
    sizes = [5, 9, 3, 7, 4, 20]
    rows = assign(sizes, 12)
    assert sorted(i for row in rows for i in row) == list(range(6))
    assert all(sum(min(sizes[i], 12) for i in row) <= 12 for row in rows)


def test_targets_are_the_tokens_after_the_chosen_places() -> None:
    one = Document(np.array([10, 11, 12, 13], dtype=np.int32), np.array([False, False, True, True]))
    two = Document(np.array([20, 21, 22], dtype=np.int32), np.array([False, True, False]))
    batch = lay([[one, two]], 9)
    assert batch.tokens.tolist() == [[10, 11, 12, 13, 20, 21, 22, 0, 0]]
    assert batch.segments.tolist() == [[0, 0, 0, 0, 1, 1, 1, -1, -1]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 0]]
    assert batch.targets.tolist() == [12, 13, 21]
    assert batch.at.nonzero()[:, 1].tolist() == [1, 2, 4]


def test_only_wanted_assistant_turns_are_learnt(
    trained: tuple[SftConfig, list[dict[str, float]]], tmp_path: Path
) -> None:
    file = tmp_path / "talk.jsonl"
    file.write_text(json.dumps(CONVERSATION) + "\n")
    encoder = read_encoder(trained[0].out)
    document = encoder.encode(read_conversations(file)[0])
    learnt = encoder.tokenizer.decode(document.tokens[document.learn].tolist(), skip_special_tokens=False)
    call = "<tool_call>\n<function=sql>\n<parameter=query>\nSELECT 1\n</parameter>\n</function>\n</tool_call>"
    assert learnt == f"{call}<|im_end|>one<|im_end|>"


def test_a_batch_is_a_function_of_its_step(trained: tuple[SftConfig, list[dict[str, float]]]) -> None:
    source, again = (Tables(trained[0].out, seed=1, rows=2, length=128) for _ in range(2))
    source.batch(0)
    assert torch.equal(source.batch(7).tokens, again.batch(7).tokens)
    assert not torch.equal(source.batch(7).tokens, source.batch(8).tokens)


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(3, 16, 40)))
    assert values.min() > 0.5 and values.max() < 1.5


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_optimizers_fit_a_map(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
    x, y = torch.randn(64, 16), torch.randn(64, 16)
    optimizers = make_optimizers(model, kind, 0.02 if kind == "muon" else 0.01, 0.0)
    assert isinstance(optimizers[0], Muon) == (kind == "muon")
    assert sum(len(g["params"]) for o in optimizers for g in o.param_groups) == 4, "each weight has one optimizer"
    losses = []
    for _ in range(100):
        loss = (model(x) - y).square().mean()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_run_that_stopped_goes_on_as_if_it_had_not(
    trained: tuple[SftConfig, list[dict[str, float]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after a step that no checkpoint was due at, and again with a log line too many from a killed run."""
    from ramet.train import sft

    whole, log = trained
    config = replace(whole, out=tmp_path / "cut")
    step = sft.train_step
    done = 0

    def interrupting(*arguments: object, **options: object) -> tuple[float, float]:
        nonlocal done
        result = step(*arguments, **options)  # type: ignore[arg-type]
        done += 1
        if done == 3:
            import signal

            signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(sft, "train_step", interrupting)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert done == 3
    monkeypatch.undo()
    with (config.out / "training" / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": 0, "right": 0, "tokens_per_second": 0}\n')
    run(config)
    assert read_log(config) == log
    assert (config.out / "model.safetensors").read_bytes() == (whole.out / "model.safetensors").read_bytes()


def test_other_settings_do_not_resume(trained: tuple[SftConfig, list[dict[str, float]]]) -> None:
    with pytest.raises(TrainError, match=r"other settings.*seed 0 -> 1"):
        run(replace(trained[0], seed=1))


def test_the_checkpoint_serves(trained: tuple[SftConfig, list[dict[str, float]]]) -> None:
    config, log = trained
    assert log[-1]["loss"] < log[0]["loss"]
    model, encoder = load(config.out), read_encoder(config.out)
    tokens = torch.tensor(encoder.tokenizer.encode("<|im_start|>user\nhow many c1<|im_end|>\n").ids)
    pages = [model.layout.new_page() for _ in range(-(-len(tokens) // PAGE_TOKENS))]
    logits = model.forward([Span(tokens, 0, pages, model.layout.new_state())])
    assert logits.shape == (1, model.vocab_size) and bool(torch.isfinite(logits).all())


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 1: not JSON"),
        ('{"messages": "hi"}', "line 1: expected"),
        ('{"messages": [{"role": "user", "content": "hi"}]}', "line 1: no assistant message"),
        ("", "no conversations"),
    ],
)
def test_data_that_is_none_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(DataError, match=complaint):
        read_conversations(file)
