"""Priors: normalised, sampled as they say, learned, and shared with the encoder where they should be."""

import numpy as np
import pytest
import torch
import zuko
from scipy import stats
from torch.distributions import Categorical

from helpers import BOUNDED, PRIORS, encoder_of
from lowerbound import objectives, recipes
from lowerbound.data import Data
from lowerbound.distributions import DiagonalNormal, mixture
from lowerbound.priors import Exemplars, Flow, Mixture, RealNVP, StandardNormal, Vamp
from lowerbound.train import Options, Trainer


def prior_of(name: str, posterior: str = "normal", z=(2,)):
    encoder = encoder_of(posterior, (5,), z).double()
    return PRIORS[name](z, encoder, torch.randn(3, 5)).double()


@torch.no_grad()
@pytest.mark.parametrize("name", list(PRIORS))
def test_priors_integrate_to_one_and_sample_what_they_say(name):
    p = prior_of(name)()
    axis = torch.linspace(-16, 16, 601, dtype=torch.float64)
    log_p = p.log_prob(torch.cartesian_prod(axis, axis))
    mass = log_p.exp() * (axis[1] - axis[0]) ** 2
    assert abs(mass.sum() - 1) < 1e-3
    draws = p.sample((5000,))
    for i in range(2):
        marginal = mass.reshape(601, 601).sum(1 - i)
        u = np.interp(draws[:, i].numpy(), axis.numpy(), (marginal.cumsum(0) - marginal / 2).numpy())
        assert stats.kstest(u, "uniform").pvalue > 1e-5
    values = -p.log_prob(draws)
    assert abs(values.mean() + (mass * log_p).sum()) < 5 * values.std() / 5000**0.5 + 1e-3


@pytest.mark.parametrize("name", list(PRIORS))
@pytest.mark.parametrize("lead", [(), (4,), (3, 4)])
def test_priors_take_any_leading_axes(name, lead):
    p = prior_of(name)()
    z = torch.randn(*lead, 2).double()
    assert p.log_prob(z).shape == lead
    torch.testing.assert_close(p.log_prob(z).reshape(-1), torch.stack([p.log_prob(v) for v in z.reshape(-1, 2)]))
    assert p.sample(lead).shape == (*lead, 2)


@pytest.mark.parametrize("name", list(PRIORS))
def test_every_parameter_of_a_prior_learns(name):
    prior = prior_of(name)
    p = prior()
    if name == "normal":
        assert list(prior.parameters()) == []
        torch.testing.assert_close(p.log_prob(torch.zeros(2).double()).exp() * 2 * torch.pi, torch.tensor(1.0).double())
        return
    (-p.log_prob(torch.randn(200, 2).double()).mean()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in prior.parameters())


@pytest.mark.parametrize("posterior", BOUNDED)
def test_a_vamp_prior_is_the_mean_of_its_pseudo_inputs_posteriors(posterior):
    encoder = encoder_of(posterior, (5,), (2,)).double()
    inputs = torch.randn(4, 5).double()
    prior = Vamp(encoder, inputs).double()
    assert prior.encoder is encoder
    z = torch.randn(7, 2).double()
    log_q = torch.stack([encoder(u).log_prob(z) for u in inputs])
    torch.testing.assert_close(prior().log_prob(z), log_q.logsumexp(0) - np.log(4))
    inputs += 1
    assert not torch.equal(prior.inputs, inputs)  # its own copy: the rows of data stay as they are


@pytest.mark.parametrize("posterior", ["normal", "laplace", "full", "low_rank"])
def test_an_exemplar_answers_to_all_rows_but_itself(posterior):
    encoder, rows = encoder_of(posterior, (5,), (2,)).double(), torch.randn(4, 5).double()
    prior = Exemplars(encoder, rows, torch.tensor([7, 3, 9, 5]), (2,)).double()
    z = torch.randn(3, 3, 2).double()
    log_p = torch.stack([DiagonalNormal(encoder(u).mean, prior().normals.scale[0], 1).log_prob(z) for u in rows], -1)
    torch.testing.assert_close(prior().log_prob(z), log_p.logsumexp(-1) - np.log(4))
    told = prior(torch.tensor([3.0, torch.nan, 8.0]))
    others = log_p[:, 0, [0, 2, 3]].logsumexp(-1) - np.log(3)
    torch.testing.assert_close(told.log_prob(z)[:, 0], others)
    torch.testing.assert_close(told.log_prob(z)[:, 1:], prior().log_prob(z)[:, 1:])
    assert not torch.allclose(told.log_prob(z)[:, 0], prior().log_prob(z)[:, 0])
    assert rows.data_ptr() != prior.rows.data_ptr()


def test_an_exemplar_needs_another_to_answer_to():
    with pytest.raises(ValueError, match=r"exemplar prior of 1 row: .*prior_components=2 or more"):
        Exemplars(encoder_of("normal", (5,), (2,)), torch.randn(3, 5), torch.tensor([4, 4, 4]), (2,))


def test_without_itself_an_exemplar_promises_no_more_of_training_rows_than_of_others():
    """Codes that are drawn to their own exemplars have a rate that held-out rows do not have."""
    split = dict(zip(("train", "valid", "test"), torch.arange(100).split([40, 10, 50])))
    noise = Data("noise", torch.randn(100, 6), split)
    difference = {}
    for given in ("", "row"):
        data = noise.conditional(given)
        shapes = dict(event=(6,), latent=4, hidden=(32, 32), prior_components=40)
        rows = data.fixed("train"), torch.arange(40)
        model = recipes.mlp(*rows, family="normal", scale=0.3, prior="exemplar", **shapes)
        for _ in Trainer(model, objectives.Elbo(), Options(steps=400, batch=40, lr=0.01, valid_every=0)).fit(data):
            pass
        with torch.no_grad():
            train, test = (
                model(data.fixed(part), *data.context(part), k=100).kl().mean() for part in ("train", "test")
            )
        difference[given] = test - train
    assert difference[""] > 4 > 2 > difference["row"]


def test_a_batch_of_mixtures_is_each_of_them():
    parts = DiagonalNormal(torch.randn(3, 2), torch.rand(3, 2) + 0.5, 1)
    logits = torch.randn(5, 3)
    p, z = mixture(parts, logits), torch.randn(4, 5, 2)
    each = [mixture(parts, row) for row in logits]
    torch.testing.assert_close(p.log_prob(z), torch.stack([q.log_prob(z[:, i]) for i, q in enumerate(each)], 1))
    torch.testing.assert_close(p.mean, torch.stack([q.mean for q in each]))
    torch.testing.assert_close(p.variance, torch.stack([q.variance for q in each]))
    assert p.sample((0,)).shape == (0, 5, 2) and p.sample().shape == (5, 2)
    draws = p.sample((20_000,))
    torch.testing.assert_close(draws.mean(0), p.mean, atol=0.06, rtol=0)
    torch.testing.assert_close(draws.var(0), p.variance, atol=0.15, rtol=0)


def test_a_mixture_has_learned_weights():
    prior = Mixture((2, 3), 4)
    with torch.no_grad():
        prior.logits.copy_(torch.tensor([0.0, -50.0, -50.0, -50.0]))
    only = DiagonalNormal(prior.loc[0], torch.ones(2, 3), 2)
    z = torch.randn(5, 2, 3)
    torch.testing.assert_close(prior().log_prob(z), only.log_prob(z))
    assert prior().sample((7,)).shape == (7, 2, 3)
    parts = DiagonalNormal(torch.tensor([[-50.0], [50.0]]), torch.ones(2, 1), 1)
    draws = mixture(parts, torch.tensor([0.0, 1.0])).sample((10_000,))
    expected = Categorical(logits=torch.tensor([0.0, 1.0])).probs[1]
    assert abs((draws > 0).float().mean() - expected) < 0.025


def test_the_standard_normal_has_any_shape():
    p = StandardNormal((2, 3, 4))()
    z = torch.randn(5, 2, 3, 4)
    expected = torch.distributions.Normal(0, 1).log_prob(z).flatten(1).sum(1)
    torch.testing.assert_close(p.log_prob(z), expected)


def rough(n: int, blocks: int) -> RealNVP:
    """A prior far from where it starts."""
    prior = RealNVP((n,), blocks, (8,)).double()
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return prior


@pytest.mark.parametrize("n", [2, 5])
def test_couplings_and_matrices_are_undone_and_their_determinant_is_that_of_the_derivative(n):
    prior = rough(n, 6)
    z = 2 * torch.randn(20, n).double()
    p = prior()
    noise, log_determinant = p.whiten(z)
    torch.testing.assert_close(p.colour(noise), z, rtol=1e-8, atol=1e-8)
    derivative = torch.vmap(torch.func.jacrev(lambda v: p.whiten(v)[0]))(z)
    torch.testing.assert_close(log_determinant, torch.linalg.slogdet(derivative)[1], rtol=1e-8, atol=1e-8)
    draws = p.rsample((3,))
    assert draws.requires_grad and not p.sample((3,)).requires_grad


def test_couplings_start_close_to_the_standard_normal():
    z = torch.randn(500, 8)
    difference = RealNVP((8,), 20)().log_prob(z) - StandardNormal((8,))().log_prob(z)
    assert 0 < difference.abs().max() < 0.5


def test_couplings_learn_two_clusters():
    torch.manual_seed(1)
    clusters = torch.tensor([[-3.0, 1.0], [3.0, -1.0]])

    def draw(n):
        return clusters[torch.randint(0, 2, (n,))] + 0.3 * torch.randn(n, 2)

    prior = RealNVP((2,), 4, (32, 32))
    optimizer = torch.optim.Adam(prior.parameters(), lr=5e-3)
    for _ in range(300):
        loss = -prior().log_prob(draw(200)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    z = draw(2000)
    truth = mixture(DiagonalNormal(clusters, torch.full((2, 2), 0.3), 1), torch.zeros(2)).log_prob(z).mean()
    with torch.no_grad():
        assert truth - prior().log_prob(z).mean() < 0.3
        assert (prior().sample((500,))[:, 0].abs() > 1).float().mean() > 0.9


@pytest.mark.parametrize("event", [(1,), (2, 3, 3)])
def test_couplings_need_halves(event):
    with pytest.raises(ValueError, match=r"moves one half of a vector by the other.*latent size of 2 or more"):
        RealNVP(event)


def test_an_autoregressive_prior_has_a_triangular_map():
    prior = Flow(zuko.flows.MAF(4, transforms=1, hidden_features=(8,))).double()
    derivative = torch.func.jacrev(prior().transform)(torch.randn(4).double())
    assert torch.equal(derivative.triu(1), torch.zeros(4, 4).double()) and (derivative.diagonal() > 0).all()
    assert derivative.tril(-1).any()


@pytest.mark.parametrize("name", list(PRIORS))
def test_priors_that_are_not_conditional_pay_no_heed_to_context(name):
    if name in ("vamp", "exemplar", "flow"):
        pytest.skip("it hands the context on, is told of a row, or is a flow as it comes")
    prior, z = prior_of(name), torch.randn(7, 2).double()
    torch.testing.assert_close(prior(torch.ones(5, 3).double()).log_prob(z), prior().log_prob(z))


def test_a_flow_keeps_the_names_of_its_parameters():
    flow = zuko.flows.NSF(3, transforms=2, hidden_features=(8,))
    prior, z = Flow(flow), torch.randn(5, 3)
    assert list(prior.state_dict()) == list(flow.state_dict())
    assert torch.equal(prior().log_prob(z), flow().log_prob(z))
