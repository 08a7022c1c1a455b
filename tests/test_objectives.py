"""Objectives: their values by formula, their gradients against each other, where everything is known.

Those of the aggregated posterior have a file of their own.
"""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

from helpers import BOUNDS, MODELS, OBJECTIVES, LinearGaussian, gradients, suits, within
from lowerbound import recipes
from lowerbound.distributions import DiagonalNormal
from lowerbound.models import Site, Trace
from lowerbound.objectives import (
    Balanced,
    Capacity,
    Dreg,
    Elbo,
    FreeBits,
    Geco,
    Info,
    Iwae,
    Mutual,
    Reconstruction,
    Renyi,
    StickTheLanding,
    Weight,
)
from lowerbound.train import Ensemble, Loss, Options, Trainer, tensors

QUICK = Options(steps=12, batch=8, warmup=3, valid_every=0, lr=1e-2)


def step(number: float) -> torch.Tensor:
    return torch.tensor(float(number))


def test_a_regularised_autoencoder_holds_its_codes_by_half_their_squared_length():
    case = MODELS["bernoulli"]
    x = case.data().fixed("train")
    model = recipes.mlp(x, event=(6,), latent=2, hidden=(8, 8), family="bernoulli", posterior="point")
    trace = model(x)
    length = trace.sites[0].z[0].square().sum(1)
    plain, held = (Reconstruction(penalty)(trace) for penalty in (None, 3.0))
    torch.testing.assert_close(plain, trace.log_likelihood()[0])
    torch.testing.assert_close(held, plain - 3 * (length / 2 + math.log(2 * math.pi)))
    torch.manual_seed(0)
    loose, tight = (copy.deepcopy(model) for _ in range(2))
    lengths = []
    for each, penalty in ((loose, None), (tight, 5.0)):
        for _ in Trainer(each, Reconstruction(penalty), Options(steps=100, batch=20, lr=0.01, valid_every=0)).fit(
            case.data()
        ):
            pass
        with torch.no_grad():
            lengths.append(each(x).sites[0].z.square().sum(-1).mean())
    assert lengths[1] < lengths[0] / 2


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("k", [1, 4])
def test_every_bound_is_the_evidence_where_the_posterior_is_true(name, k):
    exact = LinearGaussian.random()
    x = exact.sample(20)
    made = {"elbo": Elbo(k=k), "iwae": Iwae(k), "renyi": Renyi(0.3, k), "stl": StickTheLanding(k), "dreg": Dreg(k)}
    objective = made[name]
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
    x = MODELS["bernoulli"].data().fixed("train")
    model = recipes.mlp(x, event=(6,), latent=2, hidden=(8,), posterior="point")
    with pytest.raises(TypeError, match=r"PointMass cannot be held constant.*model.posterior='normal'"):
        kind(2)(model(x[:4], k=2))


@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize("model", list(MODELS))
def test_every_model_learns_by_every_objective(model, objective):
    case = MODELS[model]
    if not suits(objective, model):
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
        moving = goal.horizon > 0 or objective in (
            "geco",
            "factor",
            "vaegan",
        )  # what is minimised changes as it goes on
        losses.append((terms.distortion if moving else terms.loss).item())
    assert all(math.isfinite(value) for value in losses)
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize(
    "objective",
    ["elbo", "free_bits", "free_bits_dimension", "capacity", "iwae", "renyi", "tc", "dip", "info", "mutual", "wae"],
)
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


@pytest.mark.parametrize(
    "make, names",
    [(lambda: FreeBits(-1.0, groups=0), ("nats", "groups")),
     (lambda: Capacity(beta=-1.0), ("beta",)),
     (lambda: Balanced(1.5, levels=True), ("prior", "levels")),
     (lambda: Geco(math.nan), ("distortion",)),
     (lambda: Reconstruction(-1.0), ("penalty",)),
     (lambda: Renyi(-0.1), ("alpha",))],
)  # fmt: skip
def test_numbers_that_an_objective_cannot_have_are_listed(make, names):
    with pytest.raises(ValueError, match=r"^objective '\w+' cannot be so: ") as caught:
        make()
    assert all(name in str(caught.value) for name in names)


def test_groups_are_of_something():
    with pytest.raises(ValueError, match=r"groups=3 needs by='group'"):
        FreeBits(groups=3)
    case = MODELS["bernoulli"]
    x = case.data().fixed("train")
    with pytest.raises(ValueError, match=r"groups=3 is more than the 2 dimensions"):
        FreeBits(by="group", groups=3)(case.make(x)(x))
    case = MODELS["mixture"]
    x = case.data().fixed("train")
    with pytest.raises(
        TypeError, match=r"by='dimension' needs .* that of a DiagonalNormal from a NormalMixture is not"
    ):
        FreeBits(by="dimension")(case.make(x)(x))


def normal_site(q_loc, q_scale, p_loc=None, k: int = 1) -> Trace:
    """One latent variable of the given moments, (b, d), and a likelihood that knows nothing of it."""
    p_loc = torch.zeros_like(q_loc[0]) if p_loc is None else p_loc
    q, p = DiagonalNormal(q_loc, q_scale, 1), DiagonalNormal(p_loc, torch.ones_like(p_loc), 1)
    x = torch.zeros(len(q_loc), 1, dtype=q_loc.dtype)
    normal = torch.distributions.Normal(torch.zeros_like(x).expand(k, -1, 1), 1.0)
    likelihood = torch.distributions.Independent(normal, 1)
    return Trace(x, (Site(q.rsample((k,)), q, p),), likelihood)


def test_free_bits_by_dimension_and_by_group():
    loc = torch.tensor([[0.1, 2.0, 1.0, 0.0], [0.3, 1.0, 3.0, 0.0]], requires_grad=True)
    trace = normal_site(loc, torch.ones(2, 4))
    kl, log_p = loc.detach().square() / 2, trace.log_likelihood()[0]
    assert kl.mean(0).tolist() == pytest.approx([0.025, 1.25, 2.5, 0.0])
    value = FreeBits(0.5, by="dimension")(trace)
    torch.testing.assert_close(value, log_p - (0.5 + kl[:, 1] + kl[:, 2] + 0.5))
    value.sum().backward()
    torch.testing.assert_close(loc.grad, -loc.detach() * torch.tensor([0.0, 1.0, 1.0, 0.0]))
    group = FreeBits(2.0, by="group", groups=2)(trace)  # of means 1.275 and 2.5
    torch.testing.assert_close(group, log_p - (2.0 + kl[:, 2] + kl[:, 3]))
    uneven = FreeBits(1.5, by="group", groups=3)(trace)  # the first group takes two: 1.275, 2.5, 0
    torch.testing.assert_close(uneven, log_p - (1.5 + kl[:, 2] + 1.5))
    one, four = FreeBits(3.0, by="group", groups=1), FreeBits(0.5, by="group", groups=4)
    torch.testing.assert_close(one(trace), FreeBits(3.0)(trace))
    torch.testing.assert_close(four(trace), value)
    torch.testing.assert_close(FreeBits(0.0, by="dimension")(trace), Elbo()(trace))


def test_a_capacity_draws_the_kl_term_from_either_side():
    nats = torch.tensor([1.0, 5.0], requires_grad=True)  # mean 3
    trace = apart(nats)
    log_p = trace.log_likelihood()[0]
    rising = Capacity(Weight(8.0, warmup=10), beta=2.0)
    assert rising.horizon == 10
    for number, gap in ((0, 3.0), (5, 1.0), (10, 5.0), (99, 5.0)):
        torch.testing.assert_close(rising(trace, step(number)), log_p - 2.0 * gap)
    torch.testing.assert_close(rising(trace), log_p - 2.0 * 5.0)
    for capacity, sign in ((8.0, 1.0), (0.5, -1.0)):  # below it the KL term is pushed up, above it down: never let go
        nats.grad = None
        Capacity(Weight(capacity), beta=2.0)(trace).mean().backward()
        torch.testing.assert_close(nats.grad, torch.full((2,), sign * 2.0 / 2))


def test_renyis_bound_is_the_others_at_0_and_1_and_falls():
    exact = LinearGaussian.random()
    trace = exact.mean_field(0.5)(exact.sample(20), k=8)
    orders = (0.0, 0.1, 0.5, 0.9, 0.9985, 0.9995, 1.0, 1.0005, 1.0015, 1.5, 3.0, 30.0)
    values = torch.stack([Renyi(alpha, 8)(trace) for alpha in orders])
    torch.testing.assert_close(values[0], Iwae(8)(trace))
    torch.testing.assert_close(values[orders.index(1.0)], trace.log_weight().mean(0))
    assert (values.diff(dim=0) <= 1e-9).all() and (values[0] - values[-1]).min() > 0.01
    # no step where the formula gives way to its expansion
    slopes = values.diff(dim=0) / torch.tensor(orders).diff()[:, None]
    torch.testing.assert_close(slopes[4], slopes[5], rtol=0.02, atol=1e-6)
    torch.testing.assert_close(slopes[7], slopes[6], rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.3, 0.7, 1.0, 1.5])
def test_renyis_bound_is_log_p_minus_renyis_divergence(alpha):
    exact = LinearGaussian.random(scale=1.0)
    model, x = exact.mean_field(0.1), exact.sample(1)
    gain, covariance = exact.posterior()
    q = model.encoder(x)
    gap, own = q.loc[0] - (x[0] - exact.centre) @ gain.mT, torch.diag(q.variance[0])
    if alpha == 1.0:
        true = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance)
        divergence = torch.distributions.kl_divergence(torch.distributions.MultivariateNormal(gap, own), true)
    else:
        mixed = alpha * covariance + (1 - alpha) * own
        logs = torch.logdet(mixed) - (1 - alpha) * torch.logdet(own) - alpha * torch.logdet(covariance)
        divergence = alpha / 2 * gap @ torch.linalg.solve(mixed, gap) - logs / (2 * (alpha - 1))
    assert divergence > 0.01
    with torch.no_grad():
        value = Renyi(alpha, 400_000)(model(x, k=400_000))
    assert (value - (exact.marginal().log_prob(x) - divergence)).abs() < 0.05 * divergence + 0.003


class Learned(torch.nn.Module):
    """A prior from which the KL term has a closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = torch.nn.Parameter(torch.ones(2))

    def forward(self):
        return DiagonalNormal(self.loc, torch.full((2,), 0.7), 1)


@pytest.mark.parametrize("name", ["mixture", "learned"])
def test_a_balanced_kl_term_shares_its_gradient_out(name):
    case = MODELS["mixture"]
    x = case.data().fixed("train")[:8]
    model = case.make(x).eval()
    if name == "learned":
        model.prior = Learned()

    def of(objective):
        torch.manual_seed(4)
        model.zero_grad()
        value = objective(model(x))
        value.mean().backward()
        found = {key: torch.zeros(()) if g is None else g.clone() for key, g in gradients(model).items()}
        return value.detach(), found

    value, whole = of(Elbo())
    alone, half = of(Reconstruction())[1], of(Balanced(0.5))[1]
    for part in (0.0, 0.8, 1.0):
        shared, found = of(Balanced(part))
        torch.testing.assert_close(shared, value)  # the value is the bound's
        for key, g in found.items():
            torch.testing.assert_close(half[key], 0.5 * (whole[key] + alone[key]), rtol=1e-3, atol=1e-4)
            if key.startswith("encoder"):
                torch.testing.assert_close(g, alone[key] + (1 - part) * (whole[key] - alone[key]), rtol=1e-3, atol=1e-4)
            if key.startswith("prior"):
                assert whole[key].abs().sum() > 0
                torch.testing.assert_close(g, part * whole[key], rtol=1e-3, atol=1e-4)


def test_levels_are_balanced_while_the_weight_rises():
    low, high = torch.full((1, 2, 1), 0.2), torch.full((1, 2, 4), 1.0)
    x = torch.zeros(2, 1)
    likelihood = torch.distributions.Independent(torch.distributions.Normal(x[None], 1.0), 1)
    standard = [DiagonalNormal(torch.zeros_like(t), torch.ones_like(t), 1) for t in (low, high)]
    sites = [Site(t, DiagonalNormal(t, torch.ones_like(t), 1), p) for t, p in zip((low, high), standard)]
    trace = Trace(x, tuple(sites), likelihood)
    kl = [0.02, 2.0]
    goal = Balanced(0.5, levels=True, beta=Weight(1.0, start=1.0, warmup=10))
    used = [(kl[0] + 0.01) / 1, (kl[1] + 0.01) / 4]
    weights = [2 * u / sum(used) for u in used]
    log_p = trace.log_likelihood()[0]
    torch.testing.assert_close(goal(trace, step(3)), log_p - weights[0] * kl[0] - weights[1] * kl[1])
    assert weights[0] < 1 < weights[1]  # what is used more costs more
    for at in (step(10), None):
        torch.testing.assert_close(goal(trace, at), Elbo()(trace))


def test_a_multiplier_grows_while_its_constraint_is_broken():
    exact = LinearGaussian.random()
    x, model = exact.sample(6), exact.mean_field()
    for above, sign in ((1, -1), (-1, 1)):
        trace = model(x)
        target = -trace.log_likelihood().mean().item() - above
        goal = Geco(target)
        value = goal(trace)
        torch.testing.assert_close(value, -trace.kl() - (-trace.log_likelihood()[0] - target))
        (-value.mean()).backward()  # what is minimised
        assert goal.raw.grad.sign() == sign  # and a step goes against the gradient
    assert goal.multiplier == 1


@pytest.mark.parametrize("target", [15.0, 22.0])
def test_geco_ends_at_the_distortion_that_was_asked_for(target):
    case = MODELS["conv"]
    data = case.data(240)
    goal = Geco(target)
    trainer = Trainer(case.make(data.fixed("train")), goal, Options(steps=500, batch=32, lr=1e-2, valid_every=0))
    found = [float(s.terms.distortion) for s in trainer.fit(data)][-100:]
    assert sum(found) / 100 == pytest.approx(target, rel=0.1)


WEIGHTED = ["elbo", "free_bits", "free_bits_group", "capacity", "balanced", "tc", "tc_weighted", "dip", "dip_samples",
            "info", "mutual", "wae"]  # fmt: skip


def weighed(goal, beta: float):
    return replace(goal, beta=replace(goal.beta, end=beta, start=0.0) if isinstance(goal.beta, Weight) else beta)


@pytest.mark.parametrize("name", WEIGHTED)
def test_models_that_differ_in_the_weight_train_together(name, monkeypatch):
    """A laboratory varies `beta`, from 0 on: each model is trained as it would be alone."""
    case = MODELS["bernoulli"]
    data = case.data()
    made = [case.make(data.fixed("train")).eval() for _ in range(3)]
    goals = [weighed(OBJECTIVES[name](), beta) for beta in (0.0, 1.0, 5.0)]
    monkeypatch.setattr(torch, "randn", lambda shape, **kind: torch.full(shape, 0.3, **kind))
    x = data.fixed("train")[:16]
    alone = [Trainer(model, goal, QUICK).gradient(x, step(7)) for model, goal in zip(copy.deepcopy(made), goals)]
    terms, norms, gradients_of_all = Ensemble(made, goals, QUICK)._gradient(x, step(7))
    for i, (said, norm, expected) in enumerate(alone):
        assert said.loss.isfinite()
        torch.testing.assert_close(terms.loss[i], said.loss, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(norms[i], norm, rtol=1e-3, atol=1e-4)
        for g, one in zip(gradients_of_all, expected, strict=True):
            torch.testing.assert_close(g[i], torch.zeros_like(g[i]) if one is None else one, rtol=1e-2, atol=1e-3)
    assert len({round(float(v), 5) for v in terms.loss - terms.distortion}) == 3  # the weight counts


@pytest.mark.parametrize("one, other", [(Renyi(0.5), Renyi(1.0)), (Mutual(0.5), Mutual(1.0)), (Info(0.1), Info(0.7))])
def test_other_fractions_may_differ_too(one, other):
    case = MODELS["bernoulli"]
    data = case.data()
    ensemble = Ensemble([case.make(data.fixed("train")) for _ in range(2)], [one, other], QUICK)
    assert len(list(ensemble.fit(data))) == 12


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_training_goes_on_to_the_bit(name):
    model = "mixture" if suits(name, "mixture") else "bernoulli"
    case = MODELS[model]
    data = case.data()

    def begun():
        torch.manual_seed(1)
        return Trainer(case.make(data.fixed("train")), OBJECTIVES[name](), QUICK)

    whole, first, second = begun(), begun(), begun()
    list(whole.fit(data))
    for s in first.fit(data):
        if s.number == 5:
            break
    torch.manual_seed(99)
    second = Trainer(case.make(data.fixed("train")), OBJECTIVES[name](), QUICK)
    second.load(*first.state())
    list(second.fit(data))
    expected, found = tensors(whole.loss), tensors(second.loss)
    assert all(torch.equal(found[key], t) for key, t in expected.items())
