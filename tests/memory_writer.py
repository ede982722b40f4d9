"""A process that writes turns to a memory and says which are in: `python memory_writer.py FILE NAME COUNT`."""

import sys
from pathlib import Path

import numpy as np

from ramet.memory.base import Turn
from ramet.memory.sqlite import SqliteStore

if __name__ == "__main__":
    file, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    with SqliteStore(file) as store:
        for index in range(count):
            turn = Turn(f"{name}:{index}", name, "s", index, "Ann", f"word{index} in Oslo")
            store.add([turn], np.eye(8, dtype=np.float32)[index % 8][None])
            print(turn.id, flush=True)
