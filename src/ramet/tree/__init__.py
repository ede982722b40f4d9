"""The tree of sessions: nodes, their rows and states, and where these are kept."""

from ramet.tree.cursor import Cursor
from ramet.tree.errors import DiskError, NodeInUse, UnknownNode
from ramet.tree.match import Match
from ramet.tree.node import Bill, Node
from ramet.tree.tree import Tree, TreeStats

__all__ = ["Bill", "Cursor", "DiskError", "Match", "Node", "NodeInUse", "Tree", "TreeStats", "UnknownNode"]
