"""The region term of LocalDPO against the release's numbers, and against its own definition."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from dpo.loss.av_dpo import av_dpo_loss
from dpo.loss.local_dpo import add_region_loss, region_error, region_loss, strength_weight
from tests.dpo.loss.test_av_dpo import BETA, SHAPES, make_batch
from tests.golden_files import Golden

GOLDEN = Golden("nft/local_dpo_loss.safetensors")
CASES = GOLDEN.metadata["cases"]
MASK_SIZES = {name: (1, *shape[1:]) for name, shape in SHAPES.items()}


def make_masks(num_pairs=3, share=0.4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    masks = {name: (torch.rand(num_pairs, *size, generator=generator) < share) for name, size in MASK_SIZES.items()}
    for mask in masks.values():
        mask.flatten(1)[:, 0] = True
    return {name: mask.float() for name, mask in masks.items()}


def strengths(num_pairs=3):
    return torch.linspace(0.75, 0.9, num_pairs)


@pytest.mark.parametrize("case", CASES)
def test_golden_release(case):
    """Errors, margins and the whole loss of the release, whose region term is over the batch."""
    settings, golden = CASES[case], {name: GOLDEN[f"{case}.{name}"] for name in ("policy", "reference", "mask", "eta")}
    target = GOLDEN[f"{case}.noise"] - GOLDEN[f"{case}.x0"]
    published = 0.75, 0.15
    if (settings["eta_min"], settings["eta_range"]) != published:  # y by other constants is y of another strength
        weight = strength_weight(golden["eta"], settings["eta_min"], settings["eta_range"])
        golden["eta"] = published[0] + (weight - 1) * published[1]
    inputs = [{"video": golden["policy"]}, {"video": golden["reference"]}, {"video": target}]
    options = {"beta": settings["beta"], "over": "batch"}
    region = region_loss(*inputs, {"video": golden["mask"]}, golden["eta"], fm_weight=0.0, **options)
    whole = av_dpo_loss(*inputs, beta=settings["beta"], fm_weight=0.0)

    out = {name: GOLDEN[f"{case}.out.{name}"].float() for name in ("inside_term", "inside_term_mask", "loss_dpo_mask")}
    for side, name in (("chosen", "w"), ("rejected", "l")):
        wanted = GOLDEN[f"{case}.out.model_losses_{name}_mask"].float()
        torch.testing.assert_close(region.metrics[f"region/error/{side}/video"], wanted, atol=1e-6, rtol=0)
        reference = region_error(golden["reference"], target, golden["mask"], golden["eta"], "batch").chunk(2)
        wanted = GOLDEN[f"{case}.out.ref_losses_{name}_mask"].float()
        torch.testing.assert_close(reference[side == "rejected"], wanted, atol=1e-6, rtol=0)
    tolerance = 1e-6 * settings["beta"]
    margins = region.metrics["region/margins/video"]
    torch.testing.assert_close(margins, out["inside_term_mask"], atol=tolerance, rtol=0)
    torch.testing.assert_close(whole.metrics["rewards/margins/video"], out["inside_term"], atol=tolerance, rtol=0)
    torch.testing.assert_close(region.loss, out["loss_dpo_mask"], atol=tolerance, rtol=0)

    loss = (
        settings["dpo_lambda"] * whole.loss
        + settings["mask_dpo_lambda"] * region.loss
        + settings["sft_lambda"] * whole.metrics["loss/fm/video"]
        + settings["sft_lambda_mask"] * region.metrics["region/error/chosen/video"]
    ).mean()
    torch.testing.assert_close(loss, GOLDEN[f"{case}.out.loss"].float(), rtol=1e-3, atol=0)


def test_loss_equals_the_written_out_equation_per_pair():
    policy, reference, target = make_batch(dtype=torch.float64)
    masks, strength = make_masks(), strengths()
    weights, fm_weight = {"video": 0.7, "audio": 1.3}, {"video": 0.1, "audio": 0.4}
    loss = region_loss(
        policy, reference, target, masks, strength, beta=BETA, modality_weights=weights, fm_weight=fm_weight
    ).loss
    for i in range(3):
        expected = 0.0
        for name in SHAPES:
            inside = masks[name][i].bool().expand(SHAPES[name])
            y = 1 + (strength[i].item() - 0.75) / 0.15

            def error(velocity, row, name=name, inside=inside, y=y):
                return y * (velocity[name][row] - target[name][row])[inside].square().mean()

            d = (error(policy, i) - error(policy, i + 3)) - (error(reference, i) - error(reference, i + 3))
            expected += weights[name] * (-F.logsigmoid(-BETA[name] / 2 * d) + fm_weight[name] * error(policy, i))
        torch.testing.assert_close(loss[i].double(), expected.double(), rtol=1e-5, atol=1e-8)


def test_outside_the_mask_nothing_counts():
    policy, reference, target = make_batch()
    masks, strength = make_masks(), strengths()
    spoiled = {name: value + 9 * (1 - masks[name].repeat(2, *[1] * (value.ndim - 1))) for name, value in policy.items()}
    losses = [region_loss(one, reference, target, masks, strength, beta=BETA).loss for one in (policy, spoiled)]
    torch.testing.assert_close(*losses)


def test_over_the_batch_a_small_region_counts_less():
    policy, _, target = make_batch(num_pairs=2)
    masks = {"audio": torch.ones(2, *MASK_SIZES["audio"])}
    masks["audio"][0].flatten()[1:] = 0
    errors = [
        region_error(policy["audio"], target["audio"], masks["audio"], torch.tensor([0.75, 0.75]), over)
        for over in ("sample", "batch")
    ]
    cells = masks["audio"][0].numel()
    ratio = errors[1] / errors[0]
    expected = torch.tensor([1.0, cells]) * 2 / (cells + 1)
    torch.testing.assert_close(ratio, expected.repeat(2))


def test_batch_of_one_pair_is_the_same_by_both_rules():
    batch, masks = make_batch(num_pairs=1), make_masks(num_pairs=1)
    losses = [region_loss(*batch, masks, strengths(1), beta=BETA, over=over).loss for over in ("sample", "batch")]
    torch.testing.assert_close(*losses)


def test_winner_is_preserved_inside_the_region():
    """A scale of 0 takes the loser's gradient away; the value stays."""
    policy, reference, target = make_batch()
    for value in policy.values():
        value.requires_grad_()
    options = {"beta": BETA, "fm_weight": 0.0}
    plain = region_loss(policy, reference, target, make_masks(), strengths(), **options).loss
    limited = region_loss(
        policy, reference, target, make_masks(), strengths(), winner_preserving_mu=1.0, **options
    ).loss
    torch.testing.assert_close(plain, limited)
    gradients = [torch.autograd.grad(loss.sum(), policy["video"])[0].chunk(2) for loss in (plain, limited)]
    torch.testing.assert_close(gradients[0][0], gradients[1][0])
    assert (gradients[1][1].flatten(1).norm(dim=1) <= gradients[0][1].flatten(1).norm(dim=1) + 1e-9).all()


def test_policy_equal_to_reference_gives_log_2_per_masked_modality():
    policy, _, target = make_batch()
    masks = make_masks()
    loss = region_loss(policy, policy, target, masks, strengths(), beta=BETA, fm_weight=0.0).loss
    torch.testing.assert_close(loss, torch.full((3,), 2 * math.log(2)))
    video = {"video": masks["video"]}
    loss = region_loss(policy, policy, target, video, strengths(), beta=BETA, fm_weight=0.0).loss
    torch.testing.assert_close(loss, torch.full((3,), math.log(2)))


def test_term_is_added_with_its_weight_and_the_weight_of_the_pair():
    batch, masks = make_batch(), make_masks()
    whole, region = av_dpo_loss(*batch, beta=BETA), region_loss(*batch, masks, strengths(), beta=BETA)
    pair_weight = torch.tensor([1.0, 2.0, 0.0])
    total = add_region_loss(whole, region, 0.5, pair_weight)
    torch.testing.assert_close(total.loss, whole.loss + 0.5 * pair_weight * region.loss)
    assert total.metrics.keys() == whole.metrics.keys() | region.metrics.keys()


def test_masks_that_do_not_fit_are_refused():
    batch, masks = make_batch(), make_masks()
    for wrong, message in (
        ({}, "give a mask for one"),
        ({"smell": masks["video"]}, "give a mask for one"),
        ({"video": masks["video"][:2]}, "one mask per pair"),
        ({"video": masks["video"] * 0}, "is empty for at least one pair"),
    ):
        with pytest.raises(ValueError, match=message):
            region_loss(*batch, wrong, strengths(), beta=BETA)
