"""What a reader is told of a run, on numbers made up by hand."""

import ast
import csv
import hashlib
import json
import subprocess
import xml.etree.ElementTree
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from stages.evaluation import (
    html_pages,
    report,
    report_data,
    report_overview,
    report_pairs,
    report_policies,
    report_summary,
)
from tests.pages import BROWSER, NO_BROWSER, WIDTHS, loaded, measured

ROOM = Path("stages/evaluation")
STEPS = [SimpleNamespace(samples="pi0", makes="pi1"), SimpleNamespace(samples="pi1", makes="pi2")]
BASES = {"base": SimpleNamespace(model="models/mine", revision="0123abcd")}
PARAMS = SimpleNamespace(
    iterations=STEPS,
    evaluate=SimpleNamespace(confidence=0.95),
    bases=BASES,
    start_from=SimpleNamespace(policy="base", reward_model="base"),
    seed=1,
    dtype="float32",
    mix={"mine": None, "yours": None},
    rank=SimpleNamespace(scorer="reward_model"),
    prompts=SimpleNamespace(per_iteration=64),
    generate=SimpleNamespace(n=8, temperatures=[1.0, 0.7]),
    dpo=SimpleNamespace(loss=["sigmoid"], beta=0.1, learning_rate=3e-5),
)
RANKER = {"heldout": {"labels": {"accuracy": 0.75, "interval": [0.5, 0.875], "pairs": 16}}}


def spread(name: str, value: float, low: float, high: float) -> dict:
    return {name: value, f"{name}_interval": [low, high]}


def policy(gold: float, **test) -> dict:
    """A policy whose gold reward has an interval of 1 to either side; pi0 has 2.0 and offline DPO 2.5."""
    numbers = {"prompts": 4, "answers": 8, **spread("gold_reward", gold, gold - 1, gold + 1)}
    numbers |= spread("gain", gold - 2, gold - 2.5, gold - 1.5) | spread("over_offline", gold - 2.5, gold - 3, gold - 2)
    numbers |= spread("win_rate", 0.625, 0.5, 0.75) | spread("win_rate_over_offline", 0.5625, 0.5, 0.625)
    numbers |= spread("proxy_agrees", 0.75, 0.5, 1.0)
    numbers |= {"proxy_reward": gold / 2, "tokens": 40.0625, "finished": 0.75, "kl": 1.25, "sampler_kl": 0.001}
    numbers |= {"length_reward_correlation": -0.5, "distinct_2": 0.75, "repetition": 0.0, "proxy_win_rate": 0.625}
    return {"test": numbers | test, "validation": {}}


def audit(**changes) -> dict:
    ends = {"margin_low": 0.0, "margin_median": 1.5, "margin_high": 5.0, "margin_histogram": [1, *[0] * 8, 3]}
    sides = {"chosen_characters": 200.4, "rejected_characters": 250.6, "longer_is_chosen": 0.25}
    shares = {"chosen_at_0.7": 0.75, "chosen_at_1": 0.25, "rejected_at_0.7": 0.5, "rejected_at_1": 0.5}
    return ends | sides | shares | changes


def prepared(**changes) -> dict:
    """The audit of a set of preferences: 10 rows, 8 pairs, 5 kept."""
    fact = {"dataset": "data/raw/mine.jsonl", "revision": None, "licence": None, "rows_read": 10, "pairs_made": 8}
    fact |= {"pairs_kept": 5, "drops": {"not_json": 0, "tie": 1, "small_margin": 2}}
    fact |= {"rows_measured": 5, "prompt_tokens": 14.2, "chosen_tokens": 47.4, "rejected_tokens": 51.8}
    return fact | {"longer_is_chosen": 0.25} | changes


def side_by_side() -> dict:
    """One prompt, whose texts would load something if they were more than text, and one word too long for a line."""
    hostile = '<img src="http://example.org/x.png"><script>alert(1)</script>' + "w" * 500
    answers = {name: {"text": hostile, "reward": 1.5, "finished": name != "pi0"} for name in ("pi0", "offline", "pi2")}
    rows = [{"id": "a", "prompt": hostile, "answers": answers}]
    return {"yardstick": "gold reward", "characters": 600, "by_hash": rows, "gains": rows, "losses": []}


def lay_out(folder: Path) -> Path:
    """What `report` reads, for two iterations, and a policy of a third that was removed."""
    trained = {"rows_out": 64, "steps": 8}
    curves = {"loss": [[1, 0.75], [2, 0.5]], "grad_norm": [[1, 4.0], [2, 2.0]]}
    rounds = {
        "examples": side_by_side(),
        "training": curves,
        "stop": {"stop": False, "reason": ""},
        "rank": {"rows_out": 4, "audit": audit()},
    }
    files: dict[str, dict] = {
        "policy/pi0": {"pi0": policy(2.0) | {"sft": {"curve": [[8, 2.5]]}}},
        "policy/offline": {"offline": policy(2.0) | {"dpo": trained}},
        "policy/pi1": {"pi1": policy(2.0) | rounds | {"dpo": trained | {"curve": [[1, 0.6931], [2, 0.5]]}}},
        "policy/pi2": {"pi2": policy(3.0) | rounds | {"dpo": trained | {"curve": [[1, 0.25]]}}},
        "policy/pi3": {"pi3": policy(2.0)},
        "selected": {"policy": "pi2"},
        "reward_model": RANKER,
        "data": {"mine": prepared(dataset="<b>mine</b>")},
        "lock": {},
        "prompts": {"rows_in": 1300, "rows_out": 1299, "drops": {"empty": 1}},
    }
    for name, facts in files.items():
        file = folder / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(facts))
    return folder


def run(metrics: Path, out: Path) -> Path:
    out.mkdir()
    names = ("policy", "selected.json", "reward_model.json", "data.json", "prompts.json", "lock.json")
    reads = [metrics / name for name in names]
    tables = {"markdown_table": out / "table.md", "rows": out / "policies.csv", "curves": out / "curves.csv"}
    pages = {"html_page": out / "report.html", "summary": out / "summary.json", "overview": out / "overview.svg"}
    report.main(PARAMS, *reads, **tables, **pages)
    return out


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What the report writes; nobody changes it."""
    metrics = lay_out(tmp_path_factory.mktemp("metrics"))
    return run(metrics, metrics / "out")


def test_the_report_is_the_same_bytes_twice(written, tmp_path):
    again = run(lay_out(tmp_path), tmp_path / "out")
    assert len(list(written.iterdir())) == 6
    for file in written.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes()


def test_the_policy_of_a_removed_iteration_is_in_no_table(written):
    assert [line.split(" | ")[0] for line in (written / "table.md").read_text(encoding="utf-8").splitlines()] == [
        "| policy",
        "| ---",
        "| π0 (SFT)",
        "| offline DPO",
        "| π1",
        "| π2",
    ]


def test_the_page_needs_no_network_and_shows_what_data_say_as_text(written):
    page = (written / "report.html").read_text(encoding="utf-8")
    assert loaded(page) == [] and "<script" not in page and "<img" not in page
    assert "<td>&lt;b&gt;mine&lt;/b&gt;</td>" in page and "<b>" not in page
    assert "<td>prompts</td><td>1,300</td><td>1,299</td><td>empty 1</td>" in page
    assert "offline DPO: 64 pairs in 8 steps; π1: 64 pairs in 8 steps; π2: 64 pairs in 8 steps." in page
    assert "<td>labels</td><td>75.0%</td><td>50.0% to 87.5%</td><td>16</td>" in page


def test_the_page_shows_the_claim_the_answers_the_curves_and_the_lineage(written):
    page = (written / "report.html").read_text(encoding="utf-8")
    assert "Not told apart: the difference of π2 from offline DPO may be 0" in page
    assert "Answer by answer, π2 wins 62% over π0 (SFT) [50%, 75%] and 56% over offline DPO [50%, 62%]: 50%" in page
    assert "No over-optimisation is seen: wherever the proxy rises, the gold reward rises too." in page
    assert "<th>they agree [95 %]</th>" in page and page.count("<td>0.75 [0.50, 1.00]</td>") == 2
    assert page.count("&lt;img src=") == 2 * 4  # a prompt and three answers, by hash and as a gain
    assert "<strong>π0 (SFT)</strong> 1.50, broken off<p>" in page and "The largest losses" not in page
    assert ">loss</text>" in page and ">gradient norm</text>" in page and ">learning rate</text>" not in page
    digest = hashlib.sha256(b"{}").hexdigest()[:16]
    assert f"<td>packages</td><td>requirements.lock, sha256 {digest}</td>" in page
    assert "<td>policy begins from</td><td>models/mine, revision 0123abcd</td>" in page


def test_what_would_be_loaded_is_found_in_tags_and_styles_and_not_in_text():
    assert loaded("<p>url(http://a) src='b'</p><svg><use xlink:href='#c'/></svg>") == []
    page = "<img src='a'><style>p { background: url(b) }</style><p style='background: url(c)'><script>1</script>"
    assert loaded(page) == ["a", "url(b)", "url(c)", "<script>"]


@pytest.mark.skipif(not BROWSER, reason=NO_BROWSER)
def test_in_a_browser_nothing_is_wider_than_a_phone_and_nothing_is_loaded(written, tmp_path):
    found = measured((written / "report.html").read_text(encoding="utf-8"), tmp_path)
    assert [width for _, width, _ in found] == list(WIDTHS)
    assert all(scrolled <= width and loads == 0 for scrolled, width, loads in found), found


@pytest.mark.skipif(not BROWSER, reason=NO_BROWSER)
def test_a_page_that_is_too_wide_and_asks_a_network_is_measured_so(tmp_path):
    page = "<!doctype html><body style='margin: 0'><img src='http://127.0.0.1:9/'><div style='width: 500px'>.</div>"
    assert measured(page, tmp_path) == [[500, 390, 1], [1280, 1280, 1]]


def test_the_curves_are_one_line_a_step_and_a_policy_without_any_has_none(written):
    assert (written / "curves.csv").read_text() == "policy,step,loss\npi0,8,2.5\npi1,1,0.6931\npi1,2,0.5\npi2,1,0.25\n"


def test_an_interval_becomes_two_columns(written):
    with (written / "policies.csv").open() as file:
        rows = {row["policy"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["pi0", "offline", "pi1", "pi2"]
    assert [rows["pi2"][f"gold_reward{end}"] for end in ("", "_low", "_high")] == ["3.0", "2.0", "4.0"]


def test_the_summary_tells_of_the_selected_policy_and_of_the_ranker(written):
    found = json.loads((written / "summary.json").read_text())
    assert found == {
        "policy": "pi2",
        "gold_gain": 1.0,
        "win_rate_over_offline": 0.5625,
        "kl": 1.25,
        "finished": 0.75,
        "tokens": 40.1,
        "ranker_accuracy": 0.75,
    }


def test_without_gold_the_judge_is_the_yardstick_and_without_a_judge_the_proxy():
    bare = {"proxy_win_rate": 0.625, "kl": 1.0, "tokens": 9.0, "finished": 1.0}
    judge = {"judge_win_rate": 0.75, "judge_over_offline": 0.125}
    rest = {"kl": 1.0, "tokens": 9.0, "finished": 1.0, "ranker_accuracy": 0.75}
    assert report_summary.numbers(bare, "pi1", RANKER) == {"policy": "pi1", "proxy_win_rate": 0.625} | rest
    assert report_summary.numbers(bare | judge, "pi1", RANKER) == {"policy": "pi1"} | judge | rest


@pytest.mark.parametrize(
    "yardstick", [report_summary.OF_GOLD, report_summary.OF_THE_JUDGE, report_summary.OF_THE_PROXY]
)
def test_dvc_shows_the_summary_in_a_terminal_of_120_columns(tmp_path, yardstick):
    """The longest numbers that come up: a KL and a length of three digits, and four behind the point."""
    longest = dict.fromkeys(yardstick.values(), -0.1234) | {"kl": 123.4567, "tokens": 123.4567, "finished": 0.1234}
    test = longest | ({"gain": -0.1234} if yardstick is report_summary.OF_GOLD else {})
    facts = report_summary.numbers(test, "pi10", {"heldout": {"labels": {"accuracy": 0.1234}}})
    assert len(facts) <= 25 and set(yardstick) < set(facts)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/summary.json").write_text(json.dumps(facts))
    (tmp_path / "dvc.yaml").write_text("metrics: [metrics/summary.json]\n")
    subprocess.run(["dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    done = subprocess.run(["dvc", "metrics", "show"], cwd=tmp_path, check=True, capture_output=True, text=True)
    header, values = done.stdout.splitlines()
    assert set(header.split()) == {"Path", *facts} and "123.4567" in values
    assert max(len(header), len(values)) <= 120


def reported(**numbers) -> dict:
    return {"test": {"proxy_reward": 1.0, "tokens": 9.0, "finished": 1.0, "kl": 0.0} | numbers}


def test_the_table_shows_the_columns_that_a_profile_has():
    judge = spread("judge_win_rate", 0.7, 0.6, 0.8) | spread("judge_over_offline", 0.1, -0.1, 0.3)
    table = {"pi0": reported(**judge), "offline": reported(**judge), "pi1": reported(**judge)}
    header, lines = report_policies.results(table, 0.9)
    always = ["proxy", "tokens", "finished", "KL to π0"]
    assert header == ["policy", "judge prefers it to π0 [90 %]", "judge: over offline", *always]
    assert [line[1:3] for line in lines] == [
        ["", ""],
        ["0.70 [0.60, 0.80]", ""],
        ["0.70 [0.60, 0.80]", "+0.10 [-0.10, 0.30]"],
    ]
    header, lines = report_policies.results({"pi0": policy(2.0), "pi1": policy(3.0)}, 0.95)
    assert header[:5] == ["policy", "gold reward [95 %]", "gain over π0", "gain over offline", "wins over π0"]
    assert lines[0][1:5] == ["2.00 [1.00, 3.00]", "", "", ""]
    assert lines[1][1:5] == ["3.00 [2.00, 4.00]", "+1.00 [0.50, 1.50]", "+0.50 [0.00, 1.00]", "62%"]
    assert report_policies.results({"pi0": reported()}, 0.95)[0] == ["policy", *always]


def test_the_verdict_says_what_the_intervals_say():
    judge = spread("judge_win_rate", 0.7, 0.6, 0.8) | spread("judge_over_offline", 0.1, -0.1, 0.3)
    told = (
        "Selected on validation: π1, better than π0 and not shown to be better or worse than offline DPO, "
        "by 90 % intervals of the judge's preference."
    )
    assert report_policies.verdict({"pi1": reported(**judge)}, "pi1", 0.9) == told
    told = "Selected on validation: π1, worse than π0 and worse than offline DPO, by paired 95 % intervals."
    assert report_policies.verdict({"pi1": policy(0.0)}, "pi1", 0.95) == told
    told = "Selected on validation: π0 (SFT). There is no gold reward and no judge in this profile."
    assert report_policies.verdict({"pi0": reported()}, "pi0", 0.95) == told


def test_a_stop_is_told_of_the_policy_that_was_not_made():
    table = {
        "pi1": {"stop": {"stop": False, "reason": ""}},
        "pi2": {"stop": {"stop": True, "reason": "kl 9 is over 5"}},
    }
    assert report_policies.stopped(table) == "Stopped before π2: kl 9 is over 5."
    assert report_policies.stopped({"pi0": {}, "pi1": table["pi1"]}) == ""


def test_a_reward_of_minus_nothing_is_nothing():
    _, lines = report_policies.monitored({"pi0": reported(kl=-0.0)})
    assert lines == [["π0 (SFT)", "1.00", "0.00", "9.00", "1.00"]]


def test_pairs_are_told_by_where_they_come_from():
    told = ["π1", "1.50", "200 and 251", "25%", "75% at 0.7, 25% at 1", "50% at 0.7, 50% at 1"]
    assert report_pairs.cells("pi1", audit()) == told and len(report_pairs.HEADER) == len(told)
    stopped = {"pi0": {}, "pi1": {"rank": {"audit": audit()}}, "pi2": {"rank": {"rows_out": 0, "audit": {}}}}
    assert list(report_pairs.audits(stopped)) == ["pi1"]


def test_a_set_is_told_with_its_drops_and_the_papers_count():
    told = report_data.cells("mine", prepared())
    assert told[4:] == ["10", "8", "5", "", "14, 47, 52", "25%", "tie 1, small_margin 2"]
    assert len(report_data.HEADER) == len(told)
    fact = prepared(revision="0123456789abcdef", paper_pairs=6, difference=-1, why="one was empty")
    del fact["rows_measured"]
    assert report_data.cells("mine", fact)[2:] == [
        "01234567", "", "10", "8", "5", "6 (-1: one was empty)", "", "", "tie 1, small_margin 2",
    ]  # fmt: skip
    header, (line,) = report_data.table({"mine": prepared()})
    assert not {"revision", "licence", "in the paper"} & set(header) and len(line) == len(header) == 8
    assert report_data.shares(prepared()) == {"kept": 0.625, "not_json": 0.0, "tie": 0.125, "small_margin": 0.25}
    assert report_data.shares({"pairs_kept": 0, "drops": {}}) == {"kept": 0.0}


def test_a_policy_stands_on_the_axis_where_its_number_is():
    """From 1 at the left end to 5 at the right: a number of 3 is in the middle, an end of 2 at a quarter."""
    tests = {"pi0": spread("gold_reward", 3.0, 1.0, 5.0), "pi1": spread("gold_reward", 3.0, 2.0, 4.0)}
    middle, quarter = (
        (report_overview.LEFT + report_overview.RIGHT) / 2,
        (report_overview.RIGHT - report_overview.LEFT) / 4,
    )
    first, second = report_overview.points(tests, "gold_reward")
    assert (first["low"], first["middle"], first["high"]) == (report_overview.LEFT, middle, report_overview.RIGHT)
    assert (second["low"], second["high"]) == (middle - quarter, middle + quarter)
    assert second["label"] == "π1" and second["told"] == "3.00 [2.00, 4.00]"
    (alone,) = report_overview.points({"pi0": {"proxy_reward": 1.0}}, "proxy_reward")
    assert alone["low"] == alone["high"] == report_overview.LEFT and alone["told"] == "1.00"


def test_the_picture_draws_every_policy_and_only_stages_that_there_are(written):
    text = (written / "overview.svg").read_text(encoding="utf-8")
    svg = xml.etree.ElementTree.fromstring(text)
    tag = "{http://www.w3.org/2000/svg}"
    assert len(svg.findall(f"{tag}circle")) == 4
    boxes = [element for element in svg if element.get("class") == "stage"]
    drawn = [svg[list(svg).index(box) + 1].text for box in boxes]
    graphs = [
        yaml.safe_load(file.read_text(encoding="utf-8"))
        for file in (*Path().glob("dvc.yaml"), *Path().glob("*/dvc.yaml"))
    ]
    stages = {stage for graph in graphs for stage in graph["stages"]}
    known = stages | {stage.partition("_")[0] for stage in stages}  # score: one stage a scorer
    assert len(drawn) == 20 and set(drawn) <= known
    assert "better than π0 and not shown to be better or worse than offline DPO" in " ".join(svg.itertext())


def test_a_template_wants_every_value_that_it_names():
    with pytest.raises(Exception, match="'verdict' is undefined"):
        html_pages.render("report.html.jinja", test={}, results={"header": [], "rows": [], "picture": ""})


def test_every_template_is_in_the_key_of_the_stage_that_reads_it():
    """The fingerprint sees the files that a module names in DATA_FILES."""
    named = []
    for module in ROOM.glob("*.py"):
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DATA_FILES":
                named += ast.literal_eval(node.value)
    assert sorted(named) == sorted(str(file.relative_to(ROOM)) for file in ROOM.glob("templates/*"))
