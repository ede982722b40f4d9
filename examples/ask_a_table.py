"""Ask a table from Python: the agent behind `ramet ask`, with every branch that it followed.

python examples/ask_a_table.py
"""

from __future__ import annotations

from pathlib import Path

from ramet.agent.ask import TableAgent
from ramet.agent.replies import LocalModel
from ramet.agent.sql import load_table
from ramet.cli.places import shipped_model
from ramet.engine.runtime import Runtime

TABLE = Path(__file__).with_name("library_loans.csv")


def main() -> None:
    with Runtime.load(shipped_model()) as runtime:
        agent = TableAgent(LocalModel(runtime), load_table(TABLE), branches=5)
        for question in ("Which branch has the most loans?", "How many loans were kept longer than 20 days?"):
            answer = agent.ask(question)
            print(
                f"\n{question}\n  {answer.best.text if answer.best else 'no answer'}", "" if answer.sure else "(unsure)"
            )
            for branch in answer.branches:
                print(f"    {'likeliest' if branch.greedy else 'sampled':9}  {branch.answer}  {branch.last.sql}")
            print(f"  prompt tokens: {answer.computed} computed, {answer.reused} reused")


if __name__ == "__main__":
    main()
