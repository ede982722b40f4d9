"""Every node of the tree: by id, by parent, by what was written in it, and where its tokens end."""

from __future__ import annotations

from typing import Any

from ramet.tree.errors import UnknownNode
from ramet.tree.node import Bill, Node, Tokens, node_id
from ramet.tree.segment import Segment


class Nodes:
    """The nodes, the root among them, each with the segment at whose end its tokens end."""

    def __init__(self, root: Node, trunk: Segment) -> None:
        self.root = root
        self._by_id: dict[str, Node] = {root.id: root}
        self._places: dict[str, Segment] = {root.id: trunk}
        self._children: dict[str, dict[str, Node]] = {}
        self._replies: dict[str, dict[str, Node]] = {}
        """The nodes that a model wrote, by its words and by id; the latest is the last."""
        trunk.nodes.append(root)

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, id: str) -> Node | None:
        return self._by_id.get(id)

    def get(self, id: str) -> Node:
        """The node with this id. Raises UnknownNode."""
        node = self._by_id.get(id)
        if node is None:
            raise UnknownNode(id)
        return node

    def find_place(self, node: Node) -> Segment | None:
        return self._places.get(node.id)

    def place(self, node: Node) -> Segment:
        """The segment at whose end a node ends. Raises UnknownNode for one that was pruned."""
        segment = self._places.get(node.id)
        if segment is None:
            raise UnknownNode(node.id)
        return segment

    def children(self, node: Node) -> list[Node]:
        """Oldest first."""
        return list(self._children.get(node.id, {}).values())

    def below(self, node: Node) -> list[Node]:
        """All that follow a node, parents first."""
        found = self.children(node)
        for each in found:
            found.extend(self.children(each))
        return found

    def cut_at(self, tokens: Tokens, boundaries: list[int]) -> Node:
        """The deepest node on the path of `tokens` cut at `boundaries` (ascending)."""
        node = self.root
        for boundary in boundaries:
            if boundary > node.end:
                found = self._by_id.get(node_id(node.id, tokens[node.end : boundary]))
                if found is None:
                    break
                node = found
        return node

    def reply_tokens(self, text: str) -> list[int] | None:
        """The tokens of a reply; the latest if there were several with this text."""
        written = self._replies.get(text)
        if written is None:
            return None
        tokens: list[int] = next(reversed(written.values())).tokens.tolist()
        return tokens

    def add(self, node: Node, segment: Segment) -> None:
        """Add a node whose parent is there and whose tokens end with `segment`."""
        assert node.parent is not None
        self._by_id[node.id] = node
        self._places[node.id] = segment
        self._children.setdefault(node.parent.id, {})[node.id] = node
        segment.nodes.append(node)
        self._index_reply(node)

    def complete(self, node: Node, message: dict[str, Any] | None, bill: Bill | None, reply: str | None) -> bool:
        """Tell a node what it was not told when it was first committed; returns whether that was anything."""
        changed = False
        for name, value in (("message", message), ("bill", bill), ("reply", reply)):
            if value is not None and getattr(node, name) is None:
                object.__setattr__(node, name, value)
                changed = True
        self._index_reply(node)
        return changed

    def remove(self, node: Node) -> Segment:
        """Take a leaf away; returns the segment that it ended in."""
        assert node.parent is not None
        del self._by_id[node.id]
        del self._children[node.parent.id][node.id]
        self._children.pop(node.id, None)
        if node.reply is not None:
            written = self._replies[node.reply]
            del written[node.id]
            if not written:
                del self._replies[node.reply]
        segment = self._places.pop(node.id)
        segment.nodes.remove(node)
        return segment

    def _index_reply(self, node: Node) -> None:
        """Make a node, if a model wrote it, the latest with its words."""
        if node.reply is not None:
            written = self._replies.setdefault(node.reply, {})
            written.pop(node.id, None)
            written[node.id] = node
