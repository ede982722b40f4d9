"""What `make demo` runs: a server with the model that Ramet ships, and three questions about a shop's orders put to it.

Both are the commands that a user would type; they are printed before they are run.
"""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TABLE = Path("examples/shop_orders.csv")
QUESTIONS = [
    "What is the average total for each category?",
    "Which customer has the highest total?",
    "Which city has the most orders?",
]
ROOT = Path(__file__).resolve().parent.parent
RAMET = Path(sys.executable).with_name("ramet")


def main() -> int:
    with server() as url:
        words = ["ask", str(TABLE), *QUESTIONS, "--server", url, "--tree"]
        say(words)
        return subprocess.run([RAMET, *words], cwd=ROOT, check=False).returncode


@contextmanager
def server() -> Iterator[str]:
    """Run `ramet serve` on a free port, give its URL once it listens, and stop it in the end."""
    words = ["serve", "--port", "0", "--memory-only"]
    say(words)
    with subprocess.Popen([RAMET, *words], cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"http://[\d.:]+", line):
                print(f"listening on {found[0]}\n", flush=True)
                break
        else:
            sys.exit(said)
        try:
            yield found[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()


def say(words: list[str]) -> None:
    print("$ ramet " + shlex.join(words), flush=True)


if __name__ == "__main__":
    sys.exit(main())
