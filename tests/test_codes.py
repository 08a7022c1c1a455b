"""Codes: true probabilities over all there are, gradients by hand, codebooks that learn, and bounds that are bounds."""

import itertools
import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

from helpers import bits, grey, within
from lowerbound import distributions, families
from lowerbound.checkpoint import load_model
from lowerbound.data import Data, digits
from lowerbound.distributions import Coded, Quantized
from lowerbound.evaluation import annealed_bound, evaluate, is_unbounded
from lowerbound.families import Codebook, FiniteScalar, VectorQuantized
from lowerbound.families.codebook import DEAD, DECAY, k_means
from lowerbound.metrics import code_counts, perplexity, usage
from lowerbound.objectives import Dreg, Elbo, StickTheLanding
from lowerbound.recipes import elbo
from lowerbound.recipes.codes import QuantiserName, codes
from lowerbound.train import Options, Trainer, tensors

EVENT = (1, 4, 4)
SMALL = dict(event=EVENT, channels=(4,), latent=3, prior_width=8, prior_layers=1, family="bernoulli")
KINDS = {
    "vq": dict(quantiser="vq", codes=3),
    "gradient": dict(quantiser="vq", codes=3, codebook="gradient"),
    "residual": dict(quantiser="residual", codes=2, depth=2),
    "fsq": dict(quantiser="fsq", grid=(2, 2)),
    "gumbel": dict(quantiser="gumbel", codes=3),
}
PRIORS = ("independent", "autoregressive")
QUICK = Options(steps=12, batch=8, warmup=3, valid_every=0, lr=1e-2, decay="constant")


def made(kind: str, x=None, **options):
    torch.manual_seed(0)
    model = codes(x, **SMALL | KINDS[kind] | options)
    with torch.no_grad():
        for p in model.parameters():  # away from the start, where a prior knows nothing
            p.add_(0.3 * torch.randn_like(p))
    return model


def every_code(book) -> torch.Tensor:
    """All the maps of codes that there are."""
    h, w = book.event[1:]
    all_of_them = list(itertools.product(range(book.size), repeat=book.stages * h * w))
    return torch.tensor(all_of_them).reshape(-1, book.stages, h, w)


@pytest.mark.parametrize("quantiser", get_args(QuantiserName))
def test_no_update_is_skipped_where_the_kl_weight_rises_at_once(quantiser):
    """What the prior reads at its start is not without spread, which a normalisation would blow up."""
    data = digits()
    torch.manual_seed(0)
    model = codes(data.fixed("train"), event=data.event, family="logistic_mixture", levels=17, quantiser=quantiser)
    steps = list(Trainer(model, elbo(warmup=2), replace(QUICK, batch=32, lr=1e-3)).fit(data))
    assert steps[-1].skipped == 0


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_choice_is_active_by_how_its_probabilities_vary(kind):
    """Whatever the vectors are that codes stand for."""
    model, x = made(kind, prior="independent").eval(), bits(40, EVENT)
    found = evaluate(model, x, k=2, batch=7).latents[0]
    q = model.encoder(x)
    codes = q.codes if kind != "gumbel" else None
    said = q.mean[:, None] if codes is None else (codes[:, :, None] == torch.arange(q.size)[:, None, None]).float()
    expected = said.double().var(0, correction=int(kind == "gumbel")).sum(1)
    assert found.of_choices and found.activity.shape == expected.shape == (model.encoder.family.stages, 2, 2)
    torch.testing.assert_close(found.activity, expected)
    if codes is not None:
        assert torch.equal(q.uses(), said.sum((0, -2, -1)))
        pairs = (codes[:, None] != codes[None]).double().mean((0, 1))
        torch.testing.assert_close(found.activity, pairs)


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_active_does_not_depend_on_how_rows_are_divided(kind):
    model, x = made(kind, event=(1, 8, 8), hierarchy=True).eval(), bits(41, (1, 8, 8))
    whole, parts = (evaluate(model, x, k=5, batch=16, chunk=chunk).latents for chunk in (41, 80))
    assert len(whole) == 2
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a.activity, b.activity, rtol=0, atol=1e-12 if kind != "gumbel" else 0.1)


def test_an_independent_prior_begins_even():
    model = codes(**SMALL | KINDS["vq"], prior="independent")
    assert model.prior.net.params.abs().max() == 0


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("kind", list(KINDS))
def test_probabilities_of_all_codes_add_up_to_one_and_the_bound_is_below_log_p(kind, prior):
    model = made(kind, prior=prior).eval()
    book, p, x = model.encoder.family, model.prior(), bits(6, EVENT)
    z = book.vectors(every_code(book))
    log_p = p.log_prob(z)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-4)
    assert log_p.std() > 0.1
    joint = log_p[:, None] + model.generate(len(z), z=[z[:, None]]).log_prob(x)
    exact = joint.logsumexp(0)
    trace = model(x, k=2000 if kind == "gumbel" else 1)
    bound = trace.log_likelihood() - trace.kl()
    assert (bound.mean(0) < exact).all()
    # what it lacks of log p(x) is the divergence of q from the true posterior
    log_q = trace.sites[0].q.log_prob(z[:, None])
    lacks = (log_q.exp() * (log_q - joint + exact).masked_fill(log_q == -math.inf, 0)).sum(0)
    if kind == "gumbel":
        assert within(bound, exact - lacks) and within((trace.log_weight() - exact).exp(), 1.0)
    else:
        torch.testing.assert_close(bound[0], exact - lacks)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("kind", ["vq", "gumbel"])
def test_and_of_two_maps(kind, prior):
    model = made(kind, prior=prior, hierarchy=True, codes=2).eval()
    top, fine = model.levels
    x = bits(5, EVENT)
    z1 = top.posterior.family.vectors(every_code(top.posterior.family))
    p1, h = top.prior(model.root.expand(len(z1), *model.root.shape))
    p2, h = fine.prior(top.merge(h, z1))
    z2 = fine.posterior.family.vectors(every_code(fine.posterior.family))
    log_p2 = p2.log_prob(z2[:, None])
    torch.testing.assert_close(log_p2.exp().sum(0), torch.ones(len(z1)), rtol=1e-4, atol=1e-4)
    log_p = p1.log_prob(z1) + log_p2
    both = [z.flatten(0, 1) for z in (z1.expand(len(z2), *z1.shape), z2[:, None].expand(-1, len(z1), -1, -1, -1))]
    likelihood = torch.stack([model.generate(len(both[0]), z=both).log_prob(row) for row in x], -1)
    exact = (log_p.flatten()[:, None] + likelihood).logsumexp(0)
    trace = model(x, k=500)
    assert ((trace.log_likelihood() - trace.kl()).mean(0) < exact).all()


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("kind", list(KINDS))
def test_draws_are_as_frequent_as_they_are_probable(kind, prior):
    model = made(kind, prior=prior).eval()
    book, p = model.encoder.family, model.prior()
    everything = every_code(book)
    drawn = book.codes(p.sample((4000,))).flatten(1)
    number = (drawn * book.size ** torch.arange(drawn.shape[1]).flip(0)).sum(-1)
    found = torch.bincount(number, minlength=len(everything)) / len(drawn)
    expected = p.log_prob(book.vectors(everything)).exp()
    error = (expected * (1 - expected) / len(drawn)).sqrt()
    assert ((found - expected).abs() <= 5 * error + 1e-3).all()
    assert p.expand((7,)).sample((2,)).shape == (2, 7, *book.event)


@pytest.mark.parametrize("kind", list(KINDS))
def test_codes_and_vectors_are_each_others_inverse(kind):
    book = made(kind, bits(40, EVENT)).encoder.family
    chosen = torch.randint(book.size, (5, 7, book.stages, *book.event[1:]))
    z = book.vectors(chosen)
    assert z.shape == (5, 7, *book.event)
    assert torch.equal(book.codes(z), chosen)


def test_codes_of_stages_are_found_where_their_sum_is_nearer_to_others():
    book = VectorQuantized((1, 1, 1), 2, stages=2)
    book.books[0].origin.copy_(torch.tensor([[0.0], [1.0]]))
    book.books[1].origin.copy_(torch.tensor([[0.1], [0.9]]))
    z = book.vectors(torch.tensor([0, 1]).reshape(2, 1, 1))  # 0 + 0.9, which is nearer to 1
    assert z.flatten().tolist() == [0.0, pytest.approx(0.9)]
    assert book.codes(z).flatten().tolist() == [0, 1]


@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("learned", [False, True])
def test_the_nearest_vectors_and_their_gradients_by_hand(stages, learned):
    torch.manual_seed(0)
    family = VectorQuantized((4, 2, 3), 5, stages, commitment=0.7, learned=learned).eval()
    h = torch.randn(6, 4, 2, 3, requires_grad=True)
    q = family(h)
    pushed = torch.randn(6, 4, 2, 3)
    p = families.Coded(family)(torch.randn(family.size * stages, 2, 3))
    total = (pushed * q.rsample().unflatten(1, (stages, 4)).sum(1)).sum() - kl_divergence(q, p).sum()
    total.backward()

    left, expected = h.detach().clone(), pushed.clone()
    moved = [torch.zeros(5, 4) for _ in range(stages)]
    for s, book in enumerate(family.books):
        vectors = book.vectors.detach()
        for b, i, j in itertools.product(range(6), range(2), range(3)):
            away = left[b, :, i, j] - vectors
            nearest = int(away.square().sum(1).argmin())
            assert q.codes[b, s, i, j] == nearest
            expected[b, :, i, j] -= 0.7 * 2 * away[nearest]
            moved[s][nearest] += 2 * away[nearest]
            assert torch.equal(q.z.detach()[b, 4 * s : 4 * s + 4, i, j], vectors[nearest])
            left[b, :, i, j] = away[nearest]
    torch.testing.assert_close(h.grad, expected)
    for book, gradient in zip(family.books, moved, strict=True):
        assert (book.offset is not None) == learned
        if book.offset is not None:
            torch.testing.assert_close(book.offset.grad, gradient)


@pytest.mark.parametrize("commitment", [0.0, 100.0])
@pytest.mark.parametrize("kind", ["vq", "gradient", "residual"])
def test_commitment_is_no_part_of_any_number(kind, commitment):
    model = made(kind, commitment=commitment).eval()
    x = bits(8, EVENT)
    trace = model(x, k=2)
    site = trace.sites[0]
    assert torch.equal(site.kl(), -site.p.log_prob(site.z)[0])
    assert torch.equal(site.q.log_prob(site.z), torch.zeros(2, 8))
    assert torch.equal(site.q.log_prob(site.z + 0.1), torch.full((2, 8), -math.inf))
    torch.testing.assert_close(trace.log_weight(), trace.log_likelihood() + site.p.log_prob(site.z))
    # and there it is
    gradient = torch.autograd.grad(site.kl().sum(), list(model.encoder.net.parameters()))
    assert (sum(g.abs().sum() for g in gradient) > 0) == (commitment > 0)


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_a_point_costs_teaches_the_prior_alone(kind):
    model = made(kind, commitment=0.0).eval()
    trace = model(bits(8, EVENT))
    gradients = torch.autograd.grad(trace.kl().sum(), list(model.encoder.parameters()), allow_unused=True)
    reached = [g is not None and bool(g.abs().sum() > 0) for g in gradients]
    if kind in ("vq", "residual", "fsq"):
        assert not any(reached)
    if kind == "gumbel":  # its draws are paid for by their logits
        assert all(reached)
    prior = torch.autograd.grad(model(bits(8, EVENT)).kl().sum(), list(model.prior.family.net.net.parameters()))
    assert all(g.abs().sum() > 0 for g in prior)


def test_vectors_follow_the_mean_of_what_chose_them():
    torch.manual_seed(0)
    book = Codebook(3, 2)
    rows = torch.randn(10, 2)
    before, shares = book.origin.clone(), torch.tensor([1.0, 2.0, 0.5])
    book.shares.copy_(shares)
    chosen = book.nearest(rows)
    book.learn(rows, chosen)
    for i in range(3):
        # sums and counts of what chose it, each an average that forgets
        mine = rows[chosen == i]
        count = DECAY * shares[i] + (1 - DECAY) * 3 / 10 * len(mine)
        total = DECAY * shares[i] * before[i] + (1 - DECAY) * 3 / 10 * mine.sum(0)
        torch.testing.assert_close(book.shares[i], count)
        torch.testing.assert_close(book.origin[i], total / count)


@pytest.mark.parametrize("learned", [False, True])
def test_a_vector_that_nobody_chooses_is_put_where_something_is(learned):
    torch.manual_seed(0)
    book = Codebook(3, 2, learned)
    book.origin.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0], [100.0, 100.0]]))
    if learned:
        nn.init.normal_(book.offset)
    rows = torch.cat((torch.tensor([-1.0, 0.0]) + 0.1 * torch.randn(20, 2), 0.1 * torch.randn(10, 2) + 1))
    needed = math.ceil(math.log(DEAD) / math.log(DECAY))
    for step in range(needed):
        assert bool((book.vectors[2] > 50).all()), step
        chosen = book.nearest(rows)
        kept = book.vectors[chosen].detach().clone()
        book.learn(rows, chosen)
    assert any(torch.allclose(book.vectors[2], row) for row in rows)
    assert book.shares[2] == 1
    assert set(book.nearest(rows).tolist()) == {0, 1, 2}
    if learned:  # the optimiser moves the others
        assert torch.equal(kept, book.vectors[chosen])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_batch_that_is_no_number_spoils_nothing(value):
    book = Codebook(3, 2)
    rows = torch.randn(10, 2)
    rows[4] = value
    book.learn(rows, book.nearest(rows))
    assert book.origin.isfinite().all() and book.shares.isfinite().all()


def test_what_is_no_number_has_no_rounded_code():
    q = made("fsq").encoder.family(torch.full((2, *made("fsq").encoder.family.shape), math.nan))
    assert q.z.isnan().all() and (q.codes >= 0).all()


def test_evaluation_teaches_nobody_and_neither_does_a_pass_without_gradients():
    model = made("vq", bits(40, EVENT))
    before = {name: t.clone() for name, t in model.named_buffers()}
    x = bits(8, EVENT)
    model.eval()(x)
    evaluate(model, x, k=2)
    with torch.no_grad():
        model.train()(x)
    assert all(torch.equal(t, before[name]) for name, t in model.named_buffers())
    model(x)
    assert not torch.equal(model.encoder.family.books[0].shares, before["encoder.family.books.0.shares"])


def test_a_pass_in_training_knows_its_own_codes():
    """A codebook that moves while a batch passes moves before its vectors are handed on."""
    model = made("residual", bits(40, EVENT), prior="autoregressive").train()
    for _ in range(5):
        site = model(bits(8, EVENT)).sites[0]
        assert torch.equal(site.p.net.book.codes(site.z[0]), site.q.codes)


def test_k_means_finds_clusters_and_a_codebook_starts_there():
    torch.manual_seed(1)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [-10.0, -10.0]])
    rows = (centres[:, None] + 0.01 * torch.randn(4, 50, 2)).flatten(0, 1)
    found = min((k_means(rows, 4) for _ in range(5)), key=lambda c: torch.cdist(rows, c).amin(1).sum())
    assert torch.cdist(centres, found).amin(1).max() < 0.01
    book = VectorQuantized((2, 1, 1), 8, stages=2)
    errors = []
    for _ in range(2):
        z = book(rows[..., None, None]).z.unflatten(1, (2, 2)).sum(1)[..., 0, 0]
        errors.append((z - rows).square().sum(1).mean())
        book.begin(rows[..., None, None])
    assert errors[1] < 1e-2 < errors[0]


@pytest.mark.parametrize("kind", ["vq", "residual", "fsq"])
@pytest.mark.parametrize("hierarchy", [False, True])
def test_all_codes_are_in_use_from_the_start(kind, hierarchy):
    x = grey(300, (1, 12, 10)) > 2
    torch.manual_seed(0)
    options = dict(
        quantiser=kind, codes=12, depth=2, grid=(3, 4), hierarchy=hierarchy, channels=(8,), family="bernoulli"
    )
    model = codes(x.float(), event=(1, 12, 10), **options).eval()
    for site in model(x.float()).sites:
        assert (usage(code_counts(site)) > 0.9).all()
        assert (perplexity(code_counts(site)) > 5).all()


def test_channels_are_rounded_to_their_grid():
    family = FiniteScalar((3, 1, 1), (2, 3, 4))
    h = 4 * torch.randn(2000, 3, 1, 1)
    q = family(h)
    values = [sorted(set(q.z[:, i].flatten().tolist())) for i in range(3)]
    assert values == [[-1, 1], [-1, 0, 1], [-1, pytest.approx(-1 / 3), pytest.approx(1 / 3), 1]]
    u = h.tanh()
    for i, grid in enumerate(values):
        nearest = torch.tensor(grid)[(u[:, i, 0] - torch.tensor(grid)).abs().argmin(-1)]
        torch.testing.assert_close(q.z[:, i, 0, 0], nearest)
    assert q.size == 24 and sorted(q.codes.unique().tolist()) == list(range(24))
    h = h.requires_grad_()
    pushed = torch.randn_like(h)
    (family(h).rsample() * pushed).sum().backward()
    torch.testing.assert_close(h.grad, pushed * (1 - u.square()))


def test_draws_of_categoricals_are_one_hot_and_as_frequent_as_they_should_be():
    torch.manual_seed(0)
    logits = torch.randn(5, 2, 2)
    q = distributions.OneHot(logits, 0.5)
    z = q.rsample((20_000,))
    assert set(z.unique().tolist()) == {0.0, 1.0} and (z.sum(1) == 1).all()
    assert within(z, logits.softmax(0))
    p = distributions.OneHot(torch.randn(5, 2, 2), 0.5)
    assert within(q.log_prob(z) - p.log_prob(z), kl_divergence(q, p))
    assert torch.equal(q.mean, q.logits.exp()) and torch.allclose(q.uses(), q.mean.sum((1, 2))[None])


def test_the_gradient_of_a_draw_is_that_of_the_relaxed_one(monkeypatch):
    noise = torch.rand(5, 2, 2)
    monkeypatch.setattr(torch, "rand", lambda shape, **kind: noise)
    logits, pushed = torch.randn(5, 2, 2, requires_grad=True), torch.randn(5, 2, 2)
    (distributions.OneHot(logits, 0.5).rsample() * pushed).sum().backward()
    by_hand = logits.detach().clone().requires_grad_()
    relaxed = ((by_hand - (-noise.log()).log()) / 0.5).softmax(0)
    (relaxed * pushed).sum().backward()
    torch.testing.assert_close(logits.grad, by_hand.grad)


@pytest.mark.parametrize("compile", ["off", "replay"])
@pytest.mark.parametrize("kind", list(KINDS))
def test_training_goes_on_to_the_bit_and_codebooks_learn(kind, compile):
    x = bits(60, EVENT)
    data = Data("small", x, dict(zip(("train", "valid", "test"), torch.arange(60).split([40, 10, 10]))))
    options = replace(QUICK, compile=compile)

    def begun(seed):
        torch.manual_seed(seed)
        return Trainer(codes(data.fixed("train"), **SMALL | KINDS[kind]), Elbo(), options)

    whole, first = begun(1), begun(1)
    before = {name: t.clone() for name, t in tensors(whole.model).items()}
    list(whole.fit(data))
    for step in first.fit(data):
        if step.number == 5:
            break
    second = begun(2)
    second.load(*first.state())
    list(second.fit(data))
    expected, found = whole.state()[0], second.state()[0]
    assert expected.keys() == found.keys() and all(torch.equal(found[name], t) for name, t in expected.items())
    moved = {name.split(".")[-1] for name, t in tensors(whole.model).items() if not torch.equal(t, before[name])}
    assert {"vq": {"origin", "shares"}, "gradient": {"offset", "shares"}}.get(kind, set()) <= moved
    # codes of averaged weights are those of their averaged codebook
    site = whole.averaged(data.fixed("test")).sites[0]
    assert torch.equal(site.q.codes, whole.averaged.encoder.family.codes(site.q.mean))
    if kind != "gumbel":
        assert torch.equal(site.kl(), -site.p.log_prob(site.z)[0])


@pytest.mark.parametrize("objective", [StickTheLanding(), Dreg(2)])
def test_a_point_has_no_density_to_hold(objective):
    with pytest.raises(TypeError, match=r"quantised posterior cannot be held constant.*model.quantiser=gumbel"):
        objective(made("vq")(bits(4, EVENT), k=objective.k))
    assert objective(made("gumbel")(bits(4, EVENT), k=objective.k)).isfinite().all()


def test_codes_are_single_values_and_no_real_numbers():
    for kind in KINDS:
        model = made(kind)
        assert not is_unbounded(model.encoder(bits(4, EVENT)))
        with pytest.raises(ValueError, match="evaluate with a larger k"):
            annealed_bound(model, bits(4, EVENT), temperatures=2, chains=1)


def test_precision_does_not_choose_codes():
    torch.manual_seed(0)
    family = VectorQuantized((16, 4, 4), 64).eval()
    h = torch.randn(20, 16, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(family(h).codes, family.codes(family(h).z))
        here = family(h).codes
    assert torch.equal(here, family(h).codes)


def test_counts_usage_and_perplexity_by_hand():
    chosen = torch.tensor([[[[0, 0, 3]]], [[[0, 3, 3]]]])
    q = Quantized(torch.zeros(2, 1, 1, 3), chosen, 4, torch.zeros(2))
    counts = q.uses()
    assert counts.tolist() == [[3, 0, 0, 3]]
    assert usage(counts).tolist() == [0.5] and perplexity(counts).tolist() == [pytest.approx(2)]
    even = Coded(torch.zeros(1, 4, 1, 3), VectorQuantized((1, 1, 3), 4))
    assert kl_divergence(q, even).tolist() == [pytest.approx(3 * math.log(4))] * 2


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(event=(5,)), r"'codes' is for images.*shape \(5,\)"),
        (dict(latent=0), r"latent=0 must be 1 or more"),
        (dict(codes=1), r"codes=1 must be 2 or more"),
        (dict(grid=(4, 1)), r"grid=\[4, 1\] must hold numbers of 2 or more"),
        (dict(commitment=-1.0, temperature=0.0), r"commitment=-1.0 must be.*temperature=0.0 must be positive"),
        (dict(channels=(4, 4, 4)), r"halve images of 4x4 3 times: give 1 to 2 widths"),
        (dict(channels=(4, 4), hierarchy=True), r"2 times, and hierarchy=true once more: give 1 to 1 widths"),
        (dict(event=(1, 2, 2), hierarchy=True), r"set hierarchy=false"),
        (dict(quantiser="vq", codes=500), r"codes=500 makes 500 codes, and 40 rows of 2x2 places have 160 places"),
        (dict(quantiser="fsq", grid=(8, 8, 8)), r"grid=\[8, 8, 8\] makes 512 codes"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    event = options.get("event", EVENT)
    with pytest.raises(ValueError, match=message):
        codes(bits(40, event), **SMALL | options)


@pytest.mark.slow
def test_two_maps_that_are_chosen_for_say_something(lowerbound, tmp_path):
    run = tmp_path / "run"
    status, said, _ = lowerbound(
        "train", "digits", "model.name=codes", "model.hierarchy=true", "train.steps=400", "--k", "1", "--out", run
    )
    assert status == 0 and "model.commitment" in said
    model, tables = load_model(run)
    assert tables["model"]["commitment"] == 0.1
    x = digits().fixed("test")
    rate = evaluate(model, x, k=1).rate.mean
    assert rate > 2
