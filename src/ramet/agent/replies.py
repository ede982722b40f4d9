"""Where the table agent's replies come from: an engine in this process, or any server that `ramet serve` runs."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from ramet.agent.table_prompt import TOOLS
from ramet.errors import RametError

if TYPE_CHECKING:
    from ramet.engine.runtime import Runtime

_REPLY_TOKENS = 192
_TIMEOUT_S = 300.0


class AskError(RametError):
    """A question that cannot be put to the model."""


@dataclass(frozen=True)
class Reply:
    """What the model said once."""

    message: dict[str, Any]
    """In OpenAI's chat form."""
    logprob: float
    """Of all its tokens together; 0 where the server tells none."""
    node: str | None
    """Id of the tree's node that ends with it."""


@dataclass(frozen=True)
class Replies:
    """The replies to one request, forked from one prompt."""

    replies: list[Reply]
    prompt_tokens: int
    computed: int
    """Prompt tokens that were run; the others were in the tree."""


@dataclass(frozen=True)
class TreeNode:
    """A node of the tree, as much of it as is drawn."""

    id: str
    parent: str | None
    message: Mapping[str, Any] | None
    tokens: int
    reused: int
    """Of its tokens, those that were not run for it."""


class TableModel(Protocol):
    """A table model that can be asked for replies."""

    def ask(
        self, messages: Sequence[Mapping[str, Any]], *, n: int, temperature: float, seed: int
    ) -> Callable[[], Replies]:
        """Begin `n` replies to a conversation; the function that is returned waits for them. Raises AskError."""
        ...

    def nodes(self) -> list[TreeNode]:
        """The nodes of the tree, parents before children."""
        ...


class LocalModel:
    """A model loaded in this process."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def ask(
        self, messages: Sequence[Mapping[str, Any]], *, n: int, temperature: float, seed: int
    ) -> Callable[[], Replies]:
        """`TableModel.ask`."""
        from ramet.engine import RequestError, Sampling

        runtime = self.runtime
        prompt = runtime.chat.render(messages, TOOLS, enable_thinking=False, reply_tokens=runtime.tree.reply_tokens)
        sampling = Sampling(
            temperature=temperature,
            top_p=1.0,
            top_k=0,
            min_p=0.0,
            repetition_penalty=1.0,
            presence_penalty=0.0,
            seed=seed,
            max_tokens=_REPLY_TOKENS,
            logprobs=0,
            n=n,
        )
        request = replace(
            runtime.request(prompt, TOOLS, sampling=sampling),
            save_at=sorted({prompt.boundaries[0], *prompt.save_at}),  # the next question leaves behind the table
            label="ask",
        )
        try:
            handle = runtime.engine.submit(request)
        except RequestError as error:
            raise AskError(f"the question cannot be put to this model: {error}") from None

        def wait() -> Replies:
            replies = []
            for completion in handle.result():
                finish = completion.finish
                if finish is None or finish.reason in ("error", "cancelled"):
                    raise AskError((finish.error if finish else None) or "the engine stopped before it answered")
                message = dict(finish.message or {"role": "assistant", "content": completion.text})
                replies.append(Reply(message, sum(completion.logprobs), finish.node))
                computed = finish.usage.computed
            return Replies(replies, len(prompt.tokens), computed)

        return wait

    def nodes(self) -> list[TreeNode]:
        """`TableModel.nodes`."""
        tree = self.runtime.tree
        return [
            TreeNode(
                node.id,
                node.parent.id if node.parent not in (None, tree.root) else None,
                node.message,
                len(node.tokens),
                node.bill.reused if node.bill is not None else 0,
            )
            for node in tree.nodes()
        ]


class RemoteModel:
    """The model of a running `ramet serve`, asked through its Chat Completions API."""

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        """`url` is what `ramet serve` prints. Raises AskError if no server answers there."""
        self._url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"content-type": "application/json"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        self._threads = ThreadPoolExecutor(8)
        self._model = str(self._call("/v1/models")["data"][0]["id"])

    def ask(
        self, messages: Sequence[Mapping[str, Any]], *, n: int, temperature: float, seed: int
    ) -> Callable[[], Replies]:
        """`TableModel.ask`."""
        body = {
            "model": self._model,
            "messages": list(messages),
            "tools": TOOLS,
            "n": n,
            "temperature": temperature,
            "top_p": 1.0,
            "seed": seed,
            "max_tokens": _REPLY_TOKENS,
            "chat_template_kwargs": {"enable_thinking": False},
        }
        answer = self._threads.submit(self._call, "/v1/chat/completions", body)

        def wait() -> Replies:
            got = answer.result()
            about = got.get("ramet", {})
            nodes = about.get("nodes") or [about.get("node")] * n
            replies = [Reply(choice["message"], 0.0, node) for choice, node in zip(got["choices"], nodes, strict=True)]
            return Replies(replies, got["usage"]["prompt_tokens"], about.get("computed", 0))

        return wait

    def nodes(self) -> list[TreeNode]:
        """`TableModel.nodes`."""
        nodes: list[TreeNode] = []
        start: int | None = 0
        while start is not None:
            page = self._call(f"/v1/ramet/tree?start={start}&limit=1000")
            for node in page["data"]:
                parent = node["parent"] if node["parent"] != page["root"] else None
                reused = (node["bill"] or {}).get("reused", 0)
                nodes.append(TreeNode(node["id"], parent, node["message"], node["tokens"], reused))
            start = page["next"]
        return nodes

    def _call(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        try:
            request = urllib.request.Request(self._url + path, data, self._headers)
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise AskError(f"{self._url} answered with an error: {_reason(error)}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise AskError(f"no server of Ramet answers at {self._url} ({reason}); start one: ramet serve") from None


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"
