from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from dpo.loss.av_dpo import av_dpo_loss
from tests.golden_files import golden_path

SHAPES = {"video": (4, 3, 2, 2), "audio": (2, 5, 4)}
BETA = {"video": 3000.0, "audio": 1000.0}


def make_batch(num_pairs=3, seed=0, scale=0.02, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def draw(shape, size):
        return size * torch.randn(2 * num_pairs, *shape, generator=generator, dtype=dtype)

    target = {name: draw(shape, 1.0) for name, shape in SHAPES.items()}
    policy = {name: target[name] + draw(shape, scale) for name, shape in SHAPES.items()}
    reference = {name: target[name] + draw(shape, scale) for name, shape in SHAPES.items()}
    return policy, reference, target


def swap(batch):
    return {name: torch.cat(list(reversed(value.chunk(2)))) for name, value in batch.items()}


def pairs(batch, indices):
    return {name: torch.cat([half[indices] for half in value.chunk(2)]) for name, value in batch.items()}


@pytest.mark.parametrize("case", ["case0", "case1"])
def test_golden_release(case):
    tensors = load_file(golden_path("model/av_dpo_loss.safetensors"))
    golden = {key.split(".")[1]: value for key, value in tensors.items() if key.startswith(case)}
    inputs = [{m: golden[f"{role}_{m}"] for m in SHAPES} for role in ("policy", "reference", "target")]
    result = av_dpo_loss(*inputs, beta={m: golden[f"beta_{m}"].item() for m in SHAPES})
    torch.testing.assert_close(result.loss, golden["loss"], atol=1e-5, rtol=0)
    for name in SHAPES:
        dpo, winner = result.metrics[f"loss/dpo/{name}"].mean(), result.metrics[f"loss/fm/{name}"].mean()
        torch.testing.assert_close(dpo, golden[f"dpo_loss_{name}"], atol=1e-5, rtol=0)
        torch.testing.assert_close(winner, golden[f"policy_loss_{name}"], atol=1e-5, rtol=0)
        torch.testing.assert_close(dpo + 0.1 * winner, golden[f"loss_{name}"], atol=1e-5, rtol=0)
        assert result.metrics[f"rewards/accuracies/{name}"].mean() == golden[f"implicit_acc_{name}"]


def test_loss_and_gradient_equal_the_written_out_equation_in_float64():
    policy, reference, target = make_batch(dtype=torch.float64)
    for value in policy.values():
        value.requires_grad_()
    weights, fm_weight = {"video": 0.7, "audio": 1.3}, {"video": 0.1, "audio": 0.4}
    loss = av_dpo_loss(policy, reference, target, beta=BETA, modality_weights=weights, fm_weight=fm_weight).loss.mean()
    loss.backward()

    expected_loss = 0.0
    for name in SHAPES:
        residual = policy[name].detach() - target[name]
        reference_residual = reference[name] - target[name]
        size = residual[0].numel()
        for i in range(3):
            e_w, e_l = (residual[i] ** 2).sum() / size, (residual[i + 3] ** 2).sum() / size
            r_w, r_l = (reference_residual[i] ** 2).sum() / size, (reference_residual[i + 3] ** 2).sum() / size
            sigmoid = 1 / (1 + torch.exp(-BETA[name] / 2 * ((e_w - e_l) - (r_w - r_l))))
            expected_loss += weights[name] * (-torch.log(1 - sigmoid) + fm_weight[name] * e_w) / 3
            slope = weights[name] / 3 * BETA[name] / 2 * sigmoid
            winner_gradient = (slope + weights[name] / 3 * fm_weight[name]) * 2 * residual[i] / size
            torch.testing.assert_close(policy[name].grad[i], winner_gradient, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(policy[name].grad[i + 3], -slope * 2 * residual[i + 3] / size)
    torch.testing.assert_close(loss.detach(), expected_loss)


def test_one_loss_per_pair():
    assert av_dpo_loss(*make_batch(num_pairs=5), beta=BETA).loss.shape == (5,)


def test_identical_pair_has_margin_exactly_zero():
    batch = [
        {name: value.chunk(2)[0].repeat(2, *[1] * (value.ndim - 1)) for name, value in b.items()} for b in make_batch()
    ]
    metrics = av_dpo_loss(*batch, beta=BETA).metrics
    for name in SHAPES:
        assert (metrics[f"rewards/margins/{name}"] == 0).all()


def test_swapping_the_pair_flips_the_sign_exactly():
    batch = make_batch()
    straight = av_dpo_loss(*batch, beta=BETA).metrics
    swapped = av_dpo_loss(*map(swap, batch), beta=BETA).metrics
    for name in SHAPES:
        assert torch.equal(straight[f"rewards/margins/{name}"], -swapped[f"rewards/margins/{name}"])
        assert torch.equal(straight[f"rewards/chosen/{name}"], swapped[f"rewards/rejected/{name}"])


def test_policy_equal_to_reference_gives_log_2_per_modality():
    policy, _, target = make_batch()
    loss = av_dpo_loss(policy, policy, target, beta=BETA, fm_weight=0.0).loss
    torch.testing.assert_close(loss, torch.full((3,), 2 * math.log(2)))


def test_beta_zero_leaves_only_flow_matching():
    policy, reference, target = make_batch()
    for value in policy.values():
        value.requires_grad_()
    av_dpo_loss(policy, reference, target, beta=0.0, fm_weight=0.1).loss.sum().backward()
    for name in SHAPES:
        winner, loser = policy[name].grad.chunk(2)
        residual = (policy[name] - target[name]).detach().chunk(2)[0]
        torch.testing.assert_close(winner, 0.1 * 2 * residual / residual[0].numel())
        assert (loser == 0).all()


def test_batch_loss_is_the_mean_of_single_pair_losses():
    batch = make_batch(num_pairs=2)
    together = av_dpo_loss(*batch, beta=BETA).loss
    alone = [av_dpo_loss(*(pairs(b, [i]) for b in batch), beta=BETA).loss for i in range(2)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_inputs_are_left_unchanged():
    batch = make_batch()
    copies = [{name: value.clone() for name, value in b.items()} for b in batch]
    av_dpo_loss(*batch, beta=BETA)
    for original, copy in zip(batch, copies, strict=True):
        assert list(original) == list(copy)
        assert all(torch.equal(original[name], copy[name]) for name in copy)


def gradient_norms(**settings):
    policy, reference, target = make_batch()
    for value in policy.values():
        value.requires_grad_()
    av_dpo_loss(policy, reference, target, beta=100.0, **settings).loss.mean().backward()
    return {name: value.grad.norm().item() for name, value in policy.items()}


def test_gradient_of_a_modality_follows_its_weight_alone():
    equal = gradient_norms()
    weighted = gradient_norms(modality_weights={"video": 0.25, "audio": 3.0})
    assert weighted["video"] == pytest.approx(0.25 * equal["video"], rel=1e-5)
    assert weighted["audio"] == pytest.approx(3.0 * equal["audio"], rel=1e-5)


def test_number_of_elements_does_not_weigh_a_modality():
    policy, reference, target = ({"video": b["audio"], "audio": b["audio"].repeat(1, 1, 50, 1)} for b in make_batch())
    metrics = av_dpo_loss(policy, reference, target, beta=10.0).metrics
    torch.testing.assert_close(metrics["loss/dpo/video"], metrics["loss/dpo/audio"])


def test_hinge_and_ipo_push_until_their_margin():
    batch = make_batch()
    margin = av_dpo_loss(*batch, beta=BETA).metrics["rewards/margins/video"]
    hinge = av_dpo_loss(*batch, beta=BETA, loss_type="hinge").metrics["loss/dpo/video"]
    ipo = av_dpo_loss(*batch, beta=BETA, loss_type="ipo").metrics["loss/dpo/video"]
    torch.testing.assert_close(hinge, (1 - margin).clamp(min=0))
    torch.testing.assert_close(ipo, (margin - 0.5) ** 2)


def test_label_smoothing_mixes_in_the_swapped_pair():
    batch = make_batch()
    straight = av_dpo_loss(*batch, beta=BETA, fm_weight=0.0).loss
    swapped = av_dpo_loss(*map(swap, batch), beta=BETA, fm_weight=0.0).loss
    smoothed = av_dpo_loss(*batch, beta=BETA, fm_weight=0.0, label_smoothing=0.2).loss
    torch.testing.assert_close(smoothed, 0.8 * straight + 0.2 * swapped)


def test_bfloat16_predictions_are_reduced_in_float32():
    target = {"video": torch.zeros(2, 100_000, dtype=torch.bfloat16)}
    policy = {"video": torch.full((2, 100_000), 0.1, dtype=torch.bfloat16)}
    result = av_dpo_loss(policy, target, target, beta=1.0)
    assert result.loss.dtype == torch.float32
    assert result.metrics["error/chosen/video"].item() == pytest.approx(float(policy["video"][0, 0]) ** 2, rel=1e-5)


def test_trl_names_sum_the_modalities():
    metrics = av_dpo_loss(*make_batch(), beta=BETA, modality_weights={"video": 0.5, "audio": 2.0}).metrics
    expected = 0.5 * metrics["rewards/margins/video"] + 2.0 * metrics["rewards/margins/audio"]
    torch.testing.assert_close(metrics["rewards/margins"], expected)
    assert not any(value.requires_grad for value in metrics.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": {"video": 1.0}}, "exactly one for each"),
        ({"beta": -1.0}, "opposite direction"),
        ({"beta": float("nan")}, "opposite direction"),
        ({"loss_type": "kto"}, "sigmoid, robust, ipo, hinge"),
        ({"label_smoothing": 0.5}, "no preference"),
        ({"label_smoothing": 0.1, "loss_type": "ipo"}, "set it to 0"),
        ({"winner_preserving_mu": 1.5}, r"in \[0, 1\]"),
        ({"winner_preserving_mu": 0.0, "loss_type": "ipo"}, "itself raises"),
        ({"winner_preserving_mu": 0.0, "label_smoothing": 0.1}, "with label_smoothing 0.1 itself raises"),
        ({"pair_weight": torch.ones(2)}, "for 3 pairs"),
        ({"mask": {"audio": torch.ones(6, 5, 4)}}, "does not broadcast"),
        ({"mask": {"audio": torch.zeros(6, 1, 1, 1)}}, "leaves nothing"),
        ({"mask": {"touch": torch.ones(6, 1)}}, "Modalities differ"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        av_dpo_loss(*make_batch(), **({"beta": 1.0} | change))


def test_bad_batches_are_refused():
    policy, reference, target = make_batch()
    with pytest.raises(ValueError, match="Modalities differ"):
        av_dpo_loss({"video": policy["video"]}, reference, target, beta=1.0)
    with pytest.raises(ValueError, match="has shapes"):
        av_dpo_loss(policy | {"video": policy["video"][:, :2]}, reference, target, beta=1.0)
    odd = [{name: value[:3] for name, value in b.items()} for b in (policy, reference, target)]
    with pytest.raises(ValueError, match="does not split into pairs"):
        av_dpo_loss(*odd, beta=1.0)
