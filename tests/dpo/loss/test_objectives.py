"""The loss functions other than the published one, compared with their equations in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dpo.loss.av_dpo import av_dpo_loss
from dpo.loss.objectives import preference_loss, safe_loser_scale

SHAPES = {"video": (2, 3, 2, 2), "audio": (2, 4, 2)}
BETA = {"video": 300.0, "audio": 100.0}


def make_batch(num_pairs=3, seed=0, spread=0.1):
    generator = torch.Generator().manual_seed(seed)

    def draw(size):
        shapes = {name: (2 * num_pairs, *shape) for name, shape in SHAPES.items()}
        return {n: size * torch.randn(*shape, generator=generator, dtype=torch.float64) for n, shape in shapes.items()}

    target, away, ref_away = draw(1.0), draw(spread), draw(spread)
    policy = {name: (value + away[name]).requires_grad_() for name, value in target.items()}
    return policy, {name: value + ref_away[name] for name, value in target.items()}, target


def gradients(policy, loss):
    return dict(zip(policy, torch.autograd.grad(loss, list(policy.values())), strict=True))


def written_out(policy, reference, target, f):
    """Return the mean over pairs of the sum over modalities of f(h) + 0.1 e_w."""
    total = 0.0
    for name, beta in BETA.items():
        for i in range(3):
            e_w, e_l = (((policy[name][i + k] - target[name][i + k]) ** 2).mean() for k in (0, 3))
            r_w, r_l = (((reference[name][i + k] - target[name][i + k]) ** 2).mean() for k in (0, 3))
            total = total + f(-beta / 2 * ((e_w - e_l) - (r_w - r_l))) + 0.1 * e_w
    return total / 3


EQUATIONS = {
    ("sigmoid", 0.0): lambda h: torch.log(1 + torch.exp(-h)),
    ("sigmoid", 0.2): lambda h: 0.8 * torch.log(1 + torch.exp(-h)) + 0.2 * torch.log(1 + torch.exp(h)),
    ("robust", 0.2): lambda h: (0.8 * torch.log(1 + torch.exp(-h)) - 0.2 * torch.log(1 + torch.exp(h))) / 0.6,
    ("hinge", 0.0): lambda h: torch.clamp(1 - h, min=0),
    ("ipo", 0.0): lambda h: (h - 0.5) ** 2,
}


@pytest.mark.parametrize(("loss_type", "smoothing"), list(EQUATIONS))
def test_every_loss_type_is_its_equation_and_so_is_its_gradient(loss_type, smoothing):
    policy, reference, target = make_batch()
    loss = av_dpo_loss(policy, reference, target, beta=BETA, loss_type=loss_type, label_smoothing=smoothing).loss.mean()
    expected = written_out(policy, reference, target, EQUATIONS[loss_type, smoothing])
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    found, wanted = gradients(policy, loss), gradients(policy, expected)
    for name in SHAPES:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-10, atol=1e-15)


def test_robust_loss_is_unbiased_under_the_flips_that_it_assumes_and_the_smoothed_one_is_not():
    margin = torch.linspace(-5, 5, 21, dtype=torch.float64)
    clean = preference_loss(margin, "sigmoid")

    def over_flips(loss_type):
        straight, flipped = (preference_loss(sign * margin, loss_type, 0.3) for sign in (1, -1))
        return 0.7 * straight + 0.3 * flipped

    torch.testing.assert_close(over_flips("robust"), clean)
    assert not torch.allclose(over_flips("sigmoid"), clean, atol=0.1)


def test_robust_without_flips_is_the_published_loss():
    margin = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(preference_loss(margin, "robust"), preference_loss(margin, "sigmoid"))


class SharedShift(nn.Module):
    """Network whose weights move both predictions equally, which is the assumption of the safe scale."""

    def __init__(self, policy):
        super().__init__()
        halves = {name: value.detach().chunk(2) for name, value in policy.items()}
        self.start = halves
        self.shift = nn.ParameterDict({name: torch.zeros_like(winner) for name, (winner, _) in halves.items()})

    def forward(self):
        return {
            n: torch.cat([winner + self.shift[n], loser + self.shift[n]]) for n, (winner, loser) in self.start.items()
        }


def alike(seed=0):
    """Return pairs whose loser has a larger error in the winner's direction, so that pushing it harms the winner."""
    policy, reference, target = make_batch(seed=seed)
    for name, value in policy.items():
        winner = (value.detach() - target[name]).chunk(2)[0]
        policy[name] = (target[name] + torch.cat([winner, 3 * winner + 0.01 * winner.flip(0)])).requires_grad_()
    return policy, reference, target


def rates(batch, mu, fm_weight=0.0):
    """Return d e_w / dt per (modality, pair) along the steepest descent of the loss on the shared weights."""
    model = SharedShift(batch[0])
    policy = model()
    names = list(policy)
    result = av_dpo_loss(policy, *batch[1:], beta=BETA, fm_weight=fm_weight, winner_preserving_mu=mu)
    descent = torch.autograd.grad(result.loss.sum(), [model.shift[name] for name in names], retain_graph=True)
    found, floor = {}, {}
    for name, direction in zip(names, descent, strict=True):
        error = (policy[name].chunk(2)[0] - batch[2][name].chunk(2)[0]).square().flatten(1).mean(1)
        (gradient,) = torch.autograd.grad(error.sum(), model.shift[name], retain_graph=True)
        found[name] = -(gradient * direction).flatten(1).sum(1)
        floor[name] = gradient.square().flatten(1).sum(1)
    return found, floor, result


def test_preserved_winner_does_not_get_worse_to_first_order_and_the_plain_loss_makes_it_so():
    for seed in range(5):
        plain, _, _ = rates(alike(seed), None)
        safe, _, result = rates(alike(seed), 0.0)
        for name in SHAPES:
            assert (plain[name] > 0).all()  # the winner's error rises
            assert (safe[name] <= 1e-12).all()
            assert (result.metrics[f"loser_scale/{name}"] < 1).all()


def test_mu_is_the_share_of_its_own_descent_that_the_winner_keeps():
    for mu in (0.25, 0.5, 1.0):
        safe, own, result = rates(alike(), mu)
        for name in SHAPES:
            slope = BETA[name] / 2 * torch.sigmoid(-result.metrics[f"rewards/margins/{name}"])
            torch.testing.assert_close(safe[name], -mu * slope * own[name], rtol=1e-9, atol=1e-15)


def test_the_safe_step_lowers_the_winners_error_where_the_plain_one_raises_it():
    for mu, sign in ((None, 1), (0.1, -1)):
        batch = alike()
        model = SharedShift(batch[0])
        result = av_dpo_loss(model(), *batch[1:], beta=BETA, fm_weight=0.0, winner_preserving_mu=mu)
        result.loss.sum().backward()
        with torch.no_grad():
            for shift in model.shift.values():
                shift -= 1e-6 * shift.grad
        after = av_dpo_loss(model(), *batch[1:], beta=BETA)
        for name in SHAPES:
            change = after.metrics[f"error/chosen/{name}"] - result.metrics[f"error/chosen/{name}"]
            assert (sign * change > 0).all()


def test_losers_that_do_not_hurt_the_winner_are_pushed_in_full_and_no_value_changes():
    winner, loser = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[-1.0, 1.0], [0.0, 1.0]])
    assert safe_loser_scale(winner, loser, 0.5).tolist() == [1.0, 1.0]
    batch = alike()
    plain, safe = (av_dpo_loss(*batch, beta=BETA, winner_preserving_mu=mu) for mu in (None, 0.0))
    assert torch.equal(plain.loss, safe.loss)
    for name, value in plain.metrics.items():
        assert torch.equal(value, safe.metrics[name])


def test_scale_is_taken_pair_by_pair():
    batch = alike()
    together = av_dpo_loss(*batch, beta=BETA, winner_preserving_mu=0.2).metrics["loser_scale/video"]
    alone = [
        av_dpo_loss(
            *({n: torch.cat([half[[i]] for half in v.chunk(2)]) for n, v in b.items()} for b in batch),
            beta=BETA,
            winner_preserving_mu=0.2,
        ).metrics["loser_scale/video"]
        for i in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def padded(batch, lengths):
    """Return the masks of the batch, modality -> (6, ...), for samples with these numbers of real time steps."""
    masks = {}
    for name, shape in SHAPES.items():
        axes = [1] * len(shape)
        mask = torch.zeros(6, *axes[:1], shape[1], *axes[2:], dtype=torch.float64)
        for i, length in enumerate(lengths):
            mask[i, :, :length] = 1
        masks[name] = mask
    return masks


@pytest.mark.parametrize("mu", [None, 0.3])
def test_masked_loss_of_padded_clips_is_that_of_the_clips_alone(mu):
    policy, reference, target = make_batch()
    lengths = [2, 3, 1, 2, 3, 1]  # time steps; both clips of a pair have the same length, so that each can be cut
    masks = padded(policy, lengths)
    result = av_dpo_loss(policy, reference, target, beta=BETA, mask=masks, winner_preserving_mu=mu)
    found = gradients(policy, result.loss.sum())
    for i in range(3):
        rows = [i, i + 3]
        cut = [{n: v[rows][:, :, : lengths[i]].detach() for n, v in b.items()} for b in (policy, reference, target)]
        for value in cut[0].values():
            value.requires_grad_()
        alone = av_dpo_loss(*cut, beta=BETA, winner_preserving_mu=mu)
        torch.testing.assert_close(result.loss[[i]], alone.loss, rtol=1e-12, atol=0)
        for name, gradient in gradients(cut[0], alone.loss.sum()).items():
            torch.testing.assert_close(found[name][rows][:, :, : lengths[i]], gradient, rtol=1e-10, atol=1e-15)
            assert (found[name][rows][:, :, lengths[i] :] == 0).all()


def test_members_of_a_pair_may_be_padded_differently():
    policy, reference, target = make_batch()
    masks = padded(policy, [3, 3, 3, 1, 2, 3])
    metrics = av_dpo_loss(policy, reference, target, beta=BETA, mask=masks).metrics
    loser = (policy["video"][3, :, :1] - target["video"][3, :, :1]).square().mean()
    assert metrics["error/rejected/video"][0].item() == pytest.approx(loser.item(), rel=1e-12)


def test_a_pair_of_weight_two_counts_as_two_pairs():
    batch = make_batch(num_pairs=2)
    plain = av_dpo_loss(*batch, beta=BETA).loss
    weighted = av_dpo_loss(*batch, beta=BETA, pair_weight=torch.tensor([2.0, 0.5]))
    torch.testing.assert_close(weighted.loss, plain * torch.tensor([2.0, 0.5]))
    unweighted = av_dpo_loss(*batch, beta=BETA).metrics["rewards/margins/video"]
    assert torch.equal(weighted.metrics["rewards/margins/video"], unweighted)


def test_errors_of_the_reference_stand_for_its_predictions():
    policy, reference, target = make_batch()
    errors = {n: (reference[n] - target[n]).square().flatten(1).mean(1) for n in reference}
    whole, cached = (av_dpo_loss(policy, ref, target, beta=BETA) for ref in (reference, errors))
    assert torch.equal(whole.loss, cached.loss)
    assert all(torch.equal(value, cached.metrics[name]) for name, value in whole.metrics.items())
