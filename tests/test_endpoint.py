"""A judge behind an endpoint that misbehaves in every way endpoints do; test_scorers.py asks a real one (vLLM)."""

import json

import pytest

from stages.signals import endpoint
from tests.conftest import StandIn, serving

QUESTIONS = ["one", "two", "three"]


def reply(text: str, tokens: list[tuple[str, float]] | None = None) -> dict:
    """A chat completion as the API defines it."""
    likely = [{"token": t, "logprob": p, "bytes": None} for t, p in tokens or []]
    logprobs = {"content": [likely[0] | {"top_logprobs": likely}], "refusal": None} if likely else None
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
        "logprobs": logprobs,
    }
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """An endpoint whose behaviour is a function of the question and of how often it was asked; the questions it got
    are in `asked`.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STAGE_HOME", raising=False)
    monkeypatch.setattr(endpoint, "RETRIES", 1)
    monkeypatch.setattr(endpoint, "TIMEOUT", 2.0)
    asked: list[str] = []
    bodies: list[dict] = []
    behaviour: dict = {}

    class Handler(StandIn):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = body["messages"][0]["content"]
            asked.append(question)
            bodies.append(body)
            status, content = behaviour["of"](question, asked.count(question))
            if status is None:
                return  # says nothing, hangs up
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

    with serving(Handler) as here:

        def ask(of, questions=QUESTIONS, url=f"{here}/v1", max_tokens=4, limit_by="max_tokens"):
            behaviour["of"] = of
            served = endpoint.Served("judge/model", 20, max_tokens, limit_by, url, 2)
            return endpoint.asker(served, str)(questions)

        ask.url, ask.bodies = f"{here}/v1", bodies
        yield ask, asked


A = reply("A", [("A", -0.1), ("B", -2.4)])


def test_the_verdict_is_read_from_the_log_probabilities_of_the_letters():
    assert endpoint.verdict(
        {"text": "B", "tokens": [("A", -1.0), (" A", -1.0), ("B", -1.0), ("The", -0.1)]}
    ) == pytest.approx(2 / 3)
    assert endpoint.verdict({"text": "", "tokens": [("B", -3.0)]}) == 0.0


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A", 1.0),
        ("**B**", 0.0),
        ("Answer B is better", 0.0),
        ("[[A]]", 1.0),
        ("Both are good", None),
        ("", None),
        ("Although", None),
        ("A better answer", None),
    ],
)
def test_without_log_probabilities_it_is_read_from_the_text_or_not_at_all(text, wanted):
    assert endpoint.verdict({"text": text, "tokens": []}) == wanted


def test_the_verdict_of_a_judge_that_thinks_first_stands_behind_its_thinking(serve):
    from types import SimpleNamespace

    thought = {"text": "<think>\nA is long, B is right.\n</think>\n\nB", "tokens": []}
    assert endpoint.verdict(thought) == 0.0 and endpoint.verdict({"text": "<think>A", "tokens": []}) is None
    likely = {"A": -1.0, "B": -1.0}
    tokens = [
        SimpleNamespace(token=token, top_logprobs=[SimpleNamespace(token=t, logprob=p) for t, p in found.items()])
        for token, found in (
            ("<think>", {"<think>": 0.0}),
            ("A", {"A": 0.0}),
            ("</think>", {}),
            ("\n\n", {}),
            ("B", likely),
        )
    ]
    assert [t.token for t in endpoint.at_the_verdict(tokens)] == ["A", "B"]
    assert [t.token for t in endpoint.at_the_verdict(tokens[:2])] == ["<think>"]
    assert [t.token for t in endpoint.at_the_verdict([tokens[-1]])] == ["A", "B"] and not endpoint.at_the_verdict([])


def test_a_judge_whose_first_answers_cannot_be_read_is_asked_no_more(serve):
    ask, asked = serve
    told = (
        r"none of the first \d+ answers holds a verdict; the last is '<think>Well'; mend the judge's template, or raise"
    )
    with pytest.raises(ValueError, match=told):
        ask(lambda question, times: (200, reply("<think>Well")), [str(k) for k in range(200)])
    assert len(asked) <= endpoint.MOST_UNREADABLE + 4  # those in flight are still paid for


def test_another_endpoint_and_another_setting_are_another_judge(serve):
    ask, asked = serve
    for changes in ({}, {"max_tokens": 99}, {"limit_by": "max_completion_tokens"}):
        asked.clear()
        assert ask(lambda question, times: (200, A), **changes) and len(asked) == 3
    assert "max_tokens" not in ask.bodies[-1] and ask.bodies[-1]["max_completion_tokens"] == 4
    asked.clear()
    assert ask(lambda question, times: (200, A), url=ask.url + "/") and asked == []
    assert ask(lambda question, times: (200, A), url=ask.url.replace("127.0.0.1", "localhost")) and len(asked) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again(serve, status):
    ask, asked = serve
    found = ask(lambda question, times: (200, A) if times > 1 else (status, {"error": {"message": "busy"}}))
    assert found == pytest.approx([0.9089] * 3, abs=1e-3) and len(asked) == 6


@pytest.mark.parametrize("content", [b"<html>garbage", {"choices": []}, {"object": "error"}, None])
def test_an_endpoint_that_talks_nonsense_or_hangs_up_ends_the_stage_with_what_it_said_and_keeps_what_was_paid_for(
    serve, content
):
    ask, asked = serve
    with pytest.raises(
        ValueError,
        match=r"of 3 questions got no answer from http://.*; "
        r"1 answers are kept in \.scratch/judge/judge_model\.jsonl, run again",
    ):
        ask(lambda question, times: (200, A) if question == "one" else (None if content is None else 200, content))
    asked.clear()
    assert ask(lambda question, times: (200, A)) == pytest.approx([0.9089] * 3, abs=1e-3)
    assert sorted(asked) == ["three", "two"]  # the first was answered, and paid for, before


def test_one_lost_answer_of_many_is_a_question_without_a_verdict(serve):
    ask, _ = serve
    questions = [str(k) for k in range(100)]
    found = ask(
        lambda question, times: (500, {}) if question == "7" else (200, reply("hm")) if question == "8" else (200, A),
        questions,
    )
    assert [k for k, p in enumerate(found) if p is None] == [7, 8]


@pytest.mark.parametrize(("status", "told"), [(401, "no such key"), (404, "no such model"), (400, "no logprobs here")])
def test_a_refusal_that_no_retry_can_mend_is_one_line_at_once(serve, status, told):
    ask, asked = serve
    with pytest.raises(
        ValueError,
        match=rf"http://.* refuses the judge judge/model: .*{told}.*; "
        r"mend runtime\.judge_url, judge\.served or the key",
    ):
        ask(lambda question, times: (status, {"error": {"message": told}}))
    assert len(asked) <= 3


def test_a_journal_that_was_cut_off_by_a_kill_costs_its_last_line_only(serve, tmp_path):
    ask, asked = serve
    ask(lambda question, times: (200, A))
    journal = tmp_path / ".scratch/judge/judge_model.jsonl"
    journal.write_text(journal.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    asked.clear()
    assert ask(lambda question, times: (200, A)) == pytest.approx([0.9089] * 3, abs=1e-3) and len(asked) == 1
    asked.clear()
    ask(lambda question, times: (500, {}))
    assert asked == []


def test_the_same_question_is_paid_for_once(serve):
    ask, asked = serve
    assert len(ask(lambda question, times: (200, A), ["one"] * 5)) == 5 and asked == ["one"]


def test_the_journal_lies_in_the_home_that_survives_where_there_is_one(serve, tmp_path, monkeypatch):
    ask, _ = serve
    monkeypatch.setenv("STAGE_HOME", str(tmp_path / "home"))
    ask(lambda question, times: (200, A))
    assert len((tmp_path / "home/judge/judge_model.jsonl").read_text(encoding="utf-8").splitlines()) == 3
    assert not (tmp_path / ".scratch").exists()
