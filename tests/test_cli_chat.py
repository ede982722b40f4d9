"""The terminal chat, driven by scripts on stdin: forks, rewinds, restarts, and being interrupted."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from ramet.agent.remembering import Remembering, holding
from ramet.cli.chat import Terminal
from ramet.cli.conversation import Conversation
from ramet.cli.main import app
from ramet.engine import Sampling
from ramet.memory import Memory, Vector
from ramet.models.random import write_random_checkpoint
from ramet.tree import Node
from ramet.tree.stored import open_stored, stored_nodes
from tests.test_agent_ask import running

RAMET = Path(sys.executable).with_name("ramet")
COST = re.compile(r"([0-9a-f]{8}) · prompt ([\d,]+) tokens?, ([\d,]+) reused · reply ([\d,]+) tokens?")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("tiny"), seed=0)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAMET_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


@pytest.fixture
def memory() -> Iterator[Memory]:
    with Memory.open(None) as found:
        yield found


def chat(checkpoint: Path, *lines: str, options: tuple[str, ...] = ()) -> Result:
    """One run of the chat in which the user types `lines`."""
    words = ["chat", "--model", str(checkpoint), "--max-tokens", "12", "--temperature", "0", *options]
    return CliRunner().invoke(app, words, input="".join(f"{line}\n" for line in lines))


def replies(result: Result) -> list[tuple[str, int, int]]:
    """Of each reply in order: the node's id, the prompt's tokens, and how many of them were reused."""
    found = COST.findall(result.stderr)
    return [(node, int(prompt.replace(",", "")), int(reused.replace(",", ""))) for node, prompt, reused, _ in found]


def test_a_turn_reuses_the_turns_before_it(checkpoint: Path, home: Path) -> None:
    result = chat(checkpoint, "tell me about ferns " * 8, "and mosses?", "/quit")
    assert result.exit_code == 0, result.output
    (_, first, none), (_, second, reused) = replies(result)
    assert none == 0
    assert first - 16 < reused < second  # the generation prompt of the first turn is not part of the second


def test_going_back_makes_a_branch_and_goto_returns(checkpoint: Path, home: Path) -> None:
    result = chat(
        checkpoint, "first question", "second question", "/fork here", "/back", "another second", "/goto here", "/tree"
    )
    assert result.exit_code == 0, result.output
    _, (second, *_), (other, *_) = replies(result)
    tree = result.stdout[result.stdout.index("this chat") :]
    assert f"● {second}" in tree
    assert "kept as here" in tree
    assert "├── " in tree and other in tree
    assert tree.count("user") == 3


def test_back_to_the_start_and_too_far(checkpoint: Path, home: Path) -> None:
    result = chat(checkpoint, "one", "two", "/back 2", "/back", "/tree", "three", "/tree")
    assert "At the start." in result.stdout
    assert "only 0 turns to go back" in result.stderr
    assert "there is no tree yet" in result.stderr
    assert result.stdout[result.stdout.rindex("this chat") :].count("user") == 1


def test_retry_asks_again_beside_the_first_reply(checkpoint: Path, home: Path) -> None:
    result = chat(checkpoint, "hello there", "/retry", "/tree", options=("--temperature", "1.5"))
    (first, *_), (second, prompt, reused) = replies(result)
    assert first != second
    assert prompt - reused <= 2
    tree = result.stdout[result.stdout.index("this chat") :]
    assert tree.count("user") == 1
    assert f"● {second}" in tree and first in tree


def test_a_session_survives_a_restart(checkpoint: Path, home: Path) -> None:
    first = chat(checkpoint, "a long question about rivers " * 6, "/fork kept")
    assert first.exit_code == 0, first.output
    node, prompt, _ = replies(first)[0]
    plain = chat(checkpoint, "/quit")
    assert f"The last session ended at {node}" in plain.stderr
    later = chat(
        checkpoint, "and lakes?", "/goto kept", "/save " + str(home / "talk.json"), options=("--session", "last")
    )
    assert later.exit_code == 0, later.output
    assert replies(later)[0][2] >= prompt - 16
    talk = json.loads((home / "talk.json").read_text())
    assert [message["role"] for message in talk] == ["user", "assistant"]
    by_id = chat(checkpoint, "/tree", options=("--session", node))
    assert f"● {node}" in by_id.stdout


def test_the_system_message_is_said_once(checkpoint: Path, home: Path) -> None:
    chat(checkpoint, "hi", "there", f"/save {home / 'talk.json'}", options=("--system", "Be kind."))
    roles = [message["role"] for message in json.loads((home / "talk.json").read_text())]
    assert roles == ["system", "user", "assistant", "user", "assistant"]


def test_wrong_commands_are_explained_and_the_chat_goes_on(checkpoint: Path, home: Path) -> None:
    result = chat(
        checkpoint, "/dance", "/fork", "/goto", "/goto zz", "/back x", "/retry", "/save", "/save /no/such/folder/x",
        '/goto "', "/help", "still here", "/fork two words", f"/back {'9' * 5000}", "/quit",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for said in (
        "there is no command /dance", "nothing to fork yet", "say where", "no node begins with 'zz'",
        "takes a number of turns, not 'x'", "nothing to ask again", "say where to", "cannot write /no/such/folder/x",
        "No closing quotation", "a name is one word", "takes a number of turns, not '999",
    ):  # fmt: skip
        assert said in result.stderr
    assert "/goto PLACE" in result.stdout
    assert len(replies(result)) == 1


def test_no_last_session_and_a_damaged_file_of_places(checkpoint: Path, home: Path) -> None:
    result = chat(checkpoint, options=("--session", "last"))
    assert result.exit_code == 1
    assert "no last session" in result.stderr
    (home / "tree" / "chat.json").write_text("{torn")
    result = chat(checkpoint, "hello", "/quit")
    assert result.exit_code == 0
    assert "is damaged" in result.stderr
    assert json.loads((home / "tree" / "chat.json").read_text())


def test_two_chats_on_one_folder_are_told(checkpoint: Path, home: Path) -> None:
    words = [RAMET, "chat", "--model", checkpoint]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as first:
        assert first.stdin is not None and first.stderr is not None
        while "/quit leaves" not in (line := first.stderr.readline()):
            assert line, "the first chat ended early"
        second = chat(checkpoint, "hello")
        first.stdin.close()
        assert second.exit_code == 1
        assert "in use by another process" in " ".join(second.stderr.split())
    assert first.returncode == 0


def test_ctrl_c_stops_the_reply_and_not_the_chat(checkpoint: Path, home: Path) -> None:
    # The likeliest tokens of a random model go round in circles: the reply does not end by itself.
    words = [RAMET, "chat", "--model", checkpoint, "--max-tokens", "100000", "--temperature", "0"]
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's children ignore it
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(b"tell me everything\n")
        process.stdin.flush()
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        told = b""
        while b"Stopped" not in told:  # a signal that comes while lines are read takes them with it
            line = process.stderr.readline()
            assert line, told.decode()
            told += line
        process.stdin.write(b"/help\n/quit\n")
        process.stdin.flush()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (told + err).decode()
    assert "Stopped; this reply is not kept" in told.decode()
    assert "/goto PLACE" in out.decode()


def test_a_picture_is_shown_with_the_next_question(home: Path, tmp_path: Path) -> None:
    from tests.pictures import drawing, encoded, film

    sight = write_random_checkpoint(tmp_path / "sight", seed=0, preset="tiny-sight")
    (tmp_path / "a b.png").write_bytes(encoded(drawing(90, 60)))
    shots = film(3)
    (tmp_path / "c.gif").write_bytes(encoded(shots[0], "GIF", save_all=True, append_images=shots[1:]))
    (tmp_path / "d.png").write_bytes(b"not a picture")
    lines = [f'/show "{tmp_path}/a b.png"', "what is it?", "and now?", f"/show {tmp_path}/c.gif", "a film", "/tree"]
    result = chat(sight, *lines, f"/show {tmp_path}/d.png", f"/show {tmp_path}/e.png", "/retry", "/quit")
    assert result.exit_code == 0, result.output
    first, second, third, again = replies(result)
    assert first[1] > 30 and second[2] > 30 and third[1] > second[1] + 40
    assert again[1:] == (third[1], again[2]) and again[2] > third[2]
    assert "[image] what is it?" in result.output and "[video] a film" in result.output
    assert "d.png: it is no picture" in result.output and "cannot read" in result.output
    later = chat(sight, "and that?", "/quit", options=("--session", again[0]))
    assert replies(later)[0][2] > third[1] - 16  # but for the generation prompt


def test_a_text_model_is_shown_nothing(checkpoint: Path, home: Path) -> None:
    assert "reads text only" in chat(checkpoint, "/show a.png", "/quit").output


def test_what_is_said_goes_into_a_memory(checkpoint: Path, home: Path) -> None:
    store = home / "memory.db"
    options = ("--memory-store", str(store))
    before = datetime.now().astimezone() - timedelta(seconds=1)
    result = chat(checkpoint, "I moved to Oslo", "/retry", "/back", "my cat is Miso", "/quit", options=options)
    assert result.exit_code == 0, result.output
    again = chat(checkpoint, "I moved to Oslo", options=options)
    assert again.exit_code == 0, again.output
    with Memory.open(store) as memory:
        turns = [turn for turn, _ in memory.store.scan()]
    said = [turn.text for turn in turns if turn.speaker == "user"]
    assert said == ["my cat is Miso", "I moved to Oslo"]  # the first was taken back
    assert {turn.conversation for turn in turns} == {"chat"} and len({turn.session for turn in turns}) == 2
    exported = CliRunner().invoke(app, ["tree", "export"])
    messages = {node["id"]: node["message"] for node in map(json.loads, exported.stdout.splitlines())}
    assert all(messages[turn.node or ""]["content"] == turn.text for turn in turns)
    assert all(turn.time is not None and before <= turn.time <= datetime.now().astimezone() for turn in turns)
    wrong = home / "wrong.db"
    wrong.write_bytes(b"not a database, but long enough to look" * 20)
    refused = chat(checkpoint, "hello", options=("--memory-store", str(wrong)))
    assert refused.exit_code == 1 and "cannot be opened as a memory" in " ".join(refused.stderr.split())


def test_what_is_taken_back_is_forgotten(checkpoint: Path, home: Path, memory: Memory) -> None:
    from tests.test_agent_loop import thinking

    replies = ["Yes."]

    def said() -> list[str]:
        return [turn.text for turn, _ in memory.store.scan()]

    with running(checkpoint, thinking(lambda _: {replies[-1]: 1.0})) as runtime:
        conversation = Conversation(runtime, system=None, sampling=Sampling(temperature=0, max_tokens=50))
        terminal = Terminal(conversation, home / "chat.json", Remembering(memory))

        def say(text: str) -> None:
            terminal.show(conversation.say(text))

        say("one")
        replies.append("No.")
        terminal.retry([])
        assert said() == ["one", "No."], "the reply that was rejected is gone, the question stays"
        terminal.fork(["here"])
        replies.append("Perhaps.")
        terminal.retry([])
        assert said() == ["one", "No.", "Perhaps."], "what was kept stays"
        say("two")
        terminal.goto(["here"])
        assert len(said()) == 5, "to go elsewhere takes nothing back"
        say("three")
        terminal.back(["2"])
        assert said() == ["one", "No.", "Perhaps.", "two", "Perhaps."], "kept, or on another branch"
        terminal.remember()
        later = Terminal(conversation, home / "chat.json", Remembering(memory))
        later.goto(["here"])
        later.back(["1"])
        assert len(said()) == 5, "another sitting takes nothing back of this one"


def test_what_was_taken_back_is_remembered_again_as_it_was(checkpoint: Path, home: Path, memory: Memory) -> None:
    from tests.test_agent_loop import thinking

    with running(checkpoint, thinking(lambda _: {"Noted.": 1.0})) as runtime:
        conversation = Conversation(runtime, system=None, sampling=Sampling(temperature=0, max_tokens=50))
        terminal = Terminal(conversation, home / "chat.json", Remembering(memory))
        terminal.show(conversation.say("one"))
        terminal.show(conversation.say("two"))
        before, place = sorted(memory.export()), conversation.node
        assert place is not None and len(before) == 4
        terminal.back(["2"])
        assert list(memory.export()) == []
        terminal.goto([place.id])
        assert sorted(memory.export()) == before
        terminal.back([])
        terminal.show(conversation.say("two"))  # the same nodes, said anew
        terminal.back([])
        terminal.goto([place.id])
        assert len(list(memory.export())) == 4
        memory.forget([turn.id for turn, _ in memory.store.scan() if turn.node == place.id])
        terminal.back([])
        terminal.goto([place.id])
        assert len(list(memory.export())) == 3, "what was forgotten otherwise stays so"


def test_what_is_remembered_again_does_not_mix_with_what_was_said_since(
    checkpoint: Path, home: Path, memory: Memory
) -> None:
    from tests.test_agent_loop import thinking

    with running(checkpoint, thinking(lambda _: {"Noted.": 1.0})) as runtime:
        conversation = Conversation(runtime, system=None, sampling=Sampling(temperature=0, max_tokens=50))
        terminal = Terminal(conversation, home / "chat.json", Remembering(memory))
        terminal.show(conversation.say("one"))
        place = conversation.node
        assert place is not None
        terminal.back([])
        terminal.show(conversation.say("two"))
        terminal.goto([place.id])
        in_order = memory.store.session_turns("chat", terminal.remembering.session if terminal.remembering else "")
        assert [turn.text for turn in in_order] == ["two", "Noted.", "one", "Noted."]
        assert [turn.position for turn in in_order] == [0, 1, 2, 3]
        terminal.back([])
        assert memory.store.count() == 2


def test_what_the_model_remembers_again_is_there_once(memory: Memory) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "remember", "arguments": '{"text": "Oslo"}'}}]
    asked = Node("q", None, np.zeros(1, np.int32), 0, {"role": "user", "content": "keep that"})
    node = Node("a", asked, np.zeros(1, np.int32), 1, {"role": "assistant", "content": None, "tool_calls": calls})
    remembering = Remembering(memory)
    tools = remembering.toolbox(lambda: node)
    tools.run("remember", {"text": "Oslo"})
    remembering.take_back([asked, node], [])
    assert memory.store.count() == 0
    tools.run("remember", {"text": "Oslo"})
    remembering.bring_back([asked, node])
    assert memory.store.count() == 1
    remembering.take_back([asked, node], [])
    remembering.bring_back([asked, node])
    assert memory.store.count() == 1


def test_a_retry_that_is_stopped(checkpoint: Path, home: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place is before the question then: question and reply are off the path."""
    from tests.test_agent_loop import thinking

    with running(checkpoint, thinking(lambda _: {"Noted.": 1.0})) as runtime:
        conversation = Conversation(runtime, system=None, sampling=Sampling(temperature=0, max_tokens=50))
        terminal = Terminal(conversation, home / "chat.json", Remembering(memory))
        terminal.show(conversation.say("one"))
        terminal.show(conversation.say("two"))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Terminal, "show", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            terminal.retry([])
        assert [turn.text for turn, _ in memory.store.scan()] == ["one", "Noted."]
        terminal.retry([])
        assert [turn.text for turn, _ in memory.store.scan()] == ["one", "Noted.", "two", "Noted."]


def test_what_was_forgotten_is_found_in_the_stored_sessions(checkpoint: Path, home: Path) -> None:
    def run(*words: str) -> Result:
        result = CliRunner().invoke(app, [*words])
        assert result.exit_code == 0, result.output
        return result

    store = ("--store", str(home / "memory.db"))
    result = chat(
        checkpoint, "hello", "I moved to Oslo", "and you?", options=("--memory-store", str(home / "memory.db"))
    )
    assert result.exit_code == 0, result.output
    (file,) = (home / "tree").glob("*.sqlite")
    tree = open_stored(file)
    for mine, theirs in zip(stored_nodes(file), tree.nodes(), strict=True):  # another has it open
        assert (mine.id, mine.start, mine.message) == (theirs.id, theirs.start, theirs.message)
        assert (mine.parent is None) == (theirs.parent is tree.root)
    tree.close()
    with Memory.open(home / "memory.db") as memory:
        (turn,) = (turn for turn, _ in memory.store.scan() if turn.text == "I moved to Oslo")
    forgotten = run("memory", "forget", turn.id, *store)
    assert forgotten.stdout == f"{turn.node}\n" and "session tree still has" in forgotten.stderr
    run("tree", "prune", *forgotten.stdout.split())
    with Memory.open(home / "memory.db") as memory:
        (turn,) = (turn for turn, _ in memory.store.scan() if turn.text == "and you?")
    pruned = run("memory", "forget", turn.id, *store)
    assert not pruned.stdout and f"1 node not in {home / 'tree'}" in pruned.stderr
    exported = run("tree", "export").stdout
    assert "Oslo" not in exported and "and you?" not in exported and "hello" in exported


def test_a_reply_is_held_by_more_than_its_node(checkpoint: Path, home: Path, memory: Memory) -> None:
    """Templates render it anew, without its reasoning, once more is said."""
    from tests.test_agent_loop import recaller, thinking

    with running(checkpoint, thinking(recaller)) as runtime:
        conversation = Conversation(runtime, system=None, sampling=Sampling(temperature=0, max_tokens=200))
        Terminal(conversation, home / "chat.json", Remembering(memory))
        list(conversation.say("I live in Oslo"))
        first = conversation.node
        list(conversation.say("I live in Oslo, as I said"))
        last, tree = conversation.node, list(runtime.tree.nodes())
        assert first is not None and last is not None and first not in runtime.tree.path(last)
        again = [node.id for node in runtime.tree.children(first.parent or first)]
        assert len(again) == 2 and set(holding(tree, [first.id], ["x"])) == set(again)
        memory.remember("I live in Oslo", conversation="c", id="x")
        list(conversation.say("Where?"))
        (shown,) = holding(list(runtime.tree.nodes()), [], ["x"])
        message = runtime.tree.node(shown).message or {}
        assert "I live in Oslo" in json.dumps(message) and message["role"] == "tool"


def test_what_tools_have_shown_is_found_among_many_and_however_it_is_written() -> None:
    def tool(id: str, result: object, **form: Any) -> Node:
        message = {"role": "tool", "tool_call_id": "c", "content": json.dumps(result, **form)}
        return Node(id, None, np.zeros(1, np.int32), 0, message)

    turns = [{"id": f"t_{number}", "text": "word " * 20} for number in range(100)]
    other = [tool(f"n{number}", {"turns": turns}) for number in range(200)]
    compact = tool("compact", {"turns": [{"id": "Zoë"}]}, separators=(",", ":"))
    spread = tool("spread", {"turns": [{"id": "Zoë"}]}, indent=2, ensure_ascii=False)
    removed = ["Zoë", *(f"x_{number}" for number in range(20_000))]
    start = time.process_time()
    assert holding([*other, compact, spread], [], removed) == ["compact", "spread"]
    assert time.process_time() - start < 5, "not every id is looked for in every result"
    assert holding([tool("n", {"removed": ["x_1"]}), tool("m", '"id": "x_1')], [], removed) == []


def test_another_writes_while_what_is_said_is_embedded(checkpoint: Path, home: Path) -> None:
    from tests.test_agent_loop import thinking
    from tests.test_memory_faces import Letters

    class Slow(Letters):
        """Another process writes to the file while it embeds."""

        def embed(self, texts: list[str]) -> Vector:
            with sqlite3.connect(home / "memory.db", timeout=0.1, isolation_level=None) as other:
                other.execute("BEGIN IMMEDIATE")
                other.execute("ROLLBACK")
            return super().embed(texts)

    with (
        running(checkpoint, thinking(lambda _: {"Noted.": 1.0})) as runtime,
        Memory.open(home / "memory.db", Slow()) as memory,
    ):
        conversation = Conversation(runtime, system=None, sampling=Sampling(temperature=0, max_tokens=50))
        Terminal(conversation, home / "chat.json", Remembering(memory)).show(conversation.say("hello"))
        assert memory.store.count() == 2


def test_a_second_turn_with_tools_reuses_the_first(checkpoint: Path, home: Path) -> None:
    options = ("--memory-store", str(home / "memory.db"))
    result = chat(checkpoint, "tell me about ferns " * 8, "and mosses?", options=options)
    (_, first, none), (_, second, reused) = replies(result)
    assert none == 0 and first > 300  # the tools are part of the prompt
    assert first - 16 < reused < second
    later = chat(checkpoint, "and lichen?", options=(*options, "--session", "last"))
    assert replies(later)[0][2] >= second - 16


def test_calls_and_what_they_gave_are_shown(
    checkpoint: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.test_agent_loop import recaller, thinking, wanted

    def script(prompt: str) -> Mapping[str, float]:
        if "badly" in prompt and "</tool_response>" not in prompt.rpartition("<|im_start|>user")[2]:
            return {wanted("recall", count="1000", question="x"): 1.0}
        return recaller(prompt)

    lines = iter(["I live in Oslo", "Where do I live?", "ask badly"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines, None) or (_ for _ in ()).throw(EOFError))
    with running(checkpoint, thinking(script)) as runtime, Memory.open(None) as memory:
        conversation = Conversation(runtime, system=None, sampling=Sampling(temperature=0, max_tokens=200))
        Terminal(conversation, home / "chat.json", Remembering(memory)).run(None)
        assert memory.store.count() == 6
    out, err = capsys.readouterr()
    assert 'runs recall({"question": "Where do I live?"})' in err
    assert 'recall gives {"turns": [{"id": "' in err and "You live in Oslo." in out
    assert 'recall gives {"error": "\'count\' must be a whole number from 1 to 100"}' in err
    assert "runs no tools" not in err and "not run" not in err


def forgetter(prompt: str) -> Mapping[str, float]:
    """Looks for what it is to forget, asks for that to be forgotten, and tells what came of it."""
    from tests.test_agent_loop import wanted

    last = prompt.rpartition("<|im_start|>user\n")[2]
    if "drop that" in last:
        return {wanted("recall", question="Oslo"): 1.0}
    if found := re.search(r'"id": "([a-z0-9_]+)"', last):
        call = (
            f'<tool_call>\n<function=forget>\n<parameter=ids>\n["{found[1]}"]\n</parameter>\n</function>\n</tool_call>'
        )
        return {call: 1.0}
    said = [word for word in ("removed", "said no", "cannot be asked") if word in last]
    return {f"It {said[0]}." if said else "Noted.": 1.0}


@pytest.mark.parametrize(("answer", "told", "left"), [("y", "removed", 1), ("n", "said no", 6), (None, "cannot be", 6)])
def test_the_user_is_asked_before_the_model_forgets(
    answer: str | None, told: str, left: int, checkpoint: Path, home: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, memory: Memory,
) -> None:  # fmt: skip
    """On a real terminal (None: where the input is none)."""
    from tests.test_agent_loop import thinking

    typed = "".join(f"{line}\n" for line in ("drop that", answer) if line is not None)
    if answer is not None:
        ours, theirs = os.openpty()
        os.write(ours, typed.encode() + b"\x04")
        monkeypatch.setattr("sys.stdin", os.fdopen(theirs))
    else:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    with running(checkpoint, thinking(forgetter)) as runtime:
        conversation = Conversation(runtime, system=None, sampling=Sampling(temperature=0, max_tokens=200))
        turn = memory.remember("I moved to Oslo", conversation="chat", speaker="user", node="n" * 64)
        fact = replace(turn, id="f", text="Lives there", node=None, kind="fact", sources=(turn.id,))
        memory.store.add([fact, replace(fact, id="g", sources=("f",))])
        memory.remember("Something else", conversation="chat")
        folder = home / ("kept [here]" if answer == "y" else "tree")
        folder.mkdir()
        Terminal(conversation, folder / "chat.json", Remembering(memory)).run(None)
        assert told in str(conversation.messages()[-1]["content"])
        holding = conversation.path()[-4].id  # where the model was shown it
    assert memory.store.count() == left, "what is asked and answered is kept, unless something was forgotten"
    out, err = capsys.readouterr()
    assert ("Remove it? [y/N]" in out and "user: I moved to Oslo" in out) == (answer is not None)
    assert ("derived from it: 2 turns" in err) == (answer is not None)
    command = f"ramet tree prune --directory '{folder}' {holding[:12]} {'n' * 12} removes it"
    told_where = command in " ".join(err.split())
    assert told_where == (answer == "y"), "where it was shown, and the node of another tree"


def test_a_question_at_which_something_was_forgotten_stays_out_when_it_is_asked_again(
    checkpoint: Path, home: Path, monkeypatch: pytest.MonkeyPatch, memory: Memory
) -> None:
    from tests.test_agent_loop import thinking

    ours, theirs = os.openpty()
    os.write(ours, b"drop that\ny\n/retry\n\x04")
    monkeypatch.setattr("sys.stdin", os.fdopen(theirs))
    with running(checkpoint, thinking(forgetter)) as runtime:
        conversation = Conversation(runtime, system=None, sampling=Sampling(temperature=0, max_tokens=200))
        memory.remember("I moved to Oslo", conversation="chat", speaker="user")
        (home / "tree").mkdir()
        Terminal(conversation, home / "tree" / "chat.json", Remembering(memory)).run(None)
        assert conversation.messages()[-1]["content"] == "Noted."
    assert memory.store.count() == 0


def test_ctrl_c_while_the_memory_is_written_is_told_as_that(
    checkpoint: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, memory: Memory
) -> None:
    from tests.test_agent_loop import thinking

    def stopped(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    monkeypatch.setattr(Remembering, "keep", stopped)
    with running(checkpoint, thinking(forgetter)) as runtime:
        conversation = Conversation(runtime, system=None, sampling=Sampling(temperature=0, max_tokens=200))
        (home / "tree").mkdir()
        terminal = Terminal(conversation, home / "tree" / "chat.json", Remembering(memory))
        terminal.run(None)
        assert terminal.last == conversation.path()[-1].id, "the reply itself is kept"
    assert "not all of this is in the memory" in capsys.readouterr().err
