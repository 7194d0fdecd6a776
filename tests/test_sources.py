"""Sources: rows in each set's own raw form, one per rule and per known trap; and what any raw file may do to us."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.data import pair_format
from stages.data.sources import (
    argilla_math,
    capybara,
    code_ultrafeedback,
    helpsteer,
    hh_rlhf,
    nectar,
    open_orca,
    own,
    pku_saferlhf,
    quickstart,
    shp,
    summarize,
    ultrafeedback,
    ultrainteract,
)  # fmt: skip


def prepared(source: Any, records: list[dict], folder: Path, **rule) -> tuple[list[dict], dict]:
    """The pairs of the records, and the drops; the same from JSON lines, gzipped or not, and from parquet."""
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "raw.jsonl").write_text(text, encoding="utf-8")
    with gzip.open(folder / "raw.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    pq.write_table(pa.Table.from_pylist(records), folder / "raw.parquet")
    found = []
    for name in ("raw.jsonl", "raw.jsonl.gz", "raw.parquet"):
        out = folder / "out.parquet", folder / "out.json"
        source.main(None, "s", folder / name, **rule, preferences=out[0], metrics=out[1])
        told = json.loads(out[1].read_text(encoding="utf-8"))
        assert told["rows_in"] == told["rows_out"] + sum(told["drops"].values()) and told["rows_read"] == len(records)
        assert pq.read_schema(out[0]) == pair_format.SCHEMA
        found.append((pq.read_table(out[0]).to_pylist(), told["drops"]))
    assert found[0] == found[1] == found[2]
    return found[0]


def told(pair: dict) -> tuple[str, str, str, float | None]:
    """Prompt, chosen, rejected as texts, and the margin."""
    return (
        " | ".join(m["content"] for m in pair["prompt"]),
        pair["chosen"][0]["content"],
        pair["rejected"][0]["content"],
        pair["margin"],
    )


def test_hh_pairs_share_their_context_and_differ_in_the_last_answer(tmp_path):
    start = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: a joke?\n\nAssistant:"
    records = [
        {"chosen": f"{start} Knock knock.", "rejected": f"{start} No."},
        {"chosen": f"{start} Same.", "rejected": f"{start}  Same. "},
        {"chosen": f"{start} A", "rejected": start.replace("joke", "poem") + " B"},
        {"chosen": "\n\nHuman: hi", "rejected": f"{start} B"},
        {"chosen": f"{start} A\n\nHuman: and?", "rejected": f"{start} A\n\nHuman: or?"},
    ]
    pairs, drops = prepared(hh_rlhf, records, tmp_path)
    assert [told(p) for p in pairs] == [("hi | hello | a joke?", "Knock knock.", "No.", None)]
    assert [m["role"] for m in pairs[0]["prompt"]] == ["user", "assistant", "user"]
    assert drops == {"same_answer": 1, "context_differs": 1, "not_a_transcript": 1, "no_answer": 1}


def post(k: int, a: int, b: int, label: int = 1, post_id: str = "p") -> dict:
    texts = {"post_id": post_id, "history": "post", "human_ref_A": f"A{k}", "human_ref_B": f"B{k}"}
    votes = {"labels": label, "score_A": a, "score_B": b}
    return texts | votes | {"c_root_id_A": f"a{k}", "c_root_id_B": f"b{k}"}


def test_shp_wants_more_than_twice_the_votes_and_at_most_so_many_pairs_of_a_post(tmp_path):
    strict = [post(0, 4, 2), post(1, 5, 2), post(2, 2, 5, label=0), post(3, 5, 2, label=2), post(4, 5, 0)]
    pairs, drops = prepared(shp, strict, tmp_path, min_ratio=2.0, pairs_per_post=5)
    assert [told(p) for p in pairs] == [("post", "A1", "B1", 2.5), ("post", "B2", "A2", 2.5)]
    assert drops == {"small_ratio": 1, "label_out_of_range": 1, "no_votes": 1}
    many = [post(k, 9, 1) for k in range(9)] + [post(k, 9, 1, post_id="other") for k in range(3)]
    pairs, drops = prepared(shp, many, tmp_path, min_ratio=2.0, pairs_per_post=5)
    again, _ = prepared(shp, many[::-1], tmp_path, min_ratio=2.0, pairs_per_post=5)
    assert len(pairs) == 8 and drops == {"over_pairs_per_post": 4}
    assert sorted(told(p)[1:] for p in pairs) == sorted(told(p)[1:] for p in again)


def rated(prompt: str, response: str, *scores: int) -> dict:
    return {"prompt": prompt, "response": response} | dict(zip(helpsteer.ASPECTS, scores, strict=True))


def test_helpsteer_pairs_the_answers_of_a_prompt_by_the_mean_of_the_aspects(tmp_path):
    records = [
        rated("q", "x", 4, 4, 4, 0, 0),
        rated("q", "y", 1, 1, 1, 4, 4),
        rated("q", "z", 9, 0, 0, 0, 0),
        rated("alone", "w", 1, 1, 1, 1, 1),
    ]
    pairs, drops = prepared(helpsteer, records, tmp_path, aspects=["helpfulness", "correctness"])
    assert [told(p) for p in pairs] == [("q", "x", "y", 3.0)]
    assert drops == {"not_rated": 2, "too_few_answers": 1}


@pytest.mark.parametrize(
    ("safe", "better", "chosen"),
    [((True, False), 1, "0"), ((False, True), 0, "1"), ((True, True), 1, "1"), ((False, False), 0, "0")],
)
def test_pku_prefers_the_only_safe_answer_and_else_the_better_one(tmp_path, safe, better, chosen):
    record = {
        "prompt": "q",
        "response_0": "0",
        "response_1": "1",
        "is_response_0_safe": safe[0],
        "is_response_1_safe": safe[1],
        "better_response_id": better,
    }
    pairs, drops = prepared(pku_saferlhf, [record, record | {"better_response_id": 2}], tmp_path)
    assert told(pairs[0])[1] == chosen and drops == {"label_out_of_range": 1}


def test_ultrafeedback_makes_all_pairs_by_the_fine_grained_score_and_never_by_the_overall_one(tmp_path):
    answers = [
        {"response": r, "fine-grained_score": s, "overall_score": o}
        for r, s, o in (("a", 3.5, 1.0), ("b", 1.0, 10.0), ("c", 3.5, 9.0), ("d", 2.0, 2.0))
    ]
    pairs, drops = prepared(
        ultrafeedback,
        [{"instruction": "q", "completions": answers}, {"instruction": "p", "completions": answers[:1]}],
        tmp_path,
    )
    assert [told(p)[1:] for p in pairs] == [
        ("a", "b", 2.5),
        ("a", "c", 0.0),
        ("a", "d", 1.5),
        ("c", "b", 2.5),
        ("d", "b", 1.0),
        ("c", "d", 1.5),
    ]
    assert drops == {"too_few_answers": 1}


def test_in_code_ultrafeedback_na_never_wins_and_ten_is_more_than_nine(tmp_path):
    models = {"a": "N/A", "b": "10", "c": "9"}
    record = {"instruction": "q", "responses": [{"model": m, "response": m} for m in models],
              "annotations": [{"model": m, "rating": r} for m, r in reversed(models.items())]}  # fmt: skip
    pairs, drops = prepared(code_ultrafeedback, [record], tmp_path)
    assert [told(p)[1:] for p in pairs] == [("b", "c", 1.0)] and drops == {"not_rated": 2}


def test_ultrainteract_sides_share_the_trajectory(tmp_path):
    steps = [
        {"from": "user", "value": "q"},
        {"from": "assistant", "value": "step"},
        {"from": "user", "value": "observation"},
    ]
    records = [
        {"trajectory": steps, "chosen": "right", "rejected": "wrong"},
        {"trajectory": [{"from": "tool", "value": "x"}], "chosen": "c", "rejected": "r"},
    ]
    pairs, drops = prepared(ultrainteract, records, tmp_path)
    assert [told(p) for p in pairs] == [("q | step | observation", "right", "wrong", None)] and drops == {
        "unknown_role": 1
    }


def test_argilla_math_keeps_every_row(tmp_path):
    record = {
        "instruction": "1+1",
        "chosen_response": "2",
        "rejected_response": "3",
        "chosen_rating": 9.0,
        "rejected_rating": 7.0,
    }
    pairs, drops = prepared(argilla_math, [record, record | {"rejected_rating": 9.0}], tmp_path)
    assert [told(p)[3] for p in pairs] == [2.0, 0.0] and not drops


def test_open_orca_follows_its_publishers_advice(tmp_path):
    good = {
        "system": "be kind",
        "input": "q",
        "chosen": "c",
        "rejected": "r",
        "status": "unchanged",
        "chosen_score": 8.0,
        "in_gsm8k_train": False,
    }
    bad = [{"status": "tie"}, {"chosen_score": 7.5}, {"chosen_score": None}, {"in_gsm8k_train": True}]
    pairs, drops = prepared(
        open_orca, [good, good | {"system": " "}, *(good | change for change in bad)], tmp_path, min_chosen_score=8.0
    )
    assert [told(p)[0] for p in pairs] == ["be kind | q", "q"] and [m["role"] for m in pairs[0]["prompt"]] == [
        "system",
        "user",
    ]
    assert drops == {"tie": 1, "low_score": 1, "not_rated": 1, "in_gsm8k": 1}


def talk(*texts: str) -> list[dict]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def test_capybara_conversations_differ_in_the_last_answer(tmp_path):
    record = {
        "chosen": talk("q", "a", "q2", "good"),
        "rejected": talk("q", "a", "q2", "bad"),
        "chosen_rating": 5.0,
        "rejected_rating": 3.0,
    }
    pairs, drops = prepared(capybara, [record, record | {"rejected": talk("q", "b", "q2", "bad")}], tmp_path)
    assert [told(p) for p in pairs] == [("q | a | q2", "good", "bad", 2.0)] and drops == {"context_differs": 1}


def test_a_summary_is_chosen_by_its_number_of_posts_and_of_news(tmp_path):
    post = {"post": "text", "title": "t", "subreddit": "tifu", "article": None}
    news = {"post": None, "title": None, "subreddit": None, "article": "long news"}
    two = [{"text": "first"}, {"text": "second"}]
    records = [
        {"info": post, "summaries": two, "choice": 1},
        {"info": news, "summaries": two, "choice": 0},
        {"info": post, "summaries": two, "choice": 2},
    ]
    pairs, drops = prepared(summarize, records, tmp_path)
    assert [told(p)[1:3] for p in pairs] == [("second", "first"), ("first", "second")] and drops == {
        "label_out_of_range": 1
    }
    assert (
        told(pairs[0])[0] == "SUBREDDIT: r/tifu\n\nTITLE: t\n\nPOST: text\n\nTL;DR:"
        and told(pairs[1])[0] == "long news\n\nTL;DR:"
    )


@pytest.mark.parametrize("rejected", ["worst", "random"])
def test_nectar_sets_the_first_rank_against_another(tmp_path, rejected):
    answers = [{"answer": f"rank {k}", "rank": float(k)} for k in (3, 1, 7, 2)]
    records = [
        {"prompt": "\n\nHuman: hi\n\nAssistant: ", "answers": answers},
        {"prompt": "\n\nHuman: hi", "answers": answers},
    ]
    pairs, drops = prepared(nectar, records, tmp_path, rejected=rejected)
    prompt, chosen, worse, margin = told(pairs[0])
    assert (
        (prompt, chosen) == ("hi", "rank 1")
        and worse != "rank 1"
        and margin == float(worse[-1]) - 1
        and drops == {"not_a_transcript": 1}
    )
    assert rejected == "random" or worse == "rank 7"


def export(**changes) -> dict:
    return {
        "id": 1,
        "conversation": [{"from": "human", "value": "q"}],
        "responses": {"A": {"text": "a", "finish_reason": "stop"}, "B": {"text": "b", "finish_reason": "length"}},
        "annotation": {"choice": "B", "strength": 2},
    } | changes


def test_the_label_decides_which_response_is_chosen_and_the_finish_reason_travels_with_it(tmp_path):
    pairs, _ = prepared(quickstart, [export(), export(annotation={"choice": "tie", "strength": 1})], tmp_path)
    assert [told(p) for p in pairs] == [("q", "b", "a", 2.0), ("q", "a", "b", 0.0)]
    assert (pairs[0]["chosen_finished"], pairs[0]["rejected_finished"]) == (False, True)


@pytest.mark.parametrize(
    "changes",
    [
        {"responses": {"A": {"text": "a", "finish_reason": "stop"}}},
        {"annotation": {"choice": "C"}},
        {"conversation": None},
    ],
)
def test_a_record_of_the_wrong_form_is_an_error_that_names_it(tmp_path, changes):
    (tmp_path / "raw.jsonl").write_text(
        json.dumps(export()) + "\n" + json.dumps(export(id=77, **changes)) + "\n", encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"raw.jsonl: record 77 lacks"):
        quickstart.main(
            None, "s", tmp_path / "raw.jsonl", preferences=tmp_path / "p.parquet", metrics=tmp_path / "m.json"
        )


def test_the_shipped_annotations_have_one_broken_line(tmp_path):
    quickstart.main(
        None,
        "s",
        Path("data/raw/quickstart/annotations.jsonl"),
        preferences=tmp_path / "p.parquet",
        metrics=tmp_path / "m.json",
    )
    assert json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))["drops"] == {"not_json": 1}


FORMS = [
    ({"prompt": "q", "chosen": "c", "rejected": "r"}, ("q", "c", "r", None)),
    (
        {
            "prompt": talk("q"),
            "chosen": [{"role": "assistant", "content": "c"}],
            "rejected": [{"role": "assistant", "content": "r"}],
        },
        ("q", "c", "r", None),
    ),
    (
        {"chosen": talk("q", "a", "q2", "c"), "rejected": talk("q", "a", "q2", "r"), "margin": 0.5},
        ("q | a | q2", "c", "r", 0.5),
    ),
    ({"chosen": "\n\nHuman: q\n\nAssistant: c", "rejected": "\n\nHuman: q\n\nAssistant: r"}, ("q", "c", "r", None)),
    (
        {"prompt": "q", "chosen": "c", "rejected": "r", "chosen_score": 4.0, "rejected_score": 1.5, "id": "x"},
        ("q", "c", "r", 2.5),
    ),
    ({"prompt": "q", "response_a": "a", "response_b": "b", "preference": "B"}, ("q", "b", "a", None)),
    (
        {
            "prompt": "q",
            "messages": talk("one", "two", "three"),
            "response_a": "a",
            "response_b": "b",
            "preference": "tie",
        },
        ("one | two | three", "a", "b", 0.0),
    ),
]


@pytest.mark.parametrize(("record", "wanted"), FORMS)
def test_a_set_of_your_own_in_each_of_the_ecosystems_forms(tmp_path, record, wanted):
    pairs, drops = prepared(own, [record, record | ({"id": "y"} if "id" in record else {})], tmp_path)
    assert [told(p) for p in pairs] == [wanted, wanted] and not drops


ASKED, RIGHT, WRONG = (
    {"role": r, "content": c} for r, c in (("user", "Q?"), ("assistant", "good"), ("assistant", "bad"))
)


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (  # the most used binarised UltraFeedback: the question three times, and the chosen answer in `messages`
            {"prompt": "Q?", "chosen": [ASKED, RIGHT], "rejected": [ASKED, WRONG], "messages": [ASKED, RIGHT]}
            | {"score_chosen": 5.0, "score_rejected": 4.0},
            ("Q?", "good", "bad", 1.0),
        ),
        ({"prompt": "Q?", "chosen": [ASKED, RIGHT], "rejected": [ASKED, WRONG]}, ("Q?", "good", "bad", None)),
        (
            {"prompt": [ASKED], "chosen": talk("Q?", "a", "r", "c"), "rejected": talk("Q?", "a", "r", "d")},
            ("Q? | a | r", "c", "d", None),
        ),
        (
            {"prompt": talk("q", "a", "r"), "chosen": talk("r", "c"), "rejected": talk("r", "d")},
            ("q | a | r", "c", "d", None),
        ),
        (
            {"prompt": talk("q", "a"), "chosen": talk("r", "c"), "rejected": talk("r", "d")},
            ("q | a | r", "c", "d", None),
        ),
        (
            {"system": "S", "instruction": "q", "input": "x", "chosen": "c", "rejected": "d"},
            ("S | q\n\nx", "c", "d", None),
        ),
        ({"system": " ", "question": "q", "chosen": "c", "rejected": "d"}, ("q", "c", "d", None)),
        (
            {"prompt": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant:", "chosen": " c", "rejected": " d"},
            ("q | a | r", " c", " d", None),
        ),
        (
            {"conversations": [{"from": "human", "value": "q"}]}
            | {side: {"from": "gpt", "value": side} for side in ("chosen", "rejected")}
            | {"chosen-rating": 4, "rejected-rating": 2.5},
            ("q", "chosen", "rejected", 1.5),
        ),
        (
            {
                side: [{"from": "human", "value": "q"}, {"from": "gpt", "value": side}]
                for side in ("chosen", "rejected")
            },
            ("q", "chosen", "rejected", None),
        ),
    ],
)
def test_the_forms_that_people_have_are_read_without_the_answer_in_the_prompt(tmp_path, record, wanted):
    pairs, drops = prepared(own, [record], tmp_path)
    assert [told(p) for p in pairs] == [wanted] and not drops


def test_a_prompt_that_the_sides_do_not_hold_is_dropped_by_name_and_never_guessed(tmp_path):
    whole = {"chosen": [ASKED, RIGHT], "rejected": [ASKED, WRONG]}
    pairs, drops = prepared(own, [whole | {"prompt": "Q?"}, whole | {"prompt": "something else"}], tmp_path)
    assert len(pairs) == 1 and drops == {"prompt_differs": 1}


def test_a_score_that_is_no_number_is_a_margin_that_is_not_known(tmp_path):
    pair = {"prompt": "q", "chosen": "c", "rejected": "r", "rejected_score": 1.0}
    scores = (math.nan, math.inf, None, 3.0)
    pairs, _ = prepared(own, [pair | {"chosen_score": score} for score in scores], tmp_path)
    assert [p["margin"] for p in pairs] == [None, None, None, 2.0]


def test_a_field_that_only_some_lines_have_is_read_from_them(tmp_path):
    plain = {"id": 7, "prompt": "q", "response_a": "a", "response_b": "b", "preference": "A"}
    (tmp_path / "raw.jsonl").write_text(
        json.dumps(plain) + "\n" + json.dumps(plain | {"id": 8, "messages": talk("one", "two", "three")}) + "\n",
        encoding="utf-8",
    )
    own.main(None, "s", tmp_path / "raw.jsonl", preferences=tmp_path / "p.parquet", metrics=tmp_path / "m.json")
    assert [(p["id"], told(p)[0]) for p in pq.read_table(tmp_path / "p.parquet").to_pylist()] == [
        ("s-7", "q"),
        ("s-8", "one | two | three"),
    ]


def test_an_unknown_form_is_refused_with_its_fields(tmp_path):
    with pytest.raises(ValueError, match=r"raw.jsonl: fields \['question', 'answer'\] are none of the forms"):
        prepared(own, [{"question": "q", "answer": "a"}], tmp_path)


def prepare(raw: Path, source: Any = hh_rlhf) -> dict:
    source.main(None, "s", raw, preferences=raw.parent / "p.parquet", metrics=raw.parent / "m.json")
    return json.loads((raw.parent / "m.json").read_text(encoding="utf-8"))


GOOD = (
    json.dumps({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}).encode() + b"\n"
)


def test_lines_that_are_no_utf8_or_no_object_are_named_drops_and_cost_no_other_line(tmp_path):
    (tmp_path / "raw.jsonl").write_bytes(
        GOOD + b'{"chosen": "\xff\xfe", "rejected": "x"}\n' + b"[1, 2]\n" + GOOD[:40] + b"\n" + GOOD
    )
    told = prepare(tmp_path / "raw.jsonl")
    assert told["rows_out"] == 2 and told["drops"] == {"not_json": 3}


def test_half_of_a_surrogate_pair_is_a_named_drop_with_its_line(tmp_path, capsys):
    """JSON may write one, as a tool does that cuts texts in the middle of an emoji; no parquet file can hold it."""
    bad = GOOD.replace(b"Assistant: a", b"Assistant: good \\ud83d")
    for lines in (GOOD * 15 + bad + GOOD * 14, bad + GOOD * 29):
        (tmp_path / "raw.jsonl").write_bytes(lines)
        told = prepare(tmp_path / "raw.jsonl")
        assert told["rows_out"] == 29 and told["drops"] == {"lone_surrogate": 1}
        number = lines.splitlines().index(bad.strip()) + 1
        assert f"raw.jsonl:{number}: dropped, lone_surrogate" in capsys.readouterr().out


def test_a_number_that_is_too_large_is_named_with_its_line_and_field(tmp_path):
    lines = [json.dumps({"id": number, "prompt": "q", "chosen": "c", "rejected": "r"}) for number in (1, 2**70)]
    (tmp_path / "raw.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"raw.jsonl:2: own: id = {2**70} is no int64; mend or delete the line"):
        prepare(tmp_path / "raw.jsonl", own)


def test_texts_that_parquet_keeps_as_a_dictionary_are_texts(tmp_path):
    texts = {"prompt": ["q", "r", "q"], "chosen": ["c"] * 3, "rejected": ["d"] * 3}
    pq.write_table(pa.table({k: pa.array(v).dictionary_encode() for k, v in texts.items()}), tmp_path / "raw.parquet")
    prepare(tmp_path / "raw.parquet", own)
    pairs = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [told(pair) for pair in pairs] == [(q, "c", "d", None) for q in ("q", "r", "q")]


def test_a_folder_of_files_is_told_file_by_file_and_one_of_splits_is_refused(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.jsonl").write_bytes(GOOD * 2)
    (tmp_path / "raw/b.jsonl").write_bytes(GOOD * 3)
    assert prepare(tmp_path / "raw")["files"] == {"a": 2, "b": 3}
    (tmp_path / "raw/a.jsonl").rename(tmp_path / "raw/train.jsonl")
    (tmp_path / "raw/b.jsonl").rename(tmp_path / "raw/test.jsonl")
    told = "raw: test.jsonl and train.jsonl look like splits of one set; name one of them as raw, or rename them"
    with pytest.raises(ValueError, match=told):
        prepare(tmp_path / "raw")


def test_a_row_of_fifty_megabytes_goes_through_the_same_way_as_any_other(tmp_path):
    huge = json.dumps(
        {"chosen": "\n\nHuman: q\n\nAssistant: " + "a " * 25_000_000, "rejected": "\n\nHuman: q\n\nAssistant: b"}
    ).encode()
    (tmp_path / "raw.jsonl").write_bytes(GOOD + huge + b"\n" + GOOD)
    assert prepare(tmp_path / "raw.jsonl")["rows_out"] == 3


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("raw.jsonl", GOOD + GOOD[:30], "the last line has no end, the file is cut off"),
        ("raw.jsonl", b'{"chosen": "a"}\n', "hh_rlhf has no field 'rejected'"),
        ("raw.jsonl", GOOD + b'{"chosen": 3, "rejected": "b"}\n', r"raw.jsonl:2: hh_rlhf: chosen = 3 is no string"),
        (
            "raw.jsonl",
            GOOD + b'{"chosen": "a", "rejected": true}\n',
            r"raw.jsonl:2: hh_rlhf: rejected = True is no str",
        ),
        (
            "raw.jsonl",
            GOOD.decode().encode("utf-16"),
            "is UTF-16, and JSON lines are UTF-8; convert it: iconv -f UTF-16",
        ),
        ("raw.jsonl", GOOD.decode().encode("utf-16-le"), "is UTF-16, and JSON lines are UTF-8"),
        ("raw.jsonl.gz", gzip.compress(GOOD * 99)[:-20], "the file is cut off or damaged"),
        ("raw.parquet", b"PAR1 and no more", "not a whole parquet file"),
        ("raw.txt", GOOD, "0 files of .parquet, .jsonl, .jsonl.gz and 0 .json pins"),
        ("raw.json", b'{"dataset": "a/b", "split": "train", "revision": "main"}', "40-digit commit"),
        ("raw.jsonl", GOOD.replace(b"Human", b"human"), "1 rows of hh_rlhf, no pair; drops {'not_a_transcript': 1}"),
    ],
)
def test_a_raw_file_that_cannot_be_used_is_one_clear_error(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=told) as error:
        prepare(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"chosen": "a", "better": "b"}, "no field 'rejected'"),
        ({"chosen": "a", "rejected": [1]}, "hh_rlhf.rejected is list"),
    ],
)
def test_a_hub_schema_that_changed_names_set_field_and_revision(tmp_path, monkeypatch, schema, told):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: datasets.Dataset.from_list([schema]))
    (tmp_path / "pin.json").write_text(
        json.dumps({"dataset": "Anthropic/hh-rlhf", "split": "train", "revision": "a" * 40}),
        encoding="utf-8",
    )
    with pytest.raises(ValueError, match=f"Anthropic/hh-rlhf at {'a' * 40}: .*{told}"):
        prepare(tmp_path / "pin.json")


def test_a_hub_that_cannot_be_reached_names_the_set_and_the_way_round(tmp_path, monkeypatch):
    for place in ("datasets.config", "huggingface_hub.constants"):  # they read the variable when they are imported
        monkeypatch.setattr(f"{place}.HF_HUB_OFFLINE", True)
    (tmp_path / "pin.json").write_text(
        json.dumps({"dataset": "Anthropic/hh-rlhf", "split": "train", "revision": "a" * 40}),
        encoding="utf-8",
    )
    remedy = "go online, or download it elsewhere and name its folder"
    with pytest.raises(ValueError, match=rf"Anthropic/hh-rlhf at a{{40}} cannot be fetched .*; {remedy}"):
        prepare(tmp_path / "pin.json")


def test_a_small_hub_data_set_goes_the_same_way_as_its_files(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: datasets.Dataset.from_list([json.loads(GOOD)] * 3))
    (tmp_path / "pin.json").write_text(
        json.dumps(
            {
                "dataset": "Anthropic/hh-rlhf",
                "data_dirs": ["x", "y"],
                "split": "train",
                "revision": "a" * 40,
                "licence": "MIT",
            }
        ),
        encoding="utf-8",
    )
    told = prepare(tmp_path / "pin.json")
    assert (told["rows_read"], told["licence"], told["revision"], told["paper_pairs"]) == (6, "MIT", "a" * 40, 115_396)


HH = Path("../shared/data/preferences/hh_harmless_test_raw.jsonl.gz")


@pytest.mark.skipif(not HH.exists(), reason="the real HH file is not beside this checkout")
def test_the_real_hh_file_leaves_a_pair_or_a_name_for_every_row(tmp_path):
    hh_rlhf.main(None, "s", HH, preferences=tmp_path / "p.parquet", metrics=tmp_path / "m.json")
    told = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert told["rows_read"] == 2312 == told["rows_in"] and told["rows_out"] > 2200


def test_public_parquet_is_what_datasets_reads_and_writes_are_the_same_bytes(tmp_path):
    import datasets

    (tmp_path / "raw.jsonl").write_text(json.dumps(export()) + "\n", encoding="utf-8")
    for name in ("one", "two"):
        quickstart.main(
            None, "s", tmp_path / "raw.jsonl", preferences=tmp_path / f"{name}.parquet", metrics=tmp_path / "m.json"
        )
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "one.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded[0]["chosen"] == pq.read_table(tmp_path / "one.parquet").to_pylist()[0]["chosen"]
