"""How often is the table model right?

On generated questions over schemas, values and phrasings that training never saw, and on WikiTableQuestions' dev set
(where ../shared/data has it) beside two answers that need no model: the table's first cell, and its commonest cell.

    python benchmarks/tables.py                          # 1,000 generated questions, all of WikiTableQuestions' dev
    python benchmarks/tables.py --model DIR --wikitable 500 --json FILE
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

from rich.console import Console

from ramet.agent.replies import LocalModel
from ramet.engine.runtime import Runtime
from ramet.models import load
from ramet.train import evaluate
from ramet.train.data import read_encoder
from report import Figure, report

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "src" / "ramet" / "assets" / "table-model"
WIKITABLE = ROOT.parent / "shared" / "data" / "wikitablequestions"
console = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--generated", type=int, default=1000, help="questions over held-out schemas and phrasings")
    parser.add_argument("--wikitable", type=int, default=None, help="questions of the dev set (default: all)")
    parser.add_argument("--branches", type=int, default=5, help="as in `ramet ask`; 0 decodes greedily, in batches")
    parser.add_argument("--seed", type=int, default=0, help="of the generated questions")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()

    cases = evaluate.generated_cases(arguments.generated, arguments.seed)
    seconds = answer(arguments.model, cases, arguments.branches)
    right = evaluate.mark_generated(cases)
    note = f"{len(cases)} questions over held-out schemas, values and phrasings; rows compared; {seconds:.2f} s each"
    figures = [
        Figure("generated questions answered right", 100 * right, "%", target=">= 90", note=note),
        *sureness("generated", cases),
    ]
    asked, missed = Counter(c.intent for c in cases), Counter(c.intent for c in cases if not c.right)
    console.print(
        f"most often missed: {', '.join(f'{name} {n} of {asked[name]}' for name, n in missed.most_common(8))}"
    )
    if WIKITABLE.is_dir():
        cases = evaluate.wikitable_cases(WIKITABLE, arguments.wikitable)
        seconds = answer(arguments.model, cases, arguments.branches)
        right = evaluate.mark_wikitable(cases)
        first = evaluate.do_nothing(cases, evaluate.first_cell)
        commonest = evaluate.do_nothing(cases, evaluate.commonest_cell)
        note = (
            f"{len(cases)} questions, none trained on; values compared as numbers, dates or text; {seconds:.2f} s each"
        )
        best = f"{100 * max(first, commonest):.1f}"
        figures += [
            Figure("WikiTableQuestions dev answered right", 100 * right, "%", peer=best, note=note),
            Figure("WikiTableQuestions dev, the first cell", 100 * first, "%", note="a baseline that does nothing"),
            Figure("WikiTableQuestions dev, the commonest cell", 100 * commonest, "%", note="another"),
            *sureness("WikiTableQuestions", cases),
        ]
    else:
        console.print(f"no {WIKITABLE}: WikiTableQuestions is left out")
    report("Table questions", figures, arguments.json)


def answer(model: Path, cases: list[evaluate.Case], branches: int) -> float:
    """Answer the cases; seconds per question."""
    started = time.monotonic()
    if branches:
        with Runtime.load(model, ram_bytes=1 << 30) as runtime:
            evaluate.ask(LocalModel(runtime), cases, branches)
    else:
        evaluate.answer_greedily(load(model), read_encoder(model), cases)
    return (time.monotonic() - started) / len(cases)


def sureness(name: str, cases: list[evaluate.Case]) -> list[Figure]:
    """How often the answers are right that were given as sure, and the others."""
    share, sure, unsure = evaluate.calibration(cases)
    return [
        Figure(f"{name}: right where said to be sure", 100 * sure, "%", note=f"{share:.0%} of the questions"),
        Figure(f"{name}: right where not", 100 * unsure, "%", note=f"the other {1 - share:.0%}"),
    ]


if __name__ == "__main__":
    main()
