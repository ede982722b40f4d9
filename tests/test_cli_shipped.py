"""The model that is shipped, through the real `ramet ask`, on the tables in examples/: what `make demo` promises."""

from __future__ import annotations

import csv
import json
import runpy
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ramet.cli.main import app
from ramet.cli.places import shipped_model

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
ORDERS = EXAMPLES / "shop_orders.csv"


@pytest.fixture(scope="module")
def answers() -> list[dict[str, Any]]:
    """The demo's questions, answered by the shipped model."""
    questions = runpy.run_path(str(EXAMPLES / "demo.py"))["QUESTIONS"]
    started = time.monotonic()
    result = CliRunner().invoke(app, ["ask", str(ORDERS), *questions, "--json"])
    assert result.exit_code == 0, result.output
    assert time.monotonic() - started < 60
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def orders() -> list[dict[str, str]]:
    with ORDERS.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_demo_is_right_and_sure(answers: list[dict[str, Any]], orders: list[dict[str, str]]) -> None:
    by_category = defaultdict(list)
    for order in orders:
        by_category[order["category"]].append(float(order["total"]))
    averages = {category: pytest.approx(sum(totals) / len(totals)) for category, totals in by_category.items()}
    assert {row[0]: row[1] for row in answers[0]["rows"]} == averages
    highest = max(orders, key=lambda order: float(order["total"]))
    assert answers[1]["answer"] == highest["customer"]
    (city, _), *_ = Counter(order["city"] for order in orders).most_common()
    assert answers[2]["answer"] == city
    assert all(answer["sure"] for answer in answers)


def test_later_questions_reuse_the_table(answers: list[dict[str, Any]]) -> None:
    first, second, third = (answer["tokens"] for answer in answers)
    assert second["computed"] < first["computed"]
    assert third["computed"] < first["computed"]


def test_the_shipped_model_is_small() -> None:
    assert sum(file.stat().st_size for file in shipped_model().iterdir()) < 40 << 20
