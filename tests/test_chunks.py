"""Rows through a worker: cut into chunks of whole prompts, each kept, none lost or done twice, whatever dies."""

import itertools
import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import rows, shards
from stages.guard import chunks, integrity
from stages.guard.params import load
from tests.counted import LENGTHS, ROWS, Counted, candidates, content, score, texts

ROOT = Path(__file__).resolve().parent.parent


prompts = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 5)), max_size=8, unique_by=lambda p: p[0])


@given(prompts, st.integers(1, 12))
def test_a_cut_holds_every_row_once_in_order_and_divides_no_prompt(numbers, most):
    given_rows = texts(*numbers)
    parts = shards.cut(given_rows, most)
    assert [row for part in parts for row in part] == given_rows
    homes = {name: {k for k, part in enumerate(parts) if any(row["id"] == name for row in part)} for name, _ in numbers}
    assert all(len(where) == 1 for where in homes.values())
    assert all(len(part) <= most or len({row["id"] for row in part}) == 1 for part in parts)
    for part, following in itertools.pairwise(parts):  # none could have taken the next prompt as well
        first = [row for row in following if row["id"] == following[0]["id"]]
        assert len(part) + len(first) > most


def test_rows_of_a_prompt_that_lie_apart_come_into_one_part():
    mixed = [*texts(("a", 1)), *texts(("b", 2)), {"id": "a", "sample": 1, "text": "a1"}]
    assert [[row["text"] for row in part] for part in shards.cut(mixed, 2)] == [["a0", "a1"], ["b0", "b1"]]


SCHEMA = pa.schema([("id", pa.string()), ("sample", pa.int32()), ("text", pa.string())])


@pytest.mark.parametrize(
    ("most", "names", "sizes"), [(4, 2, [4, 2]), (3, 3, [2, 2, 2]), (1, 3, [2, 2, 2]), (99, 1, [6])]
)
def test_shards_are_cut_by_rows_and_hold_a_prompt_at_least(tmp_path, most, names, sizes):
    assert shards.write(tmp_path / "s", ROWS, SCHEMA, most) == names
    files = shards.files(tmp_path / "s")
    assert [file.name for file in files] == [f"shard-{k:05d}.parquet" for k in range(names)]
    assert [pq.read_metadata(file).num_rows for file in files] == sizes
    assert shards.read(tmp_path / "s") == ROWS


def test_no_rows_make_one_empty_shard_and_a_folder_without_a_shard_is_an_error(tmp_path):
    assert shards.write(tmp_path / "s", [], SCHEMA, 4) == 1
    assert shards.read(tmp_path / "s") == [] and pq.read_schema(tmp_path / "s/shard-00000.parquet").equals(SCHEMA)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no shard; run `rm -rf \S+empty` and"):
        shards.read(tmp_path / "empty")


@given(prompts, prompts, st.integers(1, 12))
def test_every_row_has_its_own_result_whatever_the_chunks(tmp_path_factory, one, other, size):
    worker = Counted(tmp_path_factory.mktemp("log") / "log")
    parts = [texts(*one), texts(*other)]  # the same ids may stand in both: they are two prompts
    found = rows.mapped(parts, worker, "count", size)
    assert found == [[row | {"length": 2, "share": 1 / 3} for row in part] for part in parts]
    assert len(worker.begun()) == sum(len(shards.cut(part, size)) for part in parts if part)


def test_a_row_that_a_worker_loses_or_doubles_is_named_and_so_is_one_that_is_given_twice(tmp_path):
    loses, doubles = Counted(tmp_path / "log", lost="b1"), Counted(tmp_path / "log", twice="c0")
    for worker, told in ((loses, "b/1 went in 1 times and came out 0"), (doubles, "c/0 .* came out 2")):
        with pytest.raises(ValueError, match=f"row {told} times; this is a bug of the worker"):
            rows.mapped([ROWS], worker, "count", 2)
    with pytest.raises(ValueError, match="row a/0 stands 2 times among the 7 given"):
        rows.mapped([[*ROWS, ROWS[0]]], Counted(tmp_path / "log"), "count", 2)


def test_what_is_kept_is_not_done_again_and_no_model_is_loaded_for_it(home, tmp_path, capsys):
    first = Counted(tmp_path / "first")
    assert rows.mapped([ROWS], first, "count", 2) == [LENGTHS] and len(list(home.iterdir())) == 3
    again = Counted(tmp_path / "again")
    object.__setattr__(again, "load", None)  # to load it would be an error
    assert rows.mapped([ROWS], again, "count", 2) == [LENGTHS]
    assert "3 of 3 chunks were finished by an earlier run" in capsys.readouterr().out


def test_chunks_of_other_rows_another_question_or_another_run_are_not_taken(home, tmp_path, monkeypatch):
    worker = Counted(tmp_path / "log")
    rows.mapped([ROWS], worker, "count", 2)
    changed = [row | {"text": "long"} if row["text"] == "b0" else row for row in ROWS]
    assert rows.mapped([changed], worker, "count", 2)[0][2]["length"] == 4 and len(worker.begun()) == 4
    rows.mapped([ROWS], worker, "count something else", 2)
    assert len(worker.begun()) == 7
    monkeypatch.setenv("STAGE_KEY", "another")
    rows.mapped([ROWS], worker, "count", 2)
    assert len(worker.begun()) == 10
    monkeypatch.delenv("STAGE_KEY")
    before = sorted(home.parent.rglob("*"))
    assert rows.mapped([ROWS], worker, "count", 2) == [LENGTHS] and sorted(home.parent.rglob("*")) == before


@pytest.mark.parametrize("damage", ["cut short", "a flipped bit", "empty", "of other rows", "no columns"])
def test_a_damaged_chunk_is_named_and_done_again(home, tmp_path, capsys, damage):
    worker = Counted(tmp_path / "log")
    rows.mapped([ROWS], worker, "count", 2)
    file, other = sorted(home.iterdir())[:2]
    content = file.read_bytes()
    place = content.index(bytes(pa.array([1 / 3]).buffers()[1])[:8])  # of a value on a page of data
    spoilt = {
        "cut short": content[: len(content) // 2],
        "a flipped bit": content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :],
        "empty": b"",
        "of other rows": other.read_bytes(),
    }
    if damage == "no columns":
        pq.write_table(pa.table({"x": [1, 2]}), file)
    else:
        file.write_bytes(spoilt[damage])
    assert rows.mapped([ROWS], worker, "count", 2) == [LENGTHS]
    said = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(f"{file} is no whole chunk (") for line in said) == 1
    assert len(worker.begun()) == 4 and file.read_bytes() == content


def both(worker: Counted, ends: Any) -> None:
    ends.send(rows.mapped([ROWS], worker, "count", 2))


def test_two_runs_at_once_do_each_other_no_harm(home, tmp_path):
    worker, context = Counted(tmp_path / "log", seconds=0.2), multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(2)]
    runs = [context.Process(target=both, args=(worker, other)) for _, other in pipes]
    for run in runs:
        run.start()
    assert [ends.recv() for ends, _ in pipes] == [[LENGTHS], [LENGTHS]]
    for run in runs:
        run.join()
    assert len(list(home.iterdir())) == 3 and all(file.suffix == ".parquet" for file in home.iterdir())


def test_a_folder_that_the_other_runs_guard_takes_away_costs_nothing_but_the_chunks_in_it(home, tmp_path):
    class Cleared(Counted):
        def load(self) -> rows.Work:
            count = super().load()

            def cleared(asked: list[dict], tick: rows.Tick) -> list[dict]:
                shutil.rmtree(home, ignore_errors=True)
                return count(asked, tick)

            return cleared

    assert rows.mapped([ROWS], Cleared(tmp_path / "log"), "count", 2) == [LENGTHS] and len(list(home.iterdir())) == 1


def test_every_worker_can_be_described_to_another_machine(tmp_path, runtime):
    from stages.sampling import engine
    from stages.signals import batching, comparison, endpoint, judge, judging, pairwise, workers
    from stages.training import reference

    model, layout = Path("models/x"), batching.layout(runtime)
    served = endpoint.Served("name", 20, 4, "max_tokens", "http://x", 4)
    asked = judging.Judge(model, Path("t.jinja"), "float32", layout, served)
    for worker in (
        engine.Sampler(model, "float32", 1, 64, 80, False, "keep", engine.Layout(1, 0.5, 1, 1)),
        workers.Rewards(model, "float32", layout),
        workers.Logprobs(model, "float32", layout),
        comparison.Ranker(comparison.Local(model, pairwise.question, "float32", layout), "tournament"),
        comparison.Ranker(asked, "all_pairs"),
        judge.Preferences(asked),
        reference.Reference(model, "float32", False, layout),
    ):
        there = pickle.loads(pickle.dumps(worker))
        assert there == worker and there.columns.equals(worker.columns)


SCORER = """
import sys
from pathlib import Path
from types import SimpleNamespace
from stages.signals.scorers import reward_model
model, candidates, scores = map(Path, sys.argv[1:])
runtime = SimpleNamespace(threads=1, forward_batch_tokens=64)
reward_model.main(SimpleNamespace(dtype="float32", runtime=runtime), model, candidates, scores=scores)
"""


def test_a_scorer_that_is_killed_goes_on_and_ends_with_the_same_bytes(reward, tmp_path, home, monkeypatch, capsys):
    asked = candidates(tmp_path / "candidates", 768, 384)  # 6 chunks in two shards
    words = [sys.executable, "-c", SCORER, str(reward), str(asked), str(tmp_path / "killed")]
    run = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while run.poll() is None and len(list(home.glob("*.parquet"))) < 2:
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL and not (tmp_path / "killed").exists()
    kept = len(list(home.glob("*.parquet")))
    assert 2 <= kept < 6
    score(reward, asked, tmp_path / "resumed")
    assert f"reward_model: {kept} of 6 chunks were finished by an earlier run" in capsys.readouterr().out
    shutil.move(reward, tmp_path / "gone")  # all is kept now: a second scoring wants no model
    score(reward, asked, tmp_path / "again")
    monkeypatch.delenv("STAGE_KEY")
    score(tmp_path / "gone", asked, tmp_path / "undisturbed")
    for other in ("again", "undisturbed"):
        assert shards.read(tmp_path / "resumed") == shards.read(tmp_path / other), (
            other
        )  # names the first row that differs
        assert content(tmp_path / "resumed") == content(tmp_path / other)


def test_the_cut_of_shards_changes_no_score(reward, tmp_path):
    scores = []
    for most in (4, 20, 10_000):
        asked = candidates(tmp_path / f"candidates-{most}", 40, most)
        score(reward, asked, tmp_path / f"scores-{most}")
        scores.append(shards.read(tmp_path / f"scores-{most}"))
        names = [[file.name for file in shards.files(tmp_path / f"{kind}-{most}")] for kind in ("candidates", "scores")]
        assert names[0] == names[1] and len(names[0]) == max(1, 40 // most)
    assert scores[0] == scores[1] == scores[2] and len(scores[0]) == 40


def test_the_key_of_chunks_follows_what_decides_them_and_nothing_else(tmp_path):
    params = load(ROOT / "params.yaml")
    (tmp_path / "rows.parquet").write_bytes(b"rows")
    reads = {"reward": tmp_path / "rows.parquet", "iteration": "pi0"}

    def key(stage: str = "sampling.respond", **changes: Any) -> str:
        return chunks.key(stage, reads, params.model_copy(update=changes), ROOT)

    base = key()
    generate, runtime = (
        params.generate.model_copy(update={"max_new_tokens": 2}),
        params.runtime.model_copy(update={"threads": 1}),
    )
    assert key(runtime=runtime) == base and key(rank=params.rank.model_copy(update={"min_margin": 9.0})) == base
    assert len({base, key(generate=generate), key(seed=9), key(dtype="bfloat16"), key("signals.measure")}) == 5
    reads["iteration"] = "pi1"
    other = key()
    (tmp_path / "rows.parquet").write_bytes(b"other rows")
    assert len({base, other, key()}) == 3


def test_chunks_go_once_the_outputs_are_published_and_stay_while_they_are_not(tmp_path):
    folder = tmp_path / "rows/name"
    with pytest.raises(ValueError, match="no"), chunks.kept("name", tmp_path):
        assert (os.environ["STAGE_HOME"], os.environ["STAGE_KEY"]) == (str(tmp_path), "name")
        folder.mkdir(parents=True)
        raise ValueError("no")
    assert folder.exists() and "STAGE_KEY" not in os.environ
    with chunks.kept("name", tmp_path):
        pass
    assert not folder.exists()


@pytest.mark.parametrize("harm", ["edited", "removed", "added"])
def test_a_shard_that_was_edited_removed_or_added_by_hand_is_refused_by_name(tmp_path, monkeypatch, harm):
    monkeypatch.chdir(tmp_path)
    shards.write(Path("s"), ROWS, SCHEMA, 2)
    files = [{"md5": integrity.md5(file), "relpath": file.name} for file in shards.files(Path("s"))]
    wanted = integrity.digest(Path("s"))
    listing = integrity.CACHE / wanted[:2] / wanted[2:]
    listing.parent.mkdir(parents=True)
    listing.write_text(json.dumps(files), encoding="utf-8")
    integrity.check_recorded(Path("s"), wanted)
    victim = Path("s/shard-00001.parquet")
    if harm == "edited":
        pq.write_table(pa.Table.from_pylist(ROWS, SCHEMA), victim)
    elif harm == "removed":
        victim.unlink()
    else:
        shutil.copy(victim, "s/shard-00003.parquet")
    named = "s" if harm == "added" else str(victim)
    with pytest.raises(ValueError, match=rf"^{re.escape(named)} is damaged or edited: .* run `dvc checkout --force s`"):
        integrity.check_recorded(Path("s"), wanted)
