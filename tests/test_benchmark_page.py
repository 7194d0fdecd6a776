"""The page of a benchmark: its bars, its tables, and that it fits a phone."""

import json
import re
from types import SimpleNamespace

import pytest

from stages.evaluation import benchmark_page, benchmark_table
from tests.pages import BROWSER, NO_BROWSER, loaded, measured

STEPS = [SimpleNamespace(samples="pi0", makes="pi1"), SimpleNamespace(samples="pi1", makes="pi2")]
RIGHT = {"pi0": 10, "offline": 10, "pi1": 12, "pi2": 1}
"""Of 16 questions."""


@pytest.fixture
def written(tmp_path):
    """The page of a benchmark whose name would be a tag if it were more than text."""
    name = "<b>mine</b>" + "w" * 200
    (tmp_path / "scores").mkdir()
    for policy, right in RIGHT.items():
        facts = {"ids": list(range(16)), "questions": 16, "scores": {"acc": [1.0] * right + [0.0] * (16 - right)}}
        (tmp_path / f"scores/{policy}.json").write_text(json.dumps(facts))
    evaluate, entry = SimpleNamespace(confidence=0.95), SimpleNamespace(task="own")
    params = SimpleNamespace(iterations=STEPS, evaluate=evaluate, benchmarks={name: entry})
    writes = {"metrics": tmp_path / "m.json", "table": tmp_path / "t.md", "page": tmp_path / "p.html"}
    benchmark_table.main(params, name, tmp_path / "scores", **writes)
    return tmp_path


def test_the_page_shows_the_verdicts_of_the_alignment_tax_and_loads_nothing(written):
    page = (written / "p.html").read_text(encoding="utf-8")
    assert loaded(page) == [] and "<b>" not in page and "&lt;b&gt;mine&lt;/b&gt;" in page
    told = [re.sub("<[^>]*>", "|", row) for row in page.splitlines() if row.startswith("<tr><td>π2")]
    assert "|-0.562 [" in told[0] and "|lower|" in told[0]
    assert [row.count("no difference seen") for row in page.splitlines() if row.startswith("<tr><td>π1")] == [1]
    assert page.count("<svg") == 1 and ">offline DPO</text>" in page


@pytest.mark.skipif(not BROWSER, reason=NO_BROWSER)
def test_in_a_browser_the_page_is_no_wider_than_a_phone(written):
    found = measured((written / "p.html").read_text(encoding="utf-8"), written)
    assert all(scrolled <= width and loads == 0 for scrolled, width, loads in found), found


def test_an_interval_that_leaves_its_value_out_is_drawn_too():
    """A bootstrap of a fit, as AlpacaEval's, may have one."""
    picture = benchmark_page.bars({"π0": {"value": 0.5, "interval": [0.51, 0.6]}}, "win rate")
    assert picture.startswith("<svg") and ">win rate</text>" in picture
