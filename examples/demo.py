"""What `make demo` runs: three questions about a shop's orders, asked as a user would, through `ramet ask`."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
QUESTIONS = [
    "How many orders were cancelled?",
    "What is the average total for each category?",
    "Which customer ordered the largest quantity of Coffee?",
]


def main() -> int:
    """Ask, printing the command first so that it can be typed again."""
    ramet = Path(sys.executable).with_name("ramet")
    table = HERE / "shop_orders.csv"
    words = ["ask", str(table), *QUESTIONS, "--tree"]
    print("$ ramet " + shlex.join([words[0], str(table.relative_to(HERE.parent)), *words[2:]]), flush=True)
    return subprocess.run([ramet, *words], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
