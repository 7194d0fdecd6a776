"""Which preference losses TRL combines, and which options each of them reads: what it would refuse, ignore or count
twice is refused here, before a model loads.

Source  TRL's DPOTrainer, CPOTrainer, ORPOTrainer and KTOTrainer
"""

from typing import Any

CONTRASTS = {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop"}
"""Losses of the difference between the two sides, where other divergences than the reverse KL are defined."""
REFERENCE_FREE = {"simpo", "cpo", "orpo"}
ALONE = REFERENCE_FREE | {"kto"}
"""Losses with a trainer of their own, which combines with no other."""
SMOOTHED = {"robust", "exo_pair", "aot", "aot_unpaired", "simpo", "cpo"}
SORTED = {"aot", "aot_unpaired"}
"""Losses that sort the rows of a micro-batch."""


def check(section: Any) -> None:
    """Raise ValueError for a section `dpo` whose losses do not go together, or with an option that none of them
    reads.
    """
    check_combination(section)
    check_divergence(section)
    check_options(section)
    if "exo_pair" in section.loss and not section.label_smoothing:
        raise ValueError("label_smoothing = 0.0 makes exo_pair infinite; its paper takes 1e-3")


def check_combination(section: Any) -> None:
    """Raise ValueError for losses without weights of their own, or that stand together and cannot."""
    losses, weights = set(section.loss), section.loss_weights
    if len(weights) != len(section.loss) or len(losses) < len(section.loss):
        rule = f"must hold one weight for each loss of {section.loss}, each loss once"
        raise ValueError(f"loss_weights = {weights} {rule}")
    if losses & ALONE and (len(losses) > 1 or weights != [1.0]):
        rule = "has a trainer of its own in TRL: it stands alone, with weight 1.0"
        raise ValueError(f"loss {min(losses & ALONE)} {rule}; this is {section.loss}")
    if losses == {"sft"}:
        raise ValueError("loss sft alone learns no preference; put it beside another loss, such as [sigmoid, sft]")


def check_divergence(section: Any) -> None:
    """Raise ValueError for a divergence that a loss does not know, or that is the reverse KL by another name."""
    divergence, unfit = section.f_divergence, set(section.loss) - CONTRASTS - {"sft"}
    if divergence != "reverse_kl" and unfit:
        remedy = f"set it to reverse_kl or take one of {sorted(CONTRASTS)}"
        raise ValueError(f"f_divergence = {divergence} is not defined for {min(unfit)}; {remedy}")
    if divergence == "alpha_divergence" and section.f_alpha == 1.0:
        rule = "makes alpha_divergence the reverse KL, the plain loss"
        raise ValueError(f"f_alpha = 1.0 {rule}; take another, or f_divergence = reverse_kl")


def check_options(section: Any) -> None:
    """Raise ValueError for an option that is set although no loss named reads it: TRL says nothing and ignores it."""
    losses = set(section.loss)
    by_alpha = section.f_divergence == "alpha_divergence"
    options = [  # name, the value that changes nothing, whether it is read, by what
        ("label_smoothing", 0.0, losses & SMOOTHED, f"one of {sorted(SMOOTHED)}"),
        ("f_alpha", 0.5, by_alpha, "f_divergence = alpha_divergence"),
        ("ld_alpha", None, not losses & ALONE, f"none of {sorted(ALONE)}"),
        ("discopop_tau", 0.05, "discopop" in losses, "discopop"),
        ("simpo_gamma", 0.5, "simpo" in losses, "simpo"),
        ("lora_alpha", 16.0, section.lora_rank, "lora_rank over 0"),
    ]
    for name, default, is_read, reader in options:
        value = getattr(section, name)
        if value != default and not is_read:
            rule = f"is ignored by the loss {section.loss}: it needs {reader}"
            raise ValueError(f"{name} = {value} {rule}; set it back to {default}")
