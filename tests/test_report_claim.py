"""The claim, the prompts that it would take, and over-optimisation, on numbers worked by hand."""

import pytest

from stages.evaluation import report_claim, report_optimisation


def test_an_interval_of_two_reaches_further_by_the_ratio_of_the_quantiles():
    """2.2414 / 1.9600 = 1.1436 at 95 %: arms of 0.8 and 1.0 become 0.9149 and 1.1436."""
    assert report_claim.quantile(0.95) == pytest.approx(1.9600, abs=1e-4)
    assert report_claim.joint_quantile(0.95) == pytest.approx(2.2414, abs=1e-4)
    assert report_claim.widened(1.0, [0.2, 2.0], 0.95) == pytest.approx([0.0851, 2.1436], abs=1e-4)


def gains(over_pi0: list[float], over_offline: list[float]) -> dict:
    """Gains in the middle of their intervals."""
    middle = lambda ends: sum(ends) / 2  # noqa: E731
    return {
        "prompts": 100,
        "gain": middle(over_pi0),
        "gain_interval": over_pi0,
        "over_offline": middle(over_offline),
        "over_offline_interval": over_offline,
    }


@pytest.mark.parametrize(
    ("over_pi0", "over_offline", "told", "says"),
    [
        ([1.0, 2.0], [0.5, 1.5], "Held: π2 is better than π0 (SFT) and offline DPO", ["held", "held"]),
        (  # alone above 0, not as one of two: 1 - 0.9 * 1.1436 = -0.03
            [1.0, 2.0],
            [0.1, 1.9],
            "Not told apart: the difference of π2 from offline DPO may be 0",
            ["held", "not told apart"],
        ),
        ([-1.0, 2.0], [-3.0, -1.0], "Refuted: π2 is worse than offline DPO", ["not told apart", "refuted"]),
    ],
)
def test_the_claim_is_held_where_both_are_and_refuted_where_one_is(over_pi0, over_offline, told, says):
    found = report_claim.claim("pi2", gains(over_pi0, over_offline), 0.95)
    assert found["verdict"] == f"{told}, by intervals that hold together with 95 %."
    assert [row[4] for row in found["rows"]] == says


def test_without_gold_the_claim_is_the_judges_and_a_half_is_neither_way():
    judge = {"judge_win_rate": 0.75, "judge_win_rate_interval": [0.65, 0.85]}
    judge |= {"judge_over_offline": 0.25, "judge_over_offline_interval": [0.15, 0.35], "prompts": 9}
    found = report_claim.claim("pi1", judge, 0.95)
    assert found["rows"][0][:5] == ["online over π0 (SFT)", "+0.25", "[+0.15, +0.35]", "[+0.14, +0.36]", "held"]
    assert found["rows"][0][1:] == found["rows"][1][1:]


def test_what_was_not_compared_is_not_tested():
    assert report_claim.claim("pi1", {"prompts": 9}, 0.95)["verdict"].startswith("Not tested: there is no gold reward")
    found = report_claim.claim("pi0", gains([0.0, 0.0], [-2.0, -1.0]), 0.95)
    assert found["rows"] == [] and found["verdict"].startswith("Not tested: no online policy")


def test_prompts_are_counted_from_the_width_of_the_interval():
    """100 prompts, an interval 4 * 0.98 / 2 wide: a standard error of 0.5. 100 prompts show (2.2414 + 0.8416) * 0.5 =
    1.5415 at 80 % power; half of the difference found, 1, takes 100 * 1.5415^2 = 237.6 of them.
    """
    found = report_claim.claim("pi2", gains([1.02, 2.98], [-0.98, 0.98]), 0.95)
    assert [row[5:] for row in found["rows"]] == [["1.54", "238"], ["1.54", ""]]  # no number for half of nothing
    constant = report_claim.claim("pi2", gains([1.0, 1.0], [1.0, 1.0]), 0.95)
    assert constant["rows"][0][5:] == ["0.00", ""]  # nor from prompts that do not differ


def test_wins_are_told_beside_the_means_and_only_where_a_gold_reward_is_known():
    test = {"win_rate": 0.6855, "win_rate_interval": [0.6328, 0.7383]}
    test |= {"win_rate_over_offline": 0.5508, "win_rate_over_offline_interval": [0.4922, 0.6074]}
    told = "Answer by answer, π2 wins 69% over π0 (SFT) [63%, 74%] and 55% over offline DPO [49%, 61%]"
    assert report_claim.wins("pi2", test) == told
    assert report_claim.wins("pi2", {"judge_win_rate": 0.75}) == ""


def policy(proxy: float, gold: float) -> dict:
    agrees = {"proxy_agrees": 0.75, "proxy_agrees_interval": [0.7, 0.8]}
    return {"test": {"proxy_reward": proxy, "gold_reward": gold} | agrees}


def test_over_optimised_is_where_the_proxy_rises_and_gold_does_not():
    table = {"pi0": policy(1.0, 2.0), "offline": policy(9.0, 0.0), "pi1": policy(1.5, 3.0), "pi2": policy(2.0, 2.9)}
    found = report_optimisation.optimisation(table, 0.95)
    assert found["rows"] == [
        ["π0 to π1", "+0.50", "+1.00", "both rise", "0.75 [0.70, 0.80]"],
        ["π1 to π2", "+0.50", "-0.10", "over-optimised", "0.75 [0.70, 0.80]"],
    ]
    told = "Over-optimised: the proxy rises and the gold reward does not from π1 to π2 (+0.50, gold -0.10)."
    assert found["sentence"] == told
    table["pi2"] = policy(1.5, 2.0)
    assert report_optimisation.optimisation(table, 0.95)["sentence"].startswith(
        "No over-optimisation is seen: wherever"
    )
    table["pi1"] = policy(1.0, 1.0)
    table["pi2"] = policy(0.5, 9.0)
    assert report_optimisation.optimisation(table, 0.95)["sentence"] == "The proxy rises in no iteration."


def test_over_optimisation_is_not_spoken_of_where_no_gold_is_known():
    table = {"pi0": {"test": {"proxy_reward": 1.0}}, "pi1": {"test": {"proxy_reward": 2.0}}}
    assert report_optimisation.optimisation(table, 0.95)["sentence"] == ""
