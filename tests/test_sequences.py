"""Sequences: windows of chorales, distributions drawn step by step, and what a strong decoder does to z."""

import gzip
import hashlib
import io
import itertools
import math
import os
import tarfile
from pathlib import Path

import pytest
import torch

from helpers import bits, fives, plane, within
from lowerbound import recipes
from lowerbound.data import Data, chorales, pianorolls
from lowerbound.distributions import in_steps
from lowerbound.doctor.collapse import decoder_without_z, posterior_collapse
from lowerbound.doctor.subject import Subject
from lowerbound.nets import Summary
from lowerbound.objectives import Elbo, FreeBits, Objective
from lowerbound.recipes.sequence import sequence
from lowerbound.train import Options, Trainer, fill, tensors

CELLS = ("gru", "transformer")
SMALL = dict(latent=2, width=8, prior_components=3)
BESIDE = Path(__file__).parents[2] / "shared" / "data"


def small(event=(2, 5), x=None, **changes):
    return sequence(x, event=event, **{"family": "bernoulli", **SMALL, **changes})


def everything(event, levels: int) -> torch.Tensor:
    """Every x there is."""
    return torch.tensor(list(itertools.product(range(levels), repeat=math.prod(event)))).float().reshape(-1, *event)


def archive(pieces: dict[str, list[list[int]]]) -> bytes:
    """An archive as the chorales come in: a .csv of four voices for each piece, not in their order."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as files:
        for name, voices in reversed(pieces.items()):
            text = "\n".join(["note0,note1,note2,note3", *(",".join(map(str, chord)) for chord in voices)]).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            files.addfile(entry, io.BytesIO(text))
    return content.getvalue()


@pytest.fixture
def two_pieces(tmp_path, monkeypatch):
    """Three tiny pieces to train on and one for each other part, as the file that is looked for."""
    pieces = {
        "train/chorale_000.csv": [[36 + i, 50, 50, 0] for i in range(7)],
        "train/chorale_001.csv": [[60 + i, 0, 0, 0] for i in range(5)],
        "train/chorale_002.csv": [[81, 0, 0, 0]],
        "valid/chorale_003.csv": [[40, 41, 42, 43]] * 4,
        "test/chorale_004.csv": [[0, 0, 0, 0]] * 2 + [[81, 36, 0, 0]] * 2,
    }
    content = archive(pieces)
    (tmp_path / "jsb_chorales").mkdir()
    (tmp_path / "jsb_chorales" / "jsb_chorales.tgz").write_bytes(gzip.compress(content))
    monkeypatch.setenv("LOWERBOUND_DATA", str(tmp_path))
    monkeypatch.setattr(pianorolls, "CHORALES_SHA256", hashlib.sha256(content).hexdigest())


@pytest.fixture
def real(monkeypatch):
    """The folder of real data."""
    folder = Path(os.environ.get("LOWERBOUND_DATA", BESIDE))
    if not (folder / "jsb_chorales").is_dir():
        pytest.skip(f"REAL DATA MISSING: set LOWERBOUND_DATA to a folder with jsb_chorales/ (looked in {folder})")
    monkeypatch.setenv("LOWERBOUND_DATA", str(folder))


def down(roll: torch.Tensor) -> list[list[int]]:
    """The keys that are down at each step, lowest first, by their MIDI numbers."""
    return [(81 - step.nonzero().flatten()).flip(0).tolist() for step in roll[0].T]


def test_windows_are_cut_from_single_pieces(two_pieces):
    data = chorales(length=3, every=1)
    assert data.event == (1, 46, 3) and data.levels == 2
    assert [down(roll) for roll in data.train] == [
        [[36, 50], [37, 50], [38, 50]],
        [[39, 50], [40, 50], [41, 50]],
        [[60], [61], [62]],
    ]
    assert [down(roll) for roll in data.valid] == [[[40, 41, 42, 43]] * 3]
    assert [down(roll) for roll in data.test] == [[[], [], [36, 81]]]
    # 7, 5, 1, 4 and 4 steps hold 2, 1, 0, 1 and 1 windows of 3
    assert data.notes == ("6 of 21 steps are left out: ends of pieces that do not fill a window of 3",)


def test_every_so_many_sixteenths_is_a_step(two_pieces):
    assert [down(roll) for roll in chorales(length=2, every=2).train] == [
        [[36, 50], [38, 50]],
        [[40, 50], [42, 50]],
        [[60], [62]],
    ]


def test_a_picture_has_the_low_keys_at_its_bottom(two_pieces):
    roll = chorales(length=2, every=1).test[-1, 0]
    assert roll[0].tolist() == roll[-1].tolist() == [1, 1] and roll[1:-1].sum() == 0
    assert chorales(length=2, every=1).train[0, 0, -1].tolist() == [1, 0]  # 36, the lowest of all


def test_a_file_that_is_another_is_refused(two_pieces, monkeypatch):
    monkeypatch.setattr(pianorolls, "CHORALES_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"jsb_chorales\.tgz does not hold what was published"):
        chorales(length=2)


@pytest.mark.parametrize("options, hint", [
    (dict(length=1), "from 2 to 25"),
    (dict(length=26), "length=26 with every=4 .* from 2 to 25"),
    (dict(length=2, every=0), "every=4, 2 or 1"),
    (dict(length=2, every=100), "every=4, 2 or 1"),
])  # fmt: skip
def test_windows_that_cannot_be_are_refused(options, hint):
    with pytest.raises(ValueError, match=hint):
        chorales(**options)


def test_the_chorales(real):
    data = chorales()
    assert data.event == (1, 46, 16)
    assert [len(data.split[part]) for part in ("train", "valid", "test")] == [787, 260, 271]
    assert down(data.train[0])[:2] == [[58, 65, 70, 74], [55, 58, 70, 75]]
    held = data.x.sum((1, 2))
    assert held.max() == 4 and (held == 4).float().mean() > 0.85  # four voices, which sometimes meet
    finest = chorales(length=64, every=1)
    assert finest.train[0, ..., ::4].equal(data.train[0])
    with pytest.raises(ValueError, match="length=26"):
        chorales(length=26)
    assert len(chorales(length=25).x) > 382  # every piece has a window


@pytest.mark.parametrize("told", ["every", "first"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_step_knows_z_and_what_came_before_alone(cell, told):
    model = small((3, 6), cell=cell, told=told, layers=2)
    steps = in_steps(bits(4, (3, 6)), (3, 6)).requires_grad_()
    z = torch.randn(4, 2, requires_grad=True)
    logits = model.decoder.parallel(model.decoder.told(z), steps).logits
    for t in range(6):
        of_x, of_z = torch.autograd.grad(logits[:, t].sum(), (steps, z), retain_graph=True)
        assert of_z.abs().amin() > 0
        reached = of_x.abs().amax((0, 2)) > 0
        assert reached.tolist() == [s < t for s in range(6)]


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_an_encoder_reads_both_ways_and_a_decoder_one(cell, ahead):
    model = small((2, 5), cell=cell)
    core = next(m for m in model.encoder.modules() if isinstance(m, Summary)).core if ahead else model.decoder.core
    e = torch.randn(1, 5, 8, requires_grad=True)
    (of_e,) = torch.autograd.grad(core(e)[0][0, 2].sum(), e)
    assert (of_e.abs().amax((0, 2)) > 0).tolist() == [True, True, True, ahead, ahead]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("family, event, levels", [("bernoulli", (1, 2, 3), 2), ("categorical", (4,), 3)])
def test_probabilities_of_everything_add_up_to_one(cell, family, event, levels):
    x = everything(event, levels)
    p = small(event, cell=cell, family=family, levels=levels, layers=2).generate(4)
    total = p.log_prob(x[:, None]).double().logsumexp(0)
    torch.testing.assert_close(total, torch.zeros(4, dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("family, event, levels", [("bernoulli", (2, 3), 2), ("categorical", (3,), 3)])
def test_draws_are_as_frequent_as_they_are_likely(cell, family, event, levels):
    model = small(event, cell=cell, family=family, levels=levels)
    with torch.no_grad():
        model.decoder.bias.bias.copy_(torch.randn(model.decoder.bias.bias.shape))
        p = model.generate(1, z=[2 * torch.randn(1, 2)])
    outcomes = everything(event, levels)
    drawn = p.sample((20_000,))
    assert drawn.shape == (20_000, 1, *event)
    digits = levels ** torch.arange(math.prod(event)).flip(0)
    number = (drawn.flatten(1) * digits).sum(1).long()
    expected = p.log_prob(outcomes).exp()
    error = (expected * (1 - expected) / 20_000).sqrt()
    assert ((number.bincount(minlength=len(outcomes)) / 20_000 - expected).abs() < 5 * error).all()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("family, told", [("bernoulli", "every"), ("categorical", "every"), ("normal", "first")])
def test_one_step_after_the_other_is_the_same_as_all_at_once(cell, family, told):
    event = (2, 3, 7)
    x = bits(5, event)
    model = small(event, x, cell=cell, family=family, told=told, levels=2, layers=2)
    p = model(x, k=3).likelihood
    last, state, terms = None, None, []
    for step in in_steps(x, event).unbind(-3):
        of_step, state = model.decoder.advance(p.h, last, state)
        terms.append(of_step.log_prob(step))
        last = step.expand(3, *step.shape)
    torch.testing.assert_close(torch.stack(terms, -1), p.terms(x))
    torch.testing.assert_close(p.log_prob(x), p.expand((3, 5)).terms(x).sum(-1))


def test_earlier_steps_are_hidden_in_training_alone():
    x = bits(6, (2, 8))
    p = small((2, 8), word_dropout=0.5)
    with torch.no_grad():
        p.decoder.unknown.normal_()
    z = torch.randn(6, 2)
    p.train()
    assert not p.generate(6, z=[z]).log_prob(x).equal(p.generate(6, z=[z]).log_prob(x))
    p.eval()
    told = p.generate(6, z=[z]).log_prob(x)
    assert told.equal(p.generate(6, z=[z]).log_prob(x))
    without = small((2, 8))
    fill(without, tensors(p))
    assert told.equal(without.train().generate(6, z=[z]).log_prob(x))


@pytest.mark.parametrize("cell", CELLS)
def test_where_all_is_hidden_steps_do_not_know_each_other(cell):
    x = bits(6, (2, 8))
    other = x.clone()
    other[..., :7] = 1 - x[..., :7]
    model = small((2, 8), cell=cell, word_dropout=1.0)
    for p in (model.train().generate(6), model.eval().generate(6)):
        assert p.terms(x)[:, 7].equal(p.terms(other)[:, 7])
    p = small((2, 8), cell=cell, word_dropout=0.9).eval().generate(6)
    assert not p.terms(x)[:, 7].equal(p.terms(other)[:, 7])


def test_as_many_steps_are_hidden_as_was_asked():
    decoder = small((2, 9), word_dropout=0.3).decoder
    e = torch.ones(2000, 9, 8)
    hidden = (decoder.hide(e) == 0).all(-1)
    assert within(hidden.flatten().float(), 0.3)


def trained(data: Data, objective: Objective, **changes):
    torch.manual_seed(0)
    model = small(data.event, data.fixed("train"), width=16, **changes)
    for _ in Trainer(model, objective, Options(steps=150, batch=50, lr=2e-2, valid_every=0)).fit(data):
        pass
    run = {
        "model": {"word_dropout": 0.0} | changes,
        "objective": {"name": "elbo", "beta": 1.0},
        "train": {"steps": 150},
    }
    return Subject(model.eval(), run, [], data)


@pytest.fixture(scope="module")
def walk() -> Data:
    """Walks from 0, whose steps say nothing of each other but what the last one says of the next."""
    turn = torch.rand(1300, 1, 10, generator=torch.Generator().manual_seed(0)) < 0.2
    turn[..., 0] = False
    parts = dict(zip(("train", "valid", "test"), torch.arange(1300).split([1000, 100, 200])))
    return Data("walk", (turn.cumsum(-1) % 2).to(torch.uint8), parts, levels=2)


ENTROPY = -9 * (0.2 * math.log(0.2) + 0.8 * math.log(0.8))


@pytest.mark.parametrize("cell", CELLS)
def test_a_decoder_that_needs_no_z_is_told_to_hide_its_past(walk, cell):
    subject = trained(walk, Elbo(), cell=cell)
    # as good as any model can be, by its decoder alone
    assert subject.held_out.bound.mean == pytest.approx(-ENTROPY, abs=5 * subject.held_out.bound.standard_error + 0.1)
    found = posterior_collapse(subject)
    assert found.verdict == "finding" and subject.held_out.rate.mean < 0.2
    assert {"model.word_dropout=0.4", "objective.name=free_bits"} < set(found.remedy)


@pytest.mark.parametrize("cell", ["gru", "transformer"])
def test_a_past_that_was_never_seen_is_never_looked_at(cell):
    decoder = small((2, 8), cell=cell, word_dropout=1.0).eval().decoder
    h = decoder.told(torch.randn(3, 2))
    steps, others = (in_steps(bits(3, (2, 8)), (2, 8)) for _ in range(2))
    later = [decoder.parallel(h, past).log_prob(steps) for past in (steps, others)]
    torch.testing.assert_close(*later)
    state = decoder.advance(h, None, None)[1]
    after = [decoder.advance(h, past[:, 0], state)[0].log_prob(steps[:, 1]) for past in (steps, others)]
    torch.testing.assert_close(*after)
    torch.testing.assert_close(after[0], later[0][:, 1])


@pytest.mark.parametrize("objective, word_dropout", [(Elbo(), 1.0), (FreeBits(2.0), 0.0)])
def test_z_comes_back_where_the_past_is_hidden_or_its_bits_are_free(walk, objective, word_dropout):
    subject = trained(walk, objective, word_dropout=word_dropout)
    assert posterior_collapse(subject).verdict == "healthy"
    assert decoder_without_z(subject).verdict == "healthy"


@pytest.mark.parametrize("family", list(recipes.FAMILIES))
@pytest.mark.parametrize("event", [(6,), (3, 4), (1, 3, 4)])
def test_every_family_takes_sequences(family, event):
    unit = family in ("bernoulli", "continuous_bernoulli")
    x = bits(40, event) if unit else fives(40, event)
    model = small(event, x, family=family, levels=5, components=2)
    trace = model(x[:8], k=2)
    assert trace.log_weight().shape == (2, 8) and trace.log_weight().isfinite().all()
    Elbo()(trace).mean().backward()
    idle = {"decoder.unknown"}
    assert all((p.grad is not None) == (name not in idle) for name, p in model.named_parameters())
    drawn = model.generate(50).sample()
    assert drawn.shape == (50, *event)
    assert model.decoder.family.support.check(drawn).all()


@pytest.mark.parametrize("posterior, prior", [
    ("normal", "vamp"), ("full", "flow"), ("iaf", "gmm"), ("laplace", "mixture"), ("sphere", "sphere"),
])  # fmt: skip
def test_posteriors_and_priors_are_those_of_any_vector(posterior, prior):
    x = fives(40, (5,))
    model = small((5,), x, family="categorical", levels=5, posterior=posterior, prior=prior)
    Elbo()(model(x[:8], k=2)).mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert model.generate(3).sample().shape == (3, 5)


def test_measurements_are_densities_in_their_own_units():
    x = plane(200, (3, 6))
    here = small((3, 6), x, family="normal")
    there = small((3, 6), 10 * x, family="normal")
    fill(there, {**tensors(there), **{k: v for k, v in tensors(here).items() if "shift" not in k and "unit" not in k}})
    z = torch.randn(200, 2)
    change = here.generate(200, z=[z]).log_prob(x) - there.generate(200, z=[z]).log_prob(10 * x)
    torch.testing.assert_close(change, torch.full((200,), 18 * math.log(10)), rtol=1e-4, atol=1e-3)


def test_a_model_without_data_is_filled_from_one_with():
    x = plane(30, (2, 4))
    options = dict(family="normal", prior="vamp")
    told, blind = small((2, 4), x, **options), small((2, 4), **options)
    fill(blind, tensors(told))
    torch.manual_seed(0)
    here = told(x).log_weight()
    torch.manual_seed(0)
    assert torch.equal(blind(x).log_weight(), here)


@pytest.mark.parametrize("changes, message", [
    (dict(event=()), r"one x of shape \(\) has fewer than two steps"),
    (dict(event=(4, 1)), r"one x of shape \(4, 1\) has fewer than two steps. Turn the axes round"),
    (dict(word_dropout=1.2), r"word_dropout=1.2 must be in \[0, 1\]"),
    (dict(width=0, layers=0), "width=0 must be 1 or more; layers=0 must be 1 or more"),
    (dict(dropout=1.0), r"dropout=1.0 must be in \[0, 1\)"),
])  # fmt: skip
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)
