"""Semi-supervised models: unknown classes are summed out exactly, known ones observed; few labels teach the rest."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.distributions import OneHotCategorical, kl_divergence

from helpers import bits, within
from lowerbound import objectives, priors
from lowerbound.data import Data
from lowerbound.distributions import DiagonalNormal, OneOf
from lowerbound.evaluation import classify, evaluate
from lowerbound.metrics import accuracy, class_probabilities, kl_per_dimension, posterior_mean
from lowerbound.nets import OneHot
from lowerbound.objectives import Elbo, Iwae
from lowerbound.recipes.semisupervised import Inferred, SemiSupervised, m2
from lowerbound.train import Options, Trainer

C, UNKNOWN = 3, math.nan
SMALL = dict(classes=C, latent=2, hidden=(8, 8))
NETWORKS = {
    "mlp": dict(event=(6,), **SMALL),
    "conv": dict(event=(1, 5, 6), network="conv", channels=(8,), family="categorical", levels=5, **SMALL),
    "mixture": dict(event=(6,), family="logistic_mixture", levels=5, components=2, **SMALL),
    "normal": dict(event=(6,), family="normal", scale="element", **SMALL),
    "student_t": dict(event=(6,), family="student_t", **SMALL),
    "one_layer": dict(event=(6,), classes=C, latent=2, hidden=(8,)),
}


class Says(nn.Module):
    """(x, labels) -> q(y|x) as given, and q(z|x, y) moved and stretched from the true one."""

    def __init__(self, truth, said, shift, spread):
        super().__init__()
        self.truth, self.shift, self.spread = truth, shift, spread
        self.said = nn.Parameter(said)
        self.one_hot = OneHot(C).double()

    def forward(self, x, labels=None):
        label = torch.zeros(len(x), C).double() if labels is None else self.one_hot(labels)
        loc = (x[:, None] - self.truth.centres) @ self.truth.gain
        scale = self.truth.spread.sqrt() * self.spread
        said = self.said.log_softmax(-1).expand(len(x), -1)
        return Inferred(label, said, DiagonalNormal(loc[..., None] + self.shift, scale, 1))


class Truth(nn.Module):
    """x = a z + centre_y + 0.7 noise with one z ~ N(0, 1): p(x, y) and p(z|x, y) are known. As a module, p(x|y, z)."""

    def __init__(self):
        super().__init__()
        self.a, self.centres = torch.randn(4).double(), torch.randn(C, 4).double()
        self.log_prior = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
        precision = 1 + self.a.square().sum() / 0.49
        self.spread, self.gain = 1 / precision, self.a / 0.49 / precision

    def forward(self, z, y):
        return DiagonalNormal(z * self.a + y @ self.centres, torch.full((4,), 0.7, dtype=torch.float64), 1)

    def log_joint(self, x):
        """log p(x, y) for each y, (b, c)."""
        covariance = torch.outer(self.a, self.a) + 0.49 * torch.eye(4).double()
        p = torch.distributions.MultivariateNormal(self.centres, covariance)
        return self.log_prior + p.log_prob(x[:, None])

    def model(self, said, shift=0.0, spread=1.0, alpha=0.0):
        encoder = Says(self, torch.as_tensor(said).double(), shift, spread)
        model = SemiSupervised(encoder, priors.StandardNormal((1,)).double(), self, C, alpha).double()
        model.logits.data = self.log_prior.clone()
        return model


@pytest.fixture
def truth():
    return Truth()


ROWS = torch.tensor([[0.5, -1.0, 0.3, 2.0], [1.0, 1.0, -1.0, 0.0], [0.0, 0.2, 0.1, -0.4]]).double()
LABELS = torch.tensor([UNKNOWN, 2.0, UNKNOWN]).double()


def evidence(truth):
    """log p(x) where the label is not known, log p(x, y) where it is."""
    joint = truth.log_joint(ROWS)
    return torch.where(LABELS.isnan(), joint.logsumexp(1), joint[:, 2])


def test_every_weight_is_the_evidence_where_q_of_z_is_exact_whatever_the_classifier_says(truth):
    log_w = truth.model([2.0, -1.0, 0.0])(ROWS, LABELS, k=9).log_weight()
    torch.testing.assert_close(log_w, evidence(truth).expand(9, 3), rtol=0, atol=1e-9)


def test_the_mean_weight_is_the_evidence_where_q_is_wrong(truth):
    log_w = truth.model([2.0, -1.0, 0.0], shift=0.4, spread=1.4)(ROWS, LABELS, k=50_000).log_weight()
    assert log_w.std(0).min() > 0.01
    assert within((log_w - evidence(truth)).exp(), 1.0)


def test_the_objective_is_the_bound_summed_over_the_classes(truth):
    said = torch.tensor([2.0, -1.0, 0.0]).double().log_softmax(0)
    bounds = Elbo(k=20_000)
    trace = truth.model(said)(ROWS, LABELS, k=20_000)
    # with an exact q(z|x, y) what is in the braces is log p(x|y)
    expected = (said.exp() * (truth.log_joint(ROWS) - said)).sum(1)
    expected = torch.where(LABELS.isnan(), expected, evidence(truth))
    assert within(trace.log_likelihood() - trace.kl(), expected)
    torch.testing.assert_close(bounds(trace), (trace.log_likelihood() - trace.kl()).mean(0))
    # and it is log p(x) where the classifier is right
    right = truth.log_joint(ROWS[:1])[0]
    trace = truth.model(right)(ROWS[:1], k=20_000)
    assert within(trace.log_likelihood() - trace.kl(), evidence(truth)[:1])


def test_rates_are_exact_and_add_up(truth):
    said = torch.tensor([0.2, 0.5, 0.3]).double().log()
    trace = truth.model(said, shift=0.4, spread=1.4)(ROWS, LABELS, k=2)
    share = torch.where(LABELS.isnan()[:, None], said.exp(), torch.tensor([0.0, 0.0, 1.0]).double())
    of_y = (share * (share.clamp(min=1e-300).log() - truth.log_prior)).sum(1)
    torch.testing.assert_close(trace.sites[0].kl(), of_y)
    scale = truth.spread.sqrt() * 1.4
    loc = (ROWS[:, None] - truth.centres) @ truth.gain + 0.4
    of_z = (share * (0.5 * (scale**2 + loc**2 - 1) - scale.log())).sum(1)
    torch.testing.assert_close(trace.sites[1].kl(), of_z)
    torch.testing.assert_close(kl_per_dimension(trace.sites[1]), of_z[:, None])
    torch.testing.assert_close(trace.kl(), of_y + of_z)


def test_the_classifier_has_the_gradient_of_the_sum(truth):
    """With an exact q(z|x, y) the bound is sum_y q_y (log p(x, y) - log q_y), differentiated here by hand."""
    model = truth.model([1.0, -1.0, 0.0])
    found = torch.autograd.grad(Elbo()(model(ROWS, torch.full((3,), UNKNOWN), k=30_000)).sum(), model.encoder.said)[0]
    said = torch.tensor([1.0, -1.0, 0.0]).double().requires_grad_()
    q = said.log_softmax(0)
    (expected,) = torch.autograd.grad((q.exp() * (truth.log_joint(ROWS) - q)).sum(), said)
    assert expected.abs().min() > 0.1
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


def test_evaluation_finds_the_evidence_with_labels_and_without(truth):
    model = truth.model([2.0, -1.0, 0.0], shift=0.4, spread=1.4)
    for labels, expected in ((LABELS, evidence(truth)), (LABELS * UNKNOWN, truth.log_joint(ROWS).logsumexp(1))):
        found = evaluate(model, ROWS, labels, k=20_000)
        torch.testing.assert_close(found.values, expected, rtol=0, atol=0.02)
        assert found.elbo.mean < found.bound.mean
        assert found.elbo.mean == pytest.approx(-found.distortion.mean - found.rate.mean)
    share = model.encoder.said.softmax(0)
    rate = kl_divergence(OneHotCategorical(share), OneHotCategorical(truth.log_prior.exp()))
    assert found.latents[0].rate.mean == pytest.approx(rate.item())


@pytest.mark.parametrize("name", list(NETWORKS))
def test_what_is_estimated_of_a_row_is_the_sum_over_its_labels(name):
    """The same draws with each label, and with none: p(x) = sum_y p(x, y), and the bound is the mean over q(y|x)."""
    model = m2(**NETWORKS[name]).eval()
    model.logits.data = torch.tensor([0.5, -0.5, 0.0])
    x = torch.randint(0, 2, (5, *NETWORKS[name]["event"])).float()

    def trace(label):
        torch.manual_seed(3)
        return model(x, torch.full((5,), label), k=4)

    whole, parts = trace(UNKNOWN), [trace(float(y)) for y in range(C)]
    joint = torch.stack([part.log_weight() for part in parts], -1)
    torch.testing.assert_close(whole.log_weight(), joint.logsumexp(-1), rtol=1e-4, atol=1e-4)
    share = class_probabilities(whole)
    bounds = torch.stack([part.log_likelihood() - part.kl() for part in parts], -1)
    expected = (share * (bounds - share.log())).sum(-1)
    torch.testing.assert_close(whole.log_likelihood() - whole.kl(), expected, rtol=1e-4, atol=1e-4)
    # of a known class the trace is an ordinary one
    for part in parts:
        by_hand = part.likelihood.log_prob(x) - sum(site.log_ratio() for site in part.sites)
        torch.testing.assert_close(part.log_weight(), by_hand, rtol=1e-4, atol=1e-3)
        again = model.generate(5, z=[site.z[0] for site in part.sites])
        torch.testing.assert_close(again.log_prob(x), part.log_likelihood()[0], rtol=1e-4, atol=1e-3)


def test_a_site_shows_draws_of_the_class_and_of_its_own_z(truth):
    said = torch.tensor([0.2, 0.5, 0.3]).log()
    site, below = truth.model(said)(ROWS[:1], k=20_000).sites
    assert within(site.z, said.exp().double())
    torch.testing.assert_close(posterior_mean(site), said.exp().double()[None])
    loc = ((ROWS[:1, None] - truth.centres) @ truth.gain)[0]
    torch.testing.assert_close(below.q.loc[:, 0, 0], site.z[:, 0] @ loc)
    assert within(below.z[:, 0, 0] - below.q.loc[:, 0, 0], 0.0)


@pytest.mark.parametrize("objective", [Elbo(), Iwae(2), objectives.FreeBits(nats=0.0), objectives.Renyi(0.5, k=2)])
def test_alpha_teaches_the_classifier_and_changes_no_value(objective):
    x, labels = torch.randint(0, 2, (6, 6)).float(), torch.tensor([0, 1, 2, UNKNOWN, 1, UNKNOWN])
    torch.manual_seed(5)
    model = m2(event=(6,), **SMALL)
    values, slopes = [], []
    for alpha in (0.0, 3.0):
        model.alpha = alpha
        torch.manual_seed(6)
        value = objective(model(x, labels, k=objective.k))
        values.append(value.detach())
        slopes.append(torch.autograd.grad(value.sum(), list(model.encoder.classify.parameters())))
    assert torch.equal(*values)
    said = model.encoder(x).said
    hits = 3.0 * said[torch.tensor([0, 1, 2, 4]), torch.tensor([0, 1, 2, 1])].sum()
    expected = torch.autograd.grad(hits, list(model.encoder.classify.parameters()))
    for more, less, slope in zip(slopes[1], slopes[0], expected, strict=True):
        torch.testing.assert_close(more - less, slope, rtol=1e-3, atol=1e-3)
    assert max(slope.abs().max() for slope in expected) > 0.1


def test_rows_whose_label_is_known_teach_the_classifier_by_alpha_alone():
    model = m2(event=(6,), alpha=0.0, **SMALL)
    value = Elbo()(model(torch.ones(4, 6), torch.arange(4.0) % C)).sum()
    slopes = torch.autograd.grad(value, list(model.encoder.classify.parameters()))
    assert all((slope == 0).all() for slope in slopes)


def test_an_importance_weighted_bound_asks_the_classifier_nothing():
    model = m2(event=(6,), **SMALL)
    value = Iwae(3)(model(torch.ones(4, 6), k=3)).sum()
    slopes = torch.autograd.grad(value, list(model.encoder.classify.parameters()))
    assert all((slope == 0).all() for slope in slopes)


@pytest.mark.parametrize("objective", [Elbo(), Iwae(2)])
def test_every_parameter_learns(objective):
    model = m2(event=(6,), **SMALL)
    objective(model(torch.ones(4, 6), torch.tensor([0, 2, UNKNOWN, UNKNOWN]), k=objective.k)).mean().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name


def test_labels_are_held_when_generating_and_drawn_where_they_are_not_known(truth):
    model = truth.model([0.0, 0.0, 0.0])
    labels = torch.tensor([0.0, 2.0, UNKNOWN]).double().repeat_interleave(20_000)
    for given in ((labels,), ()):
        x = model.generate(60_000, *given).mean
        expected = [truth.centres[0], truth.centres[2], truth.log_prior.exp() @ truth.centres]
        for part, centre in zip(x.split(20_000), expected if given else [expected[2]] * 3, strict=True):
            assert within(part, centre)
    y = torch.tensor([[0.0, 1.0, 0.0]]).double()
    z = torch.tensor([[0.7]]).double()
    torch.testing.assert_close(model.generate(1, z=(y, z)).mean[0], 0.7 * truth.a + truth.centres[1])


def test_stl_is_refused():
    trace = m2(event=(6,), **SMALL)(torch.ones(2, 6))
    with pytest.raises(TypeError, match=r"a class that is summed out cannot be held.*objective 'elbo' or 'iwae'"):
        objectives.StickTheLanding()(trace)


@pytest.mark.parametrize(
    "options, match",
    [
        (dict(classes=1), r"classes=1: .*2 or more"),
        (dict(alpha=-1.0), r"alpha=-1.0 is the weight of log q"),
        (dict(alpha=math.inf), r"alpha=inf"),
        (dict(event=(6,), network="conv"), r"network=conv is for images.*model.network=mlp"),
        (dict(latent=0, hidden=(0,)), r"hidden=\[0\].*latent=0"),
    ],
)
def test_what_cannot_be_built_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        m2(**options)


def test_a_class_has_the_probabilities_it_says():
    logits = torch.tensor([[0.3, -1.0, 2.0], [0.0, -math.inf, 1.0]])
    q, p = OneOf(logits), OneOf(torch.tensor([0.1, 0.2, 0.3]))
    z = q.sample((40_000,))
    assert ((z == 0) | (z == 1)).all() and (z.sum(-1) == 1).all()
    assert within(z, logits.softmax(-1))
    torch.testing.assert_close(q.log_prob(z).exp(), (z * logits.softmax(-1)).sum(-1))
    assert torch.equal(q.mode, torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]))
    expected = kl_divergence(OneHotCategorical(logits=logits), OneHotCategorical(logits=p.logits.expand(2, 3)))
    torch.testing.assert_close(kl_divergence(q, p), expected)


def test_a_class_that_cannot_be_has_no_gradient_that_is_not_a_number():
    free = torch.tensor([0.5, 0.1, 0.2], requires_grad=True)
    slopes = []
    for never in (-math.inf, -60.0):
        q = OneOf(torch.where(torch.tensor([True, False, True]), free, never))
        slopes += torch.autograd.grad(kl_divergence(q, OneOf(free)), free)
    assert slopes[0].isfinite().all()
    torch.testing.assert_close(*slopes)


def test_accuracy_counts_the_rows_whose_label_is_known():
    said = torch.tensor([[0.6, 0.4], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert accuracy(said, torch.tensor([0.0, 0.0, UNKNOWN, 1.0])).mean == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="none of the 4 labels is known"):
        accuracy(said, torch.full((4,), -1))
    with pytest.raises(ValueError, match="4 rows and 3 labels"):
        accuracy(said, torch.zeros(3))


def test_classes_are_said_without_a_look_at_the_labels():
    model = m2(event=(6,), **SMALL)
    x = torch.randint(0, 2, (7, 6)).float()
    said = classify(model, x, torch.zeros(7), batch=3)
    torch.testing.assert_close(said, model.encoder(x).said.exp())
    assert model.training
    with pytest.raises(ValueError, match="no data to classify"):
        classify(model, x[:0])


def test_rows_without_labels_teach_the_classifier():
    """A pattern of 16 bits or its opposite, a quarter of them turned over; two rows of each have a label."""
    pattern, labels = (torch.arange(16) < 8).float(), torch.arange(600) % 2
    x = ((pattern - labels[:, None]).abs() - (torch.rand(600, 16) < 0.25).float()).abs()
    told = torch.where(torch.arange(600) < 4, labels, -1)
    split = dict(zip(("train", "valid", "test"), torch.arange(600).split([300, 100, 200]), strict=True))
    data = Data("patterns", x.to(torch.uint8), split, labels=told, levels=2, given="label")
    model = m2(data.fixed("train"), event=(16,), classes=2, latent=1, hidden=(16,), alpha=3.0)
    trainer = Trainer(model, Elbo(), Options(steps=200, batch=100, lr=5e-3, valid_every=0))
    for _ in trainer.fit(data):
        pass
    found = accuracy(classify(trainer.averaged, data.fixed("test"), *data.context("test")), labels[400:])
    taught = LogisticRegression().fit(x[:4], labels[:4]).score(x[400:], labels[400:])
    best = ((x[400:] @ (1 - 2 * pattern) > 0) == labels[400:]).float().mean()
    assert taught < 0.9 and best > 0.96
    assert found.mean > 0.95


def test_labels_teach_and_are_told_of_no_row_that_is_reported_on():
    """Bounds of rows trained on and of others are both on log p(x), and can be compared."""
    split = dict(zip(("train", "valid", "test"), torch.arange(60).split([30, 10, 20]), strict=True))
    data = Data("bits", bits(60, (4,)), split, labels=torch.arange(60) % 3, given="train label")
    assert data.told[:30].isfinite().all() and data.told[30:].isnan().all()
    assert all(told.isnan().all() for part in split for told in data.context(part))
