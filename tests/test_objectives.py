"""Objectives: their values by formula, their gradients against each other, where everything is known."""

import math

import pytest
import torch
from torch.func import functional_call

from helpers import BOUNDS, MODELS, OBJECTIVES, LinearGaussian, gradients, suits, within
from lowerbound.models import Site, Trace
from lowerbound.objectives import Dreg, Elbo, FreeBits, Iwae, Reconstruction, StickTheLanding, Weight
from lowerbound.train import Loss


def step(number: float) -> torch.Tensor:
    return torch.tensor(float(number))


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("k", [1, 4])
def test_every_bound_is_the_evidence_where_the_posterior_is_true(name, k):
    exact = LinearGaussian.random()
    x = exact.sample(20)
    objective = {"elbo": Elbo(k=k), "iwae": Iwae(k), "stl": StickTheLanding(k), "dreg": Dreg(k)}[name]
    value = objective(exact.model()(x, k=objective.k))
    if name == "elbo" and k >= 1:  # its KL is the closed form: exact in the mean only
        many = Elbo()(exact.model()(x, k=50_000))
        torch.testing.assert_close(many, exact.marginal().log_prob(x), atol=0.1, rtol=0)
    else:
        torch.testing.assert_close(value, exact.marginal().log_prob(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("make", [lambda m: m.model(shift=0.4, spread=1.6), lambda m: m.mean_field(0.15)])
def test_bounds_tighten_with_k_and_stay_below_the_evidence(make):
    exact = LinearGaussian.random(scale=0.4)
    model, x = make(exact), exact.sample(1)
    evidence = exact.marginal().log_prob(x)
    estimates = {}
    for k in (1, 2, 8, 32):
        repeated = x.expand(4000, -1)  # 4000 independent estimates for one datum
        estimates[k] = Iwae(k)(model(repeated, k=k)).detach()
        assert estimates[k].mean() < evidence + 5 * estimates[k].std() / 4000**0.5
    means = [estimates[k].mean() for k in (1, 2, 8, 32)]
    assert means == sorted(means)
    assert means[-1] - means[0] > 0.05
    assert evidence - means[-1] < 0.2 * (evidence - means[0])
    assert within(estimates[1], Elbo(k=2000)(model(x, k=2000)).detach(), errors=8)


def test_values_are_their_formulas():
    exact = LinearGaussian.random()
    trace = exact.mean_field()(exact.sample(6), k=5)
    log_p, kl, log_w = trace.log_likelihood(), trace.kl(), trace.log_weight()
    torch.testing.assert_close(Elbo()(trace), log_p.mean(0) - kl)
    torch.testing.assert_close(Elbo(Weight(4.0))(trace), log_p.mean(0) - 4 * kl)
    torch.testing.assert_close(Iwae()(trace), log_w.exp().mean(0).log())
    torch.testing.assert_close(Dreg()(trace), log_w.exp().mean(0).log())
    torch.testing.assert_close(StickTheLanding()(trace), log_w.mean(0))
    torch.testing.assert_close(Reconstruction()(trace), log_p.mean(0))


def test_the_loss_is_minus_the_mean_of_the_bound_in_nats():
    exact = LinearGaussian.random()
    x, model = exact.sample(6), exact.mean_field()
    torch.manual_seed(3)
    terms = Loss(model, Elbo(Weight(2.0)))(x, step(0))
    torch.manual_seed(3)
    trace = model(x)
    torch.testing.assert_close(terms.loss, -(trace.log_likelihood()[0] - 2 * trace.kl()).mean())
    torch.testing.assert_close(terms.distortion, -trace.log_likelihood().mean())
    torch.testing.assert_close(terms.rate, trace.kl().mean())
    assert not terms.distortion.requires_grad and not terms.rate.requires_grad


class Apart(torch.distributions.Distribution):
    """A posterior whose distance from its prior is a given number for each x."""

    def __init__(self, nats: torch.Tensor) -> None:
        super().__init__(nats.shape, validate_args=False)
        self.nats = nats


@torch.distributions.kl.register_kl(Apart, Apart)
def _kl_apart(q, p):
    return q.nats


def apart(*sites: torch.Tensor) -> Trace:
    z = torch.zeros(1, len(sites[0]), 1)
    likelihood = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(1, len(z[0]), 1), 1.0), 1)
    return Trace(torch.zeros(len(z[0]), 1), tuple(Site(z, Apart(s), Apart(s)) for s in sites), likelihood)


def test_free_bits_are_a_floor_under_each_site():
    low = torch.tensor([0.1, 0.5, 0.6], requires_grad=True)  # mean 0.4
    high = torch.tensor([0.2, 3.8, 5.0], requires_grad=True)  # mean 3: the floor is under the mean, not under each x
    trace = apart(low, high)
    log_p = trace.log_likelihood()[0]
    value = FreeBits(nats=1.0)(trace)
    torch.testing.assert_close(value, log_p - 1.0 - high)
    value.sum().backward()
    assert low.grad is None or (low.grad == 0).all()
    assert (high.grad == -1).all()
    torch.testing.assert_close(FreeBits(nats=0.0)(trace), Elbo()(trace))
    torch.testing.assert_close(FreeBits(nats=1.0, beta=Weight(3.0))(trace), log_p - 3.0 * (1.0 + high))


def test_the_gradient_of_stl_is_zero_at_the_true_posterior_sample_by_sample():
    exact = LinearGaussian.random()
    x = exact.sample(1)
    for _ in range(5):
        stl, elbo = exact.model(), exact.model()
        StickTheLanding()(stl(x)).sum().backward()
        Elbo()(elbo(x)).sum().backward()
        assert all(p.grad.abs().max() < 1e-10 for p in stl.encoder.parameters())
        assert any(p.grad.abs().max() > 1e-3 for p in elbo.encoder.parameters())


def test_the_encoders_gradient_of_dreg_is_zero_at_the_true_posterior():
    exact = LinearGaussian.random()
    model = exact.model()
    Dreg(4)(model(exact.sample(3), k=4)).sum().backward()
    assert all(p.grad.abs().max() < 1e-10 for p in model.encoder.parameters())


def many_gradients(model, objective, x, repeats):
    """The gradient of the objective at x for many draws of noise, one a row, by name."""
    rows = x.expand(repeats, -1)
    names = dict(model.named_parameters())

    def value(parameters, row):
        return objective(functional_call(model, parameters, (row[None],), {"k": objective.k})).sum()

    mapped = torch.vmap(torch.func.grad(value), in_dims=(None, 0), randomness="different")
    return mapped({name: p.detach() for name, p in names.items()}, rows)


@pytest.mark.parametrize("other, reference", [(StickTheLanding(1), Elbo()), (StickTheLanding(3), Elbo(k=3))])
def test_stl_has_the_gradient_of_the_bound_in_the_mean(other, reference):
    exact = LinearGaussian.random()
    model, x = exact.mean_field(0.3), exact.sample(1)
    here, there = (many_gradients(model, objective, x, 20_000) for objective in (other, reference))
    for name in here:
        spread = (here[name].var(0) + there[name].var(0)).div(20_000).sqrt()
        assert ((here[name].mean(0) - there[name].mean(0)).abs() <= 5 * spread + 1e-9).all(), name
    assert any(there[name].mean(0).abs().max() > 0.1 for name in there if name.startswith("encoder"))


def test_dreg_has_the_gradient_of_the_importance_bound():
    exact = LinearGaussian.random()
    model, x = exact.mean_field(0.5), exact.sample(1)
    sums = {Dreg: [], Iwae: []}
    for seed in range(400):
        for kind, found in sums.items():
            torch.manual_seed(seed if kind is Dreg else 10_000 + seed)
            model.zero_grad()
            kind(6)(model(x.expand(20, -1), k=6)).mean().backward()
            found.append(torch.cat([p.grad.flatten() for p in model.encoder.parameters()]))
    here, there = torch.stack(sums[Dreg]), torch.stack(sums[Iwae])
    spread = (here.var(0) + there.var(0)).div(len(here)).sqrt()
    assert ((here.mean(0) - there.mean(0)).abs() <= 5 * spread).all()
    assert (there.mean(0).abs() > 20 * spread).any()
    assert here.var(0).sum() < there.var(0).sum()  # what it is for


@pytest.mark.parametrize("name", ["mixture", "full_vamp", "conv"])
def test_the_value_of_dreg_and_its_decoders_gradient_are_the_importance_bounds(name):
    case = MODELS[name]
    x = case.data().fixed("train")
    model = case.make(x).eval()
    values, found = [], []
    for kind in (Iwae, Dreg):
        torch.manual_seed(2)
        model.zero_grad()
        value = kind(4)(model(x[:6], k=4))
        value.mean().backward()
        values.append(value.detach())
        found.append({n: g.clone() for n, g in gradients(model).items() if n.startswith("decoder")})
    torch.testing.assert_close(values[1], values[0])
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient, rtol=1e-3, atol=1e-5)


def test_dreg_is_for_one_latent_variable():
    case = MODELS["ladder"]
    x = case.data().fixed("train")
    with pytest.raises(ValueError, match=r"'dreg' is derived for one latent variable; this model has 3.*'iwae'"):
        Dreg(2)(case.make(x)(x[:4], k=2))


@pytest.mark.parametrize("kind", [StickTheLanding, Dreg])
def test_a_posterior_that_cannot_be_held_is_refused(kind):
    case = MODELS["iaf_flow"]
    x = case.data().fixed("train")
    with pytest.raises(TypeError, match=r"Remembered cannot be held constant.*model.posterior='normal'"):
        kind(2)(case.make(x)(x[:4], k=2))


@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize("model", list(MODELS))
def test_every_model_learns_by_every_objective(model, objective):
    case = MODELS[model]
    if not suits(objective, case):
        pytest.skip("not for this model")
    x = case.data().fixed("train")
    net = case.make(x)
    goal = OBJECTIVES[objective]()
    loss = Loss(net, goal)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for number in range(30):
        terms = loss(x, step(number))
        optimizer.zero_grad()
        terms.loss.backward()
        if number == 5:
            missing = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
            assert not missing
            still = [name for name, p in net.named_parameters() if p.grad.abs().sum() == 0]
            assert not still, still
        optimizer.step()
        losses.append((terms.distortion + terms.rate if objective == "elbo_k" else terms.loss).item())
    assert all(math.isfinite(value) for value in losses)
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize("objective", ["elbo", "free_bits", "iwae"])
def test_gradients_are_those_of_difference_quotients(objective):
    exact = LinearGaussian.random(x=3, z=2)
    model, x = exact.mean_field(), exact.sample(4)
    goal = OBJECTIVES[objective]()
    names = [name for name, _ in model.named_parameters()]

    def value(*parameters):
        torch.manual_seed(0)
        return goal(functional_call(model, dict(zip(names, parameters)), (x,), {"k": goal.k}))

    inputs = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(value, inputs, fast_mode=True)


def test_a_weight_rises_in_a_line():
    w = Weight(end=3.0, start=1.0, warmup=100)
    assert [float(w(step(s))) for s in (0, 25, 50, 100, 1000)] == [1.0, 1.5, 2.0, 3.0, 3.0]
    assert w(None) == 3.0 and w.horizon == 100
    assert isinstance(w(step(1)), torch.Tensor)
    assert Weight(end=2.0)(step(0)) == 2.0 and Weight().horizon == 0


def test_a_weight_rises_in_cycles():
    w = Weight(end=1.0, warmup=5, cycle=10, cycles=3)
    ramp = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0]
    got = [float(w(step(s))) for s in range(40)]
    assert got == pytest.approx(ramp * 3 + [1.0] * 10)
    assert w.horizon == 25  # the last rise ends there
    assert got[w.horizon :] == [1.0] * (40 - w.horizon) and got[w.horizon - 1] < 1


def test_the_schedule_reaches_the_objective():
    exact = LinearGaussian.random()
    trace = exact.mean_field()(exact.sample(6))
    log_p, kl = trace.log_likelihood()[0], trace.kl()
    for objective in (Elbo(Weight(2.0, warmup=10)), FreeBits(0.0, Weight(2.0, warmup=10))):
        assert objective.horizon == 10
        torch.testing.assert_close(objective(trace, step(5)), log_p - kl)
        torch.testing.assert_close(objective(trace), log_p - 2 * kl)
    assert {Iwae().horizon, Dreg().horizon, StickTheLanding().horizon, Reconstruction().horizon} == {0}


@pytest.mark.parametrize("wrong", [dict(end=-1.0), dict(start=-0.1), dict(warmup=-1), dict(cycle=-1), dict(cycles=0)])
def test_a_negative_weight_is_refused(wrong):
    with pytest.raises(ValueError, match=r"cannot be negative, and cycles is at least 1: got Weight\("):
        Weight(**wrong)


def test_a_rise_longer_than_its_cycle_is_refused():
    with pytest.raises(ValueError, match=r"warmup=20 steps do not fit in cycle=10 steps: make the cycle as long"):
        Weight(warmup=20, cycle=10)


def test_a_negative_floor_is_refused():
    with pytest.raises(ValueError, match=r"nats=-1.0: a floor under a KL term cannot be negative"):
        FreeBits(nats=-1.0)
