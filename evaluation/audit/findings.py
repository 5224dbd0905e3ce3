"""The findings of an audit in sentences: each names the reward, the figure, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from evaluation.audit.result import Audit, Pairing, RewardFigures
from evaluation.counters.names import BY_NAME
from evaluation.statistics.correlation import Correlation

MAX_FAILED = 0.05
MAX_TIES = 0.2
MAX_FLAT_GROUPS = 0.2
MIN_GROUP_SIZE = 8  # candidates per prompt of the published group methods
MAX_COUNTER_CORRELATION = 0.2
MAX_TRUTH_WINS = 0.9


def findings(audit: Audit) -> list[str]:
    """Return a sentence for each finding, the general ones first."""
    return [
        *_group_findings(audit),
        *_blind_modalities(audit),
        *_truth_findings(audit),
        *(text for reward in audit.rewards for text in _reward_findings(reward)),
        *(text for pairing in audit.correlations if (text := _pairing_finding(pairing))),
    ]


def _group_findings(audit: Audit) -> Iterator[str]:
    small = sum(size < MIN_GROUP_SIZE for size in audit.group_sizes)
    if small:
        yield (
            f"{small} of {len(audit.group_sizes)} prompts have fewer than {MIN_GROUP_SIZE} candidates (the smallest "
            f"{audit.group_sizes[0]}): means and deviations of such groups are noise. Sample {MIN_GROUP_SIZE} or more."
        )


def _blind_modalities(audit: Audit) -> Iterator[str]:
    for modality, sense in (("video", "pictures"), ("audio", "sounds")):
        columns = [column for column in audit.columns if column.modality == modality]
        if columns and all(column.sees_prompt is False for column in columns):
            yield (
                f"{modality}: {', '.join(column.name for column in columns)} never see the prompt. Such a reward can "
                f"rise while the {sense} become noise: add one that compares them with the prompt."
            )


def _truth_findings(audit: Audit) -> Iterator[str]:
    if audit.truth_wins is not None and audit.truth_wins >= MAX_TRUTH_WINS:
        yield (
            f"ground truth is better than every candidate in {audit.truth_wins:.0%} of the prompts: as a candidate it "
            "teaches real against generated, not better against worse. Set ground_truth to never."
        )


def _reward_findings(reward: RewardFigures) -> Iterator[str]:
    if reward.failed == 1:
        yield f"{reward.name}: all scores failed. Score again, or leave the reward out."
        return
    if reward.failed > MAX_FAILED:
        yield (
            f"{reward.name}: {reward.failed:.1%} of the scores failed. A failed score is no low score: see the reasons "
            "in the scores table, and leave these candidates out of training."
        )
    if (reward.flat_groups or 0) > MAX_FLAT_GROUPS:
        yield f"{reward.name}: {reward.flat_groups:.0%} of the prompts have no variance, and teach nothing about it."
    elif (reward.ties or 0) > MAX_TIES:
        yield f"{reward.name}: {reward.ties:.0%} of the pairs within prompts are ties, which it cannot order."


def _pairing_finding(pairing: Pairing) -> str | None:
    one = pairing.correlation
    if one.pearson is None or one.low is None or one.high is None:
        return None
    if pairing.kind == "rewards":
        if one.high < 0:
            return (
                f"{pairing.first} and {pairing.second} pull apart: {_figures(one)}. What one gains the other loses: "
                "train without one of them, or weigh the one that matters more."
            )
    elif one.low > MAX_COUNTER_CORRELATION or one.high < -MAX_COUNTER_CORRELATION:
        counter = BY_NAME[pairing.second]
        effect = counter.more if one.pearson > 0 else counter.less
        return (
            f"{pairing.first} pays for {effect}: {_figures(one)} with {pairing.second}. A training may exaggerate it: "
            f"watch {pairing.second} in evaluation.compare."
        )
    return None


def _figures(one: Correlation) -> str:
    return f"r {one.pearson:+.2f} ({one.low:+.2f} .. {one.high:+.2f}; of ranks {one.spearman:+.2f}) within prompts"
