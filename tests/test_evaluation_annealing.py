"""Annealing: the bracket holds the exact value and closes, and the moves leave the density as it is."""

import math

import pytest
import torch
from torch import nn

from helpers import LinearGaussian, ladder, within
from lowerbound import families, priors, recipes
from lowerbound.evaluation import annealed_bound, bracket
from lowerbound.evaluation.hamiltonian import hamiltonian
from lowerbound.models import VAE, Conditional


def test_hamiltonian_moves_leave_the_posterior_as_it_is():
    exact = LinearGaussian.random(x=4, z=3)
    gain, covariance = exact.posterior()
    posterior = torch.distributions.MultivariateNormal((exact.sample(5) - exact.centre) @ gain.mT, covariance)
    z = posterior.sample((4000,))
    step = 1.3 * torch.linalg.eigvalsh(covariance)[:1].sqrt()  # so long that the test has to mend it
    for _ in range(5):
        z, accepted = hamiltonian(posterior.log_prob, z, step, leapfrog=3)
    assert 0.1 < accepted.mean() < 0.99
    error = z - posterior.mean
    assert within(error, 0.0)
    assert within(torch.einsum("kni,knj->knij", error, error), covariance)


def test_hamiltonian_moves_find_the_density_from_elsewhere():
    target = torch.distributions.Normal(torch.tensor([3.0, -1.0]), torch.tensor([0.5, 2.0]))
    z = torch.zeros(4000, 1, 2)
    for _ in range(60):
        z, _ = hamiltonian(lambda z: target.log_prob(z).sum(-1), z, 0.7 * target.scale, leapfrog=3)
    assert within(z[:, 0], target.mean)
    assert within((z[:, 0] - target.mean).square(), target.variance)


def test_a_path_into_nothing_is_not_taken():
    z = torch.ones(3, 1, 2)
    to, accepted = hamiltonian(lambda z: z.log().sum(-1), z, torch.full((1,), 1e3), leapfrog=2)
    assert torch.equal(to[accepted == 0], z[accepted == 0]) and to.isfinite().all()


@pytest.mark.parametrize("start", ["posterior", "prior"])
def test_the_bracket_holds_the_exact_value_and_closes(start):
    exact = LinearGaussian.random(x=5, z=2)
    model = exact.mean_field(0.3)
    widths = []
    for temperatures in (2, 20, 150):
        found = bracket(model, 200, temperatures=temperatures, start=start)
        truth = exact.marginal().log_prob(found.x)
        below, above = truth - found.lower, found.upper - truth
        error = 4 / math.sqrt(len(truth))
        assert below.mean() > -error * below.std() and above.mean() > -error * above.std()
        widths.append((found.upper - found.lower).mean())
    assert widths[0] > 3 * widths[1] > 0 and widths[1] > widths[2]
    assert widths[2] < 0.3


def test_estimates_of_the_evidence_are_unbiased_whatever_the_moves_are():
    exact = LinearGaussian.random(x=3, z=2)
    x = exact.sample(1).expand(3000, 3)
    found = annealed_bound(exact.mean_field(0.4), x, temperatures=5, chains=1, leapfrog=2)
    ratios = (found - exact.marginal().log_prob(x)).exp()
    assert within(ratios, 1.0) and ratios.std() > 0.05


def test_simulated_data_are_the_models_own():
    exact = LinearGaussian.random()
    x = bracket(exact.model(), 3000, temperatures=1, chains=1, leapfrog=1).x
    assert within(x, exact.centre)
    assert within((x - exact.centre).square(), exact.marginal().variance)


def test_the_prior_may_be_learned_and_the_data_discrete():
    rows = torch.randint(0, 2, (60, 6)).float()
    for prior in ("mixture", "vamp"):
        model = recipes.mlp(rows, event=(6,), latent=2, hidden=(8,), prior=prior, prior_components=3)
        found = bracket(model, 60, temperatures=100, start="prior")
        # 2 dimensions: the exact value by a grid over the prior's reach
        side = torch.linspace(-12, 12, 161)
        grid = torch.cartesian_prod(side, side)
        with torch.no_grad():
            joint = model.decoder(grid[:, None]).log_prob(found.x) + model.prior().log_prob(grid)[:, None]
        truth = joint.logsumexp(0) + 2 * math.log(side[1] - side[0])
        assert (truth - found.lower).mean().abs() < 0.1 and (found.upper - truth).mean().abs() < 0.1


def test_a_condition_moves_prior_and_likelihood_alike():
    exact = LinearGaussian.random()
    inner = exact.mean_field()

    class Moved(nn.Module):
        def __init__(self, of, sign):
            super().__init__()
            self.of, self.sign = of, sign

        def forward(self, value, c):
            p = self.of(value - c if self.sign < 0 else value)
            return p if self.sign < 0 else type(p)(p.loc + c, p.scale, 1)

    model = VAE(Moved(inner.encoder, -1), inner.prior, Moved(inner.decoder, 1))
    c, x = torch.randn(30, 1).double(), exact.sample(30)
    found = annealed_bound(model, x + c, c, temperatures=100)
    assert (found - exact.marginal().log_prob(x)).abs().mean() < 0.2


def test_a_model_is_left_as_it_was():
    exact = LinearGaussian.random()
    model, x = exact.mean_field().train(), exact.sample(4)
    before = torch.get_rng_state()
    first = annealed_bound(model, x, temperatures=3)
    assert torch.equal(torch.get_rng_state(), before) and model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(first, annealed_bound(model, x, temperatures=3))
    assert not torch.equal(first, annealed_bound(model, x, temperatures=3, seed=1))


def test_what_cannot_be_annealed_is_refused():
    exact = LinearGaussian.random()
    x = exact.sample(3)
    with pytest.raises(ValueError, match=r"temperatures=0, .*each must be 1 or more"):
        annealed_bound(exact.model(), x, temperatures=0)
    with pytest.raises(ValueError, match=r"TopDownVAE draws several latent variables.*importance sampling"):
        annealed_bound(ladder(), torch.randn(3, 6))
    point = recipes.mlp(torch.rand(9, 6).round(), event=(6,), latent=2, hidden=(8,), posterior="point")
    with pytest.raises(ValueError, match=r"a posterior that is a point: begin at the prior"):
        bracket(point, 3)
    assert bracket(point, 3, temperatures=5, start="prior").lower.isfinite().all()

    sphere = recipes.mlp(
        torch.randn(9, 6), event=(6,), latent=3, hidden=(8,), family="normal", posterior="sphere", prior="sphere"
    )
    for start in ("posterior", "prior"):
        with pytest.raises(ValueError, match=r"z of this model is a direction.*importance sampling"):
            bracket(sphere, 3, start=start)

    class Deaf(nn.Module):
        def forward(self, z):
            return families.Bernoulli((6,))(torch.zeros(*z.shape[:-1], 6))

    deaf = VAE(Conditional(nn.Linear(6, 4), families.Normal((2,))), priors.StandardNormal((2,)), Deaf())
    with pytest.raises(ValueError, match=r"does not depend on z by a way that can be differentiated"):
        annealed_bound(deaf, torch.ones(3, 6))
