"""`ramet chat`: a terminal chat that forks, goes back and survives a restart."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ramet.cli.memory import opened, show_turn
from ramet.cli.output import as_option, console, messages, parse_size, plural, printable, shorten, show_error, written
from ramet.cli.places import ModelOption, find_model, trees
from ramet.errors import RametError

if TYPE_CHECKING:
    from ramet.agent.loop import Called, Calling
    from ramet.agent.remembering import Remembering
    from ramet.agent.stream import Piece
    from ramet.cli.conversation import Conversation
    from ramet.engine import FinishEvent
    from ramet.memory import Turn

HELP = """\
/fork [NAME]   keep this place under a name (1, 2, ... if you give none) and go on
/goto PLACE    go to a kept place, or to the node whose id begins with PLACE (see /tree)
/back [N]      take back the last N turns (1); what you say next is a new branch
/retry         ask the last question again; the new reply is a branch beside the old one
/tree          the tree of this chat; ● is where you are
/show FILE     show a picture, or an animated one, with the next question
/save FILE     write the messages from the start to here as JSON
/help          this
/quit          leave; Ctrl-D does too. Ctrl-C stops a reply"""


def chat(
    model: ModelOption = None,
    session: Annotated[
        str | None, typer.Option(metavar="NODE|last", help="Go on from here: a node's id, or [bold]last[/].")
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message for a new chat.")] = None,
    directory: Annotated[
        Path | None, typer.Option(file_okay=False, help="Where sessions are kept. (default: in RAMET_HOME)")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="0 takes the likeliest token. (default: what the model asks for)")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, in tokens.")] = 4096,
    memory: Annotated[
        int, typer.Option(parser=as_option(parse_size), metavar="SIZE", help="Memory for the states of the sessions.")
    ] = "2GiB",  # type: ignore[assignment]  # typer parses the default too
    memory_store: Annotated[
        str | None,
        typer.Option(
            "--memory-store",
            metavar="FILE|URL",
            help="Keep what is said in a memory, and let the model remember, recall and forget.",
        ),
    ] = None,
) -> None:
    """Chat in the terminal: fork, go back, and go on tomorrow without computing a token twice.

    [bold]ramet chat --model Qwen/Qwen3.5-0.8B[/]

    [bold]ramet chat --session last[/]   goes on where you left

    [bold]ramet chat --memory-store ~/memory.db[/]   also remembers what was said in other sessions

    Inside, /help lists what you can do.
    """
    path = find_model(model)
    if model is None:
        messages.print(
            "This is the small table model, which says little by itself. Name another with --model.", style="dim"
        )
    folder = directory or trees()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        remembering = None
        if memory_store is not None:
            from ramet.agent.remembering import Remembering

            remembering = Remembering(stack.enter_context(opened(memory_store, lexical=False, write=True)))
        with messages.status("Loading the model ..."):
            from ramet.cli.conversation import Conversation
            from ramet.engine import Sampling
            from ramet.engine.runtime import Runtime

            runtime = stack.enter_context(Runtime.load(path, tree_dir=folder, ram_bytes=memory))
        sampling = Sampling(temperature=temperature, max_tokens=max_tokens)
        conversation = Conversation(runtime, system=system, sampling=sampling)
        Terminal(conversation, folder / "chat.json", remembering).run(session)


class Terminal:
    """Reads lines, follows commands, prints replies, and remembers the last place and the kept ones in `file`."""

    def __init__(self, conversation: Conversation, file: Path, remembering: Remembering | None = None) -> None:
        self.conversation = conversation
        self.remembering = remembering
        if remembering is not None:
            allow = allowed if sys.stdin.isatty() else None
            conversation.toolbox = remembering.toolbox(lambda: conversation.node, allow)
        self.file = file
        self.last, self.kept = self._remembered()
        self.shown: list[dict[str, Any]] = []
        """What is to be shown with the next question."""
        self.unsaid = set[str]()
        """The nodes of questions at which something was forgotten: they and their answers stay out of the memory."""
        self.commands: dict[str, Callable[[list[str]], None]] = {
            "/fork": self.fork,
            "/goto": self.goto,
            "/back": self.back,
            "/retry": self.retry,
            "/tree": self.tree,
            "/show": self.show_file,
            "/save": self.save,
            "/help": lambda _: console.print(HELP, markup=False),
        }

    def run(self, session: str | None) -> None:
        """Chat until the user leaves. `session`: where to go on (`last`, a kept name, a node id); None: a new chat."""
        if session is not None:
            if session == "last" and self.last is None:
                raise RametError("there is no last session to go on with; leave --session out to begin one")
            self.goto([self.last if session == "last" and self.last is not None else session])
        elif self.last is not None:
            messages.print(f"The last session ended at {self.last[:8]}: go on with --session last", style="dim")
        messages.print(f"{self.conversation.runtime.path.name}. /help lists the commands, /quit leaves.", style="dim")
        for line in _lines():
            if not line.strip():
                continue
            try:
                if not line.startswith("/"):
                    self.show(self.conversation.say(self.with_pictures(line)))
                elif not self.follow(line):
                    break
                self.remember()
            except RametError as error:
                show_error(str(error))
            except KeyboardInterrupt:
                messages.print("\nStopped; this reply is not kept. /retry asks again.", style="dim")

    def follow(self, line: str) -> bool:
        """Do what a command line says; False to leave."""
        try:
            name, *rest = shlex.split(line)
        except ValueError as error:
            raise RametError(f"{line}: {error}") from None
        if name in ("/quit", "/exit"):
            return False
        command = self.commands.get(name)
        if command is None:
            raise RametError(f"there is no command {name}; /help lists them")
        command(rest)
        return True

    def show(self, pieces: Generator[Piece | FinishEvent | Calling | Called]) -> None:
        """Print a reply as it comes, reasoning dimmed, what it calls and what came of that, and what it cost.

        When it is whole it goes into the memory, if there is one; unless something was forgotten, which the question
        and the answer most likely name.
        """
        from ramet.agent.loop import Called, Calling
        from ramet.agent.remembering import now
        from ramet.agent.stream import Piece

        reasoning, forgot, asked = False, False, now()
        with closing(pieces):  # Ctrl-C may come anywhere; closing cancels the reply
            for piece in pieces:
                if isinstance(piece, Calling):
                    text = shorten(f"{piece.name}({piece.arguments})", 200)
                    messages.print(f"runs {text}", style="yellow", markup=False)
                elif isinstance(piece, Called):
                    text = json.dumps(piece.result, ensure_ascii=False)
                    text = shorten(f"{piece.call.name} gives {text}", 300)
                    messages.print(text, style="red" if piece.failed else "dim", markup=False)
                    reasoning = False
                    if piece.call.name == "forget" and piece.result.get("removed"):
                        forgot = True
                        self.say_where_it_stays(piece.result)
                elif isinstance(piece, Piece):
                    if reasoning and not piece.reasoning:
                        console.print("\n")
                    reasoning = piece.reasoning
                    style = "dim italic" if reasoning else None
                    console.print(printable(piece.text), end="", markup=False, soft_wrap=True, style=style)
                else:
                    console.print()
                    self.say_cost(piece)
        exchange = self.conversation.exchange()
        if forgot and exchange:
            self.unsaid.add(exchange[0].id)
        if self.remembering is not None and exchange and exchange[0].id not in self.unsaid:
            try:
                self.remembering.keep(exchange, asked)
            except RametError as error:
                show_error(f"this is not in the memory: {error}")
            except KeyboardInterrupt:
                messages.print("\nStopped: not all of this is in the memory.", style="yellow")

    def say_where_it_stays(self, forgotten: Mapping[str, Any]) -> None:
        """Say which nodes still have what was forgotten, and what removes them."""
        from ramet.agent.remembering import holding
        from ramet.tree.stored import stored_nodes, stored_trees

        folder = self.file.parent
        others = {node.id: node for file in stored_trees(folder) for node in stored_nodes(file)}  # of other models, too
        tree = others | {node.id: node for node in self.conversation.runtime.tree.nodes()}
        nodes = holding(list(tree.values()), forgotten.get("nodes", ()), forgotten["removed"])
        if nodes:
            place = [] if folder == trees() else ["--directory", str(folder)]
            command = shlex.join(["ramet", "tree", "prune", *place, *(node[:12] for node in nodes)])
            messages.print(
                f"The memory has forgotten it; the session tree still has it. When you have left, {command} removes it "
                "there, with all that was said after it.",
                style="yellow",
                markup=False,
                soft_wrap=True,
            )

    def say_cost(self, finish: FinishEvent) -> None:
        if finish.reason == "error":
            raise RametError(finish.error or "the engine failed")
        runs = self.conversation.toolbox is not None and finish.reason == "tool_calls"
        for call in () if runs else (finish.message or {}).get("tool_calls") or ():
            why = "a terminal chat runs no tools" if self.conversation.toolbox is None else "which is not run"
            text = shorten(f"{call['function']['name']}({call['function']['arguments']})", 200)
            messages.print(f"calls {text}: {why}", style="yellow", markup=False)
        usage = finish.usage
        speed = usage.completion_tokens / usage.reply_seconds if usage.reply_seconds else 0.0
        place = finish.node[:8] if finish.node else "-"
        cut = " · cut at --max-tokens" if finish.reason == "length" else ""
        messages.print(
            f"{place} · prompt {plural(usage.prompt_tokens, 'token')}, {usage.reused:,} reused · "
            f"reply {plural(usage.completion_tokens, 'token')}, {speed:.1f} a second{cut}",
            style="dim",
            soft_wrap=True,
        )

    def fork(self, words: list[str]) -> None:
        node = self.conversation.node
        if node is None:
            raise RametError("there is nothing to fork yet: say something first")
        if len(words) > 1:
            raise RametError(f'a name is one word, or in quotes: /fork "{" ".join(words)}"')
        name = words[0] if words else str(next(n for n in range(1, len(self.kept) + 2) if str(n) not in self.kept))
        self.kept[name] = node.id
        console.print(f"Kept this place ({node.id[:8]}) as {name}. Go on; /goto {name} comes back here.", markup=False)

    def goto(self, words: list[str]) -> None:
        if len(words) != 1:
            raise RametError("say where: /goto PLACE, a name from /fork or the start of a node's id from /tree")
        self.conversation.go(self.kept.get(words[0], words[0]))
        if self.remembering is not None:
            self.remembering.bring_back(self.conversation.path())
        self.say_place()

    def back(self, words: list[str]) -> None:
        if len(words) > 1 or (words and not re.fullmatch(r"0*[1-9]\d{,8}", words[0])):
            raise RametError(f"/back takes a number of turns, not {shorten(' '.join(words), 40)!r}")
        with self.taking_back():
            self.conversation.back(int(words[0]) if words else 1)
        self.say_place()

    def retry(self, _: list[str]) -> None:
        with self.taking_back():
            self.show(self.conversation.retry())

    @contextmanager
    def taking_back(self) -> Iterator[None]:
        """Afterwards the memory forgets what is no longer on the path to here, nor on that to a place kept."""
        before = self.conversation.path()
        try:
            yield
        finally:
            if self.remembering is not None:
                tree = self.conversation.runtime.tree
                places = [node for node in tree.nodes() if node.id in self.kept.values()]
                kept = (node for place in places for node in tree.path(place))
                self.remembering.take_back(before, [*self.conversation.path(), *kept])

    def tree(self, _: list[str]) -> None:
        from ramet.cli.tree_view import draw, node_line

        tree, here = self.conversation.runtime.tree, self.conversation.node
        path = self.conversation.path()
        if not path or here is None:
            raise RametError("there is no tree yet: say something first")
        names = {node: name for name, node in self.kept.items()}
        console.print(
            draw(
                "this chat",
                path[:1],
                tree.children,
                lambda node: node_line(
                    node.message,
                    tokens=len(node.tokens),
                    cost=f"kept as {names[node.id]}" if node.id in names else "",
                    name=("● " if node.id == here.id else "") + node.id[:8],
                ),
            )
        )

    def show_file(self, words: list[str]) -> None:
        from ramet.cli.pictures import picture_part

        if len(words) != 1:
            raise RametError("say which: /show FILE")
        if not self.conversation.runtime.chat.sees:
            raise RametError("this model reads text only: it has no vision tower")
        self.shown.append(picture_part(Path(words[0]).expanduser()))
        console.print(f"{words[0]} goes with your next question.", markup=False)

    def with_pictures(self, text: str) -> str | list[dict[str, Any]]:
        """What the user says, behind the pictures that were to be shown with it."""
        shown, self.shown = self.shown, []
        return [*shown, {"type": "text", "text": text}] if shown else text

    def save(self, words: list[str]) -> None:
        if len(words) != 1:
            raise RametError("say where to: /save FILE")
        try:
            text = json.dumps(self.conversation.messages(), indent=1, ensure_ascii=False)
            Path(words[0]).expanduser().write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise RametError(f"cannot write {words[0]}: {error.strerror}") from None
        console.print(f"Wrote {plural(len(self.conversation.messages()), 'message')} to {words[0]}", markup=False)

    def say_place(self) -> None:
        """Say where the chat is now, by the last question and reply."""
        from ramet.cli.tree_view import message_text

        said = self.conversation.messages()
        if self.conversation.node is None:
            console.print("At the start.")
        for message in said[-2:] if self.conversation.node is not None else ():
            console.print(f"  {message['role']}: {shorten(message_text(message), 100)}", markup=False, style="dim")

    def remember(self) -> None:
        """Write down the last place and the kept ones, per model: a node belongs to one model."""
        node = self.conversation.node
        self.last = node.id if node is not None else self.last
        state = self._read()
        state[self.conversation.runtime.model.fingerprint] = {"last": self.last, "kept": self.kept}
        with written(self.file) as file:
            json.dump(state, file, indent=1)

    def _remembered(self) -> tuple[str | None, dict[str, str]]:
        state = self._read().get(self.conversation.runtime.model.fingerprint) or {}
        return state.get("last"), dict(state.get("kept") or {})

    def _read(self) -> dict[str, Any]:
        try:
            state = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            messages.print(f"{self.file} is damaged; the places kept with /fork are forgotten", style="yellow")
            return {}
        return state if isinstance(state, dict) else {}


def allowed(named: list[Turn], derived: int) -> bool:
    """Ask the user whether the model may have this forgotten."""
    messages.print("The model wants to remove this from the memory, for good:", style="yellow")
    for turn in named:
        show_turn(turn)
    if derived:
        messages.print(f"and what was derived from it: {plural(derived, 'turn')}", style="yellow")
    try:
        return input("Remove it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _lines() -> Iterator[str]:
    """Lines that the user types, until Ctrl-D. Ctrl-C at the prompt drops the line."""
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401  # importing it is what gives input() a history and editing
    while True:
        try:
            yield input("\n> " if interactive else "")
        except EOFError:
            return
        except KeyboardInterrupt:
            messages.print("\n/quit or Ctrl-D leaves.", style="dim")
