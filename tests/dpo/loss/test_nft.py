from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dpo.loss.advantages import adv_mode
from dpo.loss.av_dpo import av_dpo_loss
from dpo.loss.nft import nft_loss
from tests.golden_files import Golden

DIFFUSION_NFT, OMNI_NFT = Golden("nft/nft_loss.safetensors"), Golden("nft/omninft_loss.safetensors")
SMALL_T = 0.05  # below it the release subtracts nearly equal x0, and loses digits


def assert_gradients_agree(actual, expected, t):
    """Compare per sample, in units of the norm of its gradient; tiny ones in units of 1 % of the batch's largest."""
    norms = expected.flatten(1).norm(dim=1)
    difference = (actual - expected).flatten(1).norm(dim=1)
    tolerance = torch.where(t < SMALL_T, 3e-4, 3e-5)
    assert (difference <= tolerance * norms.clamp(min=0.01 * norms.max())).all(), (difference / norms).tolist()


def case_of(golden, case):
    prefix = f"{case}."
    return {name.removeprefix(prefix): golden[name] for name in golden.names if name.startswith(prefix)}


@pytest.mark.parametrize("case", DIFFUSION_NFT.metadata["cases"])
def test_golden_diffusion_nft(case):
    settings, golden = DIFFUSION_NFT.metadata["cases"][case], case_of(DIFFUSION_NFT, case)
    name, clip, t = settings["modality"], settings["adv_clip_max"], golden["t"]
    velocity = golden["v"].requires_grad_()
    advantage = torch.from_numpy(adv_mode(golden["advantage"].clamp(-clip, clip), settings["adv_mode"]))
    result = nft_loss(
        {name: velocity},
        {name: golden["v_old"]},
        {name: golden["noise"] - golden["x0"]},
        t,
        {name: advantage},
        beta=settings["beta"],
        clip=clip,
        form="adaptive",
        prediction="velocity",
        kl_weight=settings["kl_weight"],
        reference={name: golden["v_ref"]},
    )
    result.loss.mean().backward()
    metrics = {key: value.double() for key, value in result.metrics.items()}
    torch.testing.assert_close(metrics[f"r/{name}"], golden["out.r"], rtol=0, atol=1e-6)
    torch.testing.assert_close(result.loss.mean().detach().double(), golden["out.loss"], rtol=1e-6, atol=0)
    torch.testing.assert_close(metrics[f"kl/{name}"], golden["out.kl_per_sample"], rtol=1e-6, atol=0)
    # The normalisers show which samples have errors of the size of the floor: there the release's errors are rounding.
    measured = torch.minimum(golden["out.weight_positive"], golden["out.weight_negative"]) > 1e-4
    loss, expected = metrics[f"loss/nft/{name}"], golden["out.per_sample_loss"]
    for rows, rtol in ((t >= SMALL_T, 2e-6), (t < SMALL_T, 5e-5)):
        torch.testing.assert_close(loss[measured & rows], expected[measured & rows], rtol=rtol, atol=0)
    torch.testing.assert_close(loss[~measured], expected[~measured], rtol=0, atol=1e-5)
    assert_gradients_agree(velocity.grad[measured], golden["out.grad_velocity"][measured], t[measured])


@pytest.mark.parametrize("case", OMNI_NFT.metadata["cases"])
def test_golden_omni_nft(case):
    settings, golden = OMNI_NFT.metadata["cases"][case], case_of(OMNI_NFT, case)
    modalities = ("video", "audio")
    weights = {name: settings[f"{name}_loss_weight"] for name in modalities}

    def both(tensor):
        return {name: golden[f"{name}.{tensor}"] for name in modalities}

    velocity = {name: value.requires_grad_() for name, value in both("v").items()}
    result = nft_loss(
        velocity,
        both("v_old"),
        {name: both("noise")[name] - both("x0")[name] for name in modalities},
        golden["t"],
        both("adv"),
        beta=settings["beta"],
        clip=settings["adv_clip_max"],
        form="adaptive",
        prediction=settings["kl_space"],
        modality_weights={name: weight / sum(weights.values()) for name, weight in weights.items()},
        kl_weight=settings["kl_weight"],
        reference=both("v_ref"),
        token_weight={"video": golden["video.token_weight"].unsqueeze(-1)},
    )
    result.loss.mean().backward()
    torch.testing.assert_close(result.loss.mean().detach().double(), golden["out.loss"], rtol=1e-6, atol=0)
    for name in modalities:
        loss, kl = (result.metrics[f"{kind}/{name}"].double() for kind in ("loss/nft", "kl"))
        torch.testing.assert_close(settings["adv_clip_max"] * loss, golden[f"out.policy_{name}"], rtol=2e-6, atol=0)
        torch.testing.assert_close(kl, golden[f"out.kl_{name}"], rtol=1e-5, atol=0)
        assert_gradients_agree(velocity[name].grad, golden[f"out.grad_velocity_{name}"], golden["t"])
        with pytest.raises(AssertionError):  # the release lets gradients through the normaliser: not reproduced
            assert_gradients_agree(velocity[name].grad, golden[f"out.release_grad_velocity_{name}"], golden["t"])


SHAPES = {"video": (4, 3, 2, 2), "audio": (2, 5, 4)}
NUM_SAMPLES = 5
PLAIN = {"clip": 1.0, "form": "plain", "prediction": "velocity"}
ADAPTIVE = {"clip": 5.0, "form": "adaptive", "prediction": "velocity"}


def make_batch(gap=0.3, dtype=torch.float64):
    """Return policy, old, target, sigma and advantage; the policy is `gap` away from the old one."""
    generator = torch.Generator().manual_seed(3)

    def draw(size):
        return {
            name: size * torch.randn(NUM_SAMPLES, *shape, generator=generator, dtype=dtype)
            for name, shape in SHAPES.items()
        }

    target, error, step = draw(1.0), draw(0.5), draw(gap)
    old = {name: target[name] + error[name] for name in SHAPES}
    policy = {name: (old[name] + step[name]).requires_grad_() for name in SHAPES}
    sigma = torch.rand(NUM_SAMPLES, generator=generator, dtype=dtype) * 0.9 + 0.1
    advantage = {
        "video": torch.tensor([-9.0, -0.7, 0.0, 0.4, 8.0], dtype=dtype),
        "audio": torch.tensor([0.3, 9.0, -0.2, -7.0, 0.8], dtype=dtype),
    }
    return policy, old, target, sigma, advantage


def per_sample(values, like):
    return values.view(-1, *[1] * (like.ndim - 1))


@pytest.mark.parametrize("settings", [PLAIN, ADAPTIVE, PLAIN | {"prediction": "x0"}])
def test_at_the_old_policy_the_value_does_not_depend_on_the_advantage_but_the_gradient_does(settings):
    policy, old, target, sigma, advantage = make_batch(gap=0.0)
    loss = nft_loss(policy, old, target, sigma, advantage, **settings).loss
    loss.sum().backward()
    upwards = {name: value.grad for name, value in policy.items()}
    policy = {name: value.detach().clone().requires_grad_() for name, value in policy.items()}
    turned = nft_loss(policy, old, target, sigma, {name: -value for name, value in advantage.items()}, **settings).loss
    turned.sum().backward()
    torch.testing.assert_close(turned, loss)
    for name in SHAPES:
        assert upwards[name].abs().max() > 0
        torch.testing.assert_close(policy[name].grad, -upwards[name])


@pytest.mark.parametrize("beta", [0.1, 1.0, 2.0])
@pytest.mark.parametrize("form", ["plain", "adaptive"])
def test_the_first_step_is_flow_matching_weighted_by_the_clipped_advantage(form, beta):
    policy, old, target, sigma, advantage = make_batch(gap=0.0)
    clip = 5.0
    nft_loss(
        policy, old, target, sigma, advantage, beta=beta, clip=clip, form=form, prediction="velocity"
    ).loss.sum().backward()
    for name, value in policy.items():
        residual = old[name] - target[name]
        scale = sigma / residual.abs().flatten(1).mean(1) if form == "adaptive" else beta * torch.ones_like(sigma)
        gradient = 2 * residual / residual[0].numel()  # of the mean squared error
        clipped = advantage[name].clamp(-clip, clip)
        torch.testing.assert_close(value.grad, per_sample(clipped * scale, residual) * gradient)


@pytest.mark.parametrize("settings", [PLAIN, ADAPTIVE])
def test_two_samples_with_opposite_advantages_begin_in_the_direction_of_dpo(settings):
    _, old, target, _, _ = make_batch(gap=0.0)
    old, target = ({name: value[:2] for name, value in batch.items()} for batch in (old, target))
    sigma, advantage = torch.tensor([0.6, 0.6]), dict.fromkeys(SHAPES, torch.tensor([1.0, -1.0]))

    def direction(loss):
        policy = {name: value.clone().requires_grad_() for name, value in old.items()}
        loss(policy).loss.sum().backward()
        return {name: F.normalize(value.grad.flatten(1)) for name, value in policy.items()}

    dpo = direction(lambda policy: av_dpo_loss(policy, old, target, beta=2.0, fm_weight=0.0))
    nft = direction(lambda policy: nft_loss(policy, old, target, sigma, advantage, **settings))
    for name in SHAPES:
        torch.testing.assert_close(nft[name], dpo[name])


@pytest.mark.parametrize(("clip", "beta"), [(1.0, 1.0), (5.0, 0.1), (5.0, 1.0)])
def test_the_plain_optimum_moves_by_the_covariance_of_advantage_and_velocity(clip, beta):
    """Only clip * beta sets how far one round goes (docs/upstream/nft.md, section 1.2)."""
    generator = torch.Generator().manual_seed(8)
    velocities = torch.randn(64, 6, generator=generator, dtype=torch.float64)  # equally likely, given x_t
    advantage = torch.rand(64, generator=generator, dtype=torch.float64) - 0.5
    advantage -= advantage.mean()
    old = torch.randn(1, 6, generator=generator, dtype=torch.float64)

    def gradient(policy):
        policy = policy.clone().requires_grad_()
        predicted = {"video": policy.expand(64, 6)}, {"video": old.expand(64, 6)}, {"video": velocities}
        sigma, settings = torch.full((64,), 0.5), {"form": "plain", "prediction": "velocity"}
        loss = nft_loss(*predicted, sigma, {"video": advantage}, beta=beta, clip=clip, **settings).loss.mean()
        return torch.autograd.grad(loss, policy)[0]

    optimum = old + (advantage[:, None] * velocities).mean(0, keepdim=True) / (clip * beta)
    assert gradient(optimum).norm() <= 1e-6 * gradient(old).norm()  # the loss is convex: this is its minimum


def test_an_even_chance_pulls_back_once_the_policy_has_left_the_old_one():
    policy, old, target, sigma, _ = make_batch(gap=0.3)
    even = {name: torch.zeros_like(sigma) for name in SHAPES}
    beta = 0.7
    nft_loss(policy, old, target, sigma, even, beta=beta, **PLAIN).loss.sum().backward()
    for name, value in policy.items():
        step = value.detach() - old[name]
        torch.testing.assert_close(value.grad, 2 * beta**2 * step / step[0].numel())


@pytest.mark.parametrize(
    ("form", "advantage", "way"), [("plain", 0.2, 0.2), ("adaptive", 0.2, 1.0), ("adaptive", -0.2, -1.0)]
)
def test_on_one_sample_the_adaptive_form_forgets_how_good_it_was(form, advantage, way):
    """docs/upstream/nft.md, section 1.4: r = 0.6 moves a fifth of the way, or all of it."""
    old, target = torch.zeros(1, 32), torch.linspace(-1, 1, 32)[None]
    policy = old.clone().requires_grad_()
    for step in range(80):
        batch = (
            {"video": policy},
            {"video": old},
            {"video": target},
            torch.ones(1),
            {"video": torch.tensor([advantage])},
        )
        loss = nft_loss(*batch, clip=1.0, form=form, prediction="velocity").loss.sum()
        with torch.no_grad():
            policy -= 8.0 * 0.93**step * torch.autograd.grad(loss, policy)[0]
    travelled = (policy * target).sum() / target.square().sum()
    assert travelled.item() == pytest.approx(way, abs=0.02)


def test_no_gradient_reaches_the_old_policy_or_the_reference():
    policy, old, target, sigma, advantage = make_batch()
    others = [{name: value.clone().requires_grad_() for name, value in old.items()} for _ in range(2)]
    nft_loss(
        policy, others[0], target, sigma, advantage, kl_weight=0.1, reference=others[1], **ADAPTIVE
    ).loss.sum().backward()
    assert all(value.grad is None for tensors in others for value in tensors.values())


def test_a_modality_s_weight_and_advantage_touch_its_own_gradient_alone():
    gradients = []
    for weights, factor in (({"video": 1.0, "audio": 1.0}, 1.0), ({"video": 0.25, "audio": 1.0}, 1.0), (None, -1.0)):
        policy, old, target, sigma, advantage = make_batch()
        advantage["video"] = advantage["video"] * factor
        nft_loss(policy, old, target, sigma, advantage, modality_weights=weights, **PLAIN).loss.sum().backward()
        gradients.append({name: value.grad for name, value in policy.items()})
    plain, weighted, turned = gradients
    torch.testing.assert_close(weighted["video"], 0.25 * plain["video"])
    assert not torch.allclose(turned["video"], plain["video"])
    assert torch.equal(weighted["audio"], plain["audio"])
    assert torch.equal(turned["audio"], plain["audio"])


@pytest.mark.parametrize("settings", [PLAIN, ADAPTIVE])
def test_each_sample_has_a_loss_of_its_own(settings):
    batch = make_batch()
    together = nft_loss(*batch, **settings).loss
    for i in range(NUM_SAMPLES):
        alone = [
            b[i : i + 1] if isinstance(b, torch.Tensor) else {n: v[i : i + 1] for n, v in b.items()} for b in batch
        ]
        torch.testing.assert_close(nft_loss(*alone, **settings).loss, together[i : i + 1])


@pytest.mark.parametrize("settings", [PLAIN, ADAPTIVE, ADAPTIVE | {"prediction": "x0"}])
def test_padding_counts_for_nothing(settings):
    policy, old, target, sigma, advantage = make_batch()
    short = [{"video": b["video"], "audio": b["audio"][:, :, :3]} for b in (policy, old, target)]
    mask = torch.zeros(NUM_SAMPLES, 1, 5, 1)
    mask[:, :, :3] = 1
    weight = torch.rand(NUM_SAMPLES, 1, 5, 1) + 0.1
    padded = nft_loss(
        *(policy, old, target, sigma, advantage),
        **settings,
        kl_weight=0.1,
        reference=target,
        mask={"audio": mask},
        token_weight={"audio": weight},
    )
    cut = nft_loss(
        *short,
        sigma,
        advantage,
        **settings,
        kl_weight=0.1,
        reference=short[2],
        token_weight={"audio": weight[:, :, :3]},
    )
    torch.testing.assert_close(padded.loss, cut.loss)
    for name, value in cut.metrics.items():
        torch.testing.assert_close(padded.metrics[name], value)


def test_errors_are_computed_in_float32_for_half_precision():
    policy, old, target, sigma, advantage = make_batch(dtype=torch.float32)
    rounded = [{name: value.detach().bfloat16() for name, value in b.items()} for b in (policy, old)]
    result = nft_loss(*rounded, target, sigma, advantage, **ADAPTIVE)
    exact = nft_loss(*({n: v.float() for n, v in b.items()} for b in rounded), target, sigma, advantage, **ADAPTIVE)
    assert result.loss.dtype == torch.float32
    torch.testing.assert_close(result.loss, exact.loss, rtol=1e-6, atol=0)


def test_the_probe_is_positive_where_the_policy_moved_along_the_reward():
    _, old, target, sigma, advantage = make_batch(gap=0.0)
    step = {name: -0.1 * per_sample(advantage[name], old[name]) * (old[name] - target[name]) for name in SHAPES}
    along, against = (
        nft_loss({name: old[name] + sign * step[name] for name in SHAPES}, old, target, sigma, advantage, **PLAIN)
        for sign in (1, -1)
    )
    for name in SHAPES:
        assert along.metrics[f"probe/{name}"].mean() > 0 > against.metrics[f"probe/{name}"].mean()
        assert not along.metrics[f"probe/{name}"].requires_grad
        moved = along.metrics[f"distance/old/{name}"]
        torch.testing.assert_close(moved, step[name].square().flatten(1).mean(1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 0.0}, "divides by it"),
        ({"clip": float("nan")}, "divides by it"),
        ({"form": "paper"}, "plain, adaptive"),
        ({"prediction": "noise"}, "velocity, x0"),
        ({"kl_weight": 0.1}, "no reference"),
        ({"kl_weight": -0.1}, "opposite direction"),
        ({"modality_weights": {"video": 1.0}}, "exactly one for each"),
        ({"mask": {"touch": torch.ones(5, 1)}}, "which target lacks"),
        ({"token_weight": {"audio": torch.ones(5, 5, 4)}}, "token_weight of audio .* does not broadcast"),
        ({"mask": {"audio": torch.zeros(5, 1, 1, 1)}}, "leaves nothing"),
        ({"sigma": torch.full((5,), 700.0)}, "timesteps / 1000"),
        ({"sigma": torch.ones(4)}, "for 5 samples"),
        ({"advantage": {"video": torch.ones(5)}}, "Modalities differ"),
        ({"advantage": {"video": torch.ones(5), "audio": torch.tensor([0, 0, float("nan"), 0, 0])}}, "failed"),
        ({"old": {"video": torch.ones(5, 2), "audio": torch.ones(5, 2, 5, 4)}}, "the same latents"),
    ],
)
def test_bad_input_is_refused(change, message):
    policy, old, target, sigma, advantage = make_batch()
    batch = {"policy": policy, "old": old, "target": target, "sigma": sigma, "advantage": advantage}
    with pytest.raises(ValueError, match=message):
        nft_loss(**(batch | PLAIN | change))
