"""Training: every promise of the loop, by hand where a hand can do it, bit for bit where bits are promised."""

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lowerbound.train.trainer
from helpers import MODELS, LinearGaussian
from lowerbound import families, nets, priors, recipes
from lowerbound.data import Data
from lowerbound.data.dataset import PARTS
from lowerbound.distributions import DiagonalNormal
from lowerbound.metrics import Estimate
from lowerbound.models import VAE, Conditional, Model, Site, Trace
from lowerbound.objectives import Elbo, Iwae, Reconstruction, Weight
from lowerbound.train import OPTIMIZERS, Options, Trainer, TrainingError, fill, first_bad_tensor, tensors
from lowerbound.train.batches import Batches, seed_of

QUICK = Options(steps=12, batch=8, warmup=3, valid_every=0, lr=1e-2)


@dataclass
class Numbers:
    """Rows that carry their own number, and what was drawn of them."""

    n: int = 20
    change: Callable[[int, Tensor], Tensor] = lambda at, x: x
    drawn: list[Tensor] = field(default_factory=list)
    at: int = -2  # the first two draws are a look ahead
    told: None = None

    @property
    def x(self) -> Tensor:
        return torch.randn(self.n, 4, generator=torch.Generator().manual_seed(1)) + torch.arange(self.n)[:, None] / 10

    @property
    def split(self) -> dict[str, Tensor]:
        return {"train": torch.arange(self.n)}

    def fixed(self, part: str, rows: int = 0) -> Tensor:
        return self.x[:6][: rows or None]

    def draw(self, rows: Tensor, generator: torch.Generator | None) -> Tensor:
        x = self.change(self.at, rows) if self.at >= 0 else rows
        self.drawn += [rows.clone()] if self.at >= 0 else []
        self.at += 1
        return x

    def tell(self, x: Tensor, labels: None) -> tuple[Tensor, ...]:
        return ()

    def context(self, part: str, rows: int = 0) -> tuple[Tensor, ...]:
        return ()


def small(seed: int = 0, scale: str | float = 1.0) -> VAE:
    torch.manual_seed(seed)
    z, x = families.Normal((2,)), families.Normal((4,), scale)
    encoder = Conditional(nets.mlp((4,), z.shape, hidden=(8,)), z)
    return VAE(encoder, priors.StandardNormal((2,)), Conditional(nets.mlp((2,), x.shape, hidden=(8,)), x))


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in tensors(trainer.model).items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Bit for bit, whatever the bits mean."""

    def bits(t: Tensor) -> Tensor:
        return t.detach().flatten().contiguous().view(torch.uint8)

    return a.keys() == b.keys() and all(torch.equal(bits(a[name]), bits(b[name])) for name in a)


@pytest.mark.parametrize("n, batch", [(20, 5), (20, 6), (7, 7), (20, 1)])
def test_each_pass_takes_each_row_at_most_once_and_in_another_order(n, batch):
    data = Numbers(n)
    passes = 3
    in_a_pass = n // batch
    list(Trainer(small(), Elbo(), replace(QUICK, steps=passes * in_a_pass, batch=batch)).fit(data))
    assert len(data.drawn) == passes * in_a_pass
    orders = []
    for i in range(passes):
        rows = torch.cat(data.drawn[i * in_a_pass : (i + 1) * in_a_pass])
        where = (rows[:, None] == data.x).all(-1).float().argmax(-1)
        assert len(where.unique()) == len(where) == in_a_pass * batch
        orders.append(where.tolist())
    assert n == batch == 1 or orders[0] != orders[1] != orders[2]


def test_the_order_follows_the_seed():
    drawn = []
    for seed in (0, 0, 1):
        data = Numbers()
        list(Trainer(small(), Elbo(), replace(QUICK, seed=seed)).fit(data))
        drawn.append(torch.cat(data.drawn))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_the_noise_of_the_data_is_not_that_of_the_latent_variables():
    trainer = Trainer(small(), Elbo(), QUICK)
    of_data = torch.rand(100, generator=trainer.generator)
    torch.set_rng_state(trainer.noise[0])
    assert len(torch.cat((of_data, torch.rand(100))).unique()) > 190


def test_the_learning_rate_by_hand():
    options = Options(steps=100, lr=0.5, warmup=4)
    assert [options.rate(s) for s in range(3)] == pytest.approx(
        [0.5 * w * 0.5 * (1 + math.cos(math.pi * s / 100)) for s, w in enumerate((0.25, 0.5, 0.75))]
    )
    assert options.rate(50) == pytest.approx(0.25) and 0 < options.rate(99) < 2e-4
    flat = replace(options, decay="constant")
    assert [flat.rate(s) for s in (0, 3, 4, 99)] == [0.125, 0.5, 0.5, 0.5]
    assert Options(steps=10, lr=0.5, warmup=0, decay="constant").rate(0) == 0.5


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_learning_rate_reaches_the_optimizer(optimizer):
    trainer = Trainer(small(), Elbo(), replace(QUICK, optimizer=optimizer))
    given = watched(trainer, lambda lr: lr)
    for step in trainer.fit(Numbers()):
        assert set(given[-len(trainer.optimizers) :]) == {step.lr} == {trainer.options.rate(step.number - 1)}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["bernoulli", "spatial", "ladder", "iaf_flow"])
def test_each_parameter_moves_once_and_only_matrices_decay(name, optimizer):
    case = MODELS[name]
    model = case.make(case.data().fixed("train"))
    trainer = Trainer(model, Elbo(), replace(QUICK, weight_decay=0.1, optimizer=optimizer))
    moved = [id(p) for optimizer in trainer.optimizers for p in optimizer.parameters]
    assert sorted(moved) == sorted(id(p) for p in model.parameters())
    decayed = {id(p) for optimizer in trainer.optimizers if optimizer.weight_decay for p in optimizer.parameters}
    maps = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    assert decayed == {id(module.weight) for module in maps} != set()


def watched(trainer: Trainer, look: Callable[[float], float]) -> list[float]:
    """What is seen whenever an optimiser is about to step, with the learning rate that it is given."""
    found: list[float] = []

    def watch(optimizer):
        step = optimizer.step
        optimizer.step = lambda lr: (found.append(look(lr)), step(lr))

    for optimizer in trainer.optimizers:
        watch(optimizer)
    return found


def gradient_at_the_optimizer(trainer: Trainer) -> list[float]:
    """The length of each gradient that the optimiser is given."""
    return watched(trainer, lambda lr: math.sqrt(sum(float(p.grad.square().sum()) for p in trainer.parameters)))


@pytest.mark.parametrize("clip", [3.0, 0.0])
def test_a_long_gradient_is_shortened_to_a_multiple_of_its_usual_length(clip):
    data = Numbers(change=lambda at, x: x * 60 if at == 20 else x)
    trainer = Trainer(small(), Elbo(), replace(QUICK, steps=25, clip=clip, insane=1e6, lr=1e-4))
    given = gradient_at_the_optimizer(trainer)
    usual = []
    norms = []
    for step in trainer.fit(data):
        norms.append(step.grad_norm)
        usual.append(math.exp(trainer.usual_log_norm))
    assert norms[20] > 10 * usual[19]
    assert given[20] == pytest.approx(clip * usual[19] if clip else norms[20], rel=1e-4)
    others = [i for i in range(25) if i != 20 and norms[i] < 2 * usual[i - 1]]
    assert [given[i] for i in others] == pytest.approx([norms[i] for i in others], rel=1e-4)
    assert len(others) > 15


def test_limits_are_multiples_so_units_of_the_loss_do_not_matter():
    class Scaled(Reconstruction):
        def __call__(self, trace, step=None):
            return 1e5 * super().__call__(trace, step)

    after = []
    for objective in (Reconstruction(), Scaled()):
        trainer = Trainer(small(), objective, replace(QUICK, clip=1.0, lr=1e-3))
        list(trainer.fit(Numbers()))
        assert trainer.skipped == 0
        after.append(weights(trainer))
    for name, t in after[0].items():
        torch.testing.assert_close(after[1][name], t, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e6])
@pytest.mark.parametrize("at", [0, 5])
def test_one_bad_batch_is_skipped_and_counted_and_leaves_no_trace(bad, at):
    if at == 0 and bad == 1e6:
        pytest.skip("there is nothing usual yet")
    data = Numbers(change=lambda i, x: x * bad if i == at else x)
    trainer = Trainer(small(), Elbo(), QUICK)
    before = None
    for step in trainer.fit(data):
        now = weights(trainer), {n: t.clone() for n, t in tensors(trainer.averaged).items()}
        if step.number == at + 1:
            assert step.skipped == 1
            if before:
                assert same(now[0], before[0]) and same(now[1], before[1])
        elif before:
            assert not same(now[0], before[0])
            assert step.skipped == (1 if step.number > at else 0)
        before = now
    assert all(t.isfinite().all() for t in before[0].values())


def test_no_gradient_at_all_changes_nothing_and_breaks_nothing():
    class Nothing(Reconstruction):
        def __call__(self, trace, step=None):
            return 0.0 * trace.log_likelihood().mean(0)

    trainer = Trainer(small(), Nothing(), QUICK)
    before = weights(trainer)
    list(trainer.fit(Numbers()))
    assert same(weights(trainer), before) and trainer.skipped == 0


def test_data_that_stay_bad_stop_training_by_name():
    data = Numbers(change=lambda i, x: x * math.nan if i >= 3 else x)
    trainer = Trainer(small(), Elbo(), replace(QUICK, steps=50, give_up=4))
    with pytest.raises(TrainingError, match=r"4 updates in a row could not be made; .*the batch of data itself"):
        list(trainer.fit(data))
    assert trainer.skipped == 4 and trainer.step == 6


def test_weights_that_are_bad_stop_training_by_name():
    model = small()
    with torch.no_grad():
        model.decoder.net.net[1].bias[2] = math.nan
    with pytest.raises(TrainingError, match=r"first tensor that is not finite is the weight decoder.net.net.1.bias"):
        list(Trainer(model, Elbo(), replace(QUICK, steps=50, give_up=2)).fit(Numbers()))


def test_outputs_that_are_bad_stop_training_by_name():
    model = small()
    with torch.no_grad():
        model.encoder.net.net[-2].weight.fill_(3e38)
    with pytest.raises(TrainingError, match=r"is the output of encoder.net.net.\d \(Linear\)"):
        list(Trainer(model, Elbo(), replace(QUICK, steps=50, give_up=2)).fit(Numbers()))


def test_a_likelihood_that_is_bad_is_named():
    model = small()
    assert first_bad_tensor(model, torch.zeros(2, 4)) is None
    assert first_bad_tensor(model, torch.full((2, 4), 1e30)) == "the log-likelihood"
    autoencoder = recipes.mlp(event=(4,), latent=2, hidden=(8,), posterior="point", family="normal")
    assert first_bad_tensor(autoencoder, torch.zeros(2, 4)) == "the KL term"


def test_gradients_that_stay_insane_stop_training():
    data = Numbers(change=lambda i, x: x * 1e5 if i >= 6 else x)
    trainer = Trainer(small(), Elbo(), replace(QUICK, steps=50, give_up=3))
    with pytest.raises(
        TrainingError, match=r"all values are finite, but the gradient is \d+ times its usual length.*train.lr=3e-03"
    ):
        list(trainer.fit(data))


@pytest.mark.parametrize("ema", [0.9, 0.3])
def test_the_average_by_hand(ema):
    trainer = Trainer(small(), Elbo(), replace(QUICK, ema=ema))
    by_hand = weights(trainer)
    for step in trainer.fit(Numbers()):
        decay = min(ema, step.number / (9 + step.number))
        by_hand = {name: decay * t + (1 - decay) * tensors(trainer.model)[name] for name, t in by_hand.items()}
        for name, t in tensors(trainer.averaged).items():
            torch.testing.assert_close(t, by_hand[name])
    assert not trainer.averaged.training and not any(p.requires_grad for p in trainer.averaged.parameters())
    assert same(trainer.result(), tensors(trainer.averaged))


def test_without_an_average_the_model_is_its_own():
    trainer = Trainer(small(), Elbo(), replace(QUICK, ema=0.0))
    list(trainer.fit(Numbers()))
    assert trainer.averaged is trainer.model
    assert same(trainer.result(), tensors(trainer.model))


def test_an_average_shares_what_the_model_shares():
    case = MODELS["full_vamp"]
    data = case.data()
    trainer = Trainer(case.make(data.fixed("train")), Elbo(), QUICK)
    list(trainer.fit(data))
    assert trainer.averaged.prior.encoder is trainer.averaged.encoder
    assert trainer.averaged.encoder is not trainer.model.encoder


class Scripted:
    """Validations that say what they are told to."""

    def __init__(self, bounds, monkeypatch):
        self.bounds, self.real = iter(bounds), lowerbound.train.trainer.evaluate
        self.calls = 0
        monkeypatch.setattr(lowerbound.train.trainer, "evaluate", self)

    def __call__(self, model, x, *, k):
        self.calls += 1
        found = self.real(model, x, k=k)
        return replace(found, elbo=Estimate(next(self.bounds), 0.1)) if self.calls % 2 else found


def test_patience_keeps_the_best_weights(monkeypatch):
    Scripted([-9.0, -3.0, -4.0, -3.5, -1.0], monkeypatch)
    trainer = Trainer(small(), Elbo(), replace(QUICK, steps=12, valid_every=2, patience=2, ema=0.5))
    kept, steps = {}, []
    for step in trainer.fit(Numbers()):
        steps.append(step)
        kept[step.number] = {name: t.clone() for name, t in tensors(trainer.averaged).items()}
    assert [s.number for s in steps if s.validation] == [2, 4, 6, 8] and steps[-1].number == 8
    assert [s.done for s in steps] == [False] * 7 + [True]
    assert same(trainer.result(), kept[4]) and not same(trainer.result(), tensors(trainer.averaged))
    assert list(trainer.fit(Numbers())) == []  # it does not start again


def test_without_patience_the_last_weights_are_kept(monkeypatch):
    Scripted([-1.0, -3.0, -4.0, -5.0, -6.0, -7.0], monkeypatch)
    trainer = Trainer(small(), Elbo(), replace(QUICK, steps=12, valid_every=2))
    assert len(list(trainer.fit(Numbers()))) == 12
    assert same(trainer.result(), tensors(trainer.averaged))


def test_validation_is_of_held_out_rows_and_at_the_last_step_too():
    case = MODELS["bernoulli"]
    data = case.data()
    options = replace(QUICK, steps=7, valid_every=3, valid_rows=5)
    found = [s.validation for s in Trainer(case.make(data.fixed("train")), Elbo(), options).fit(data)]
    assert [v is not None for v in found] == [False, False, True, False, False, True, True]
    assert len(found[-1].valid.values) == len(found[-1].train.values) == 5
    assert found[-1].valid.k == 1
    assert not torch.equal(found[-1].valid.values, found[-1].train.values)


def test_an_autoencoder_without_a_bound_is_judged_by_its_distortion():
    """A point posterior's bound is never finite: patience must not take that for no progress."""
    x = torch.rand(60, 6)
    parts = dict(zip(("train", "valid", "test"), torch.arange(60).split([40, 10, 10])))
    data = Data("bits", x, parts)
    model = recipes.mlp(x[:40], event=(6,), latent=4, hidden=(16,), posterior="point", family="normal")
    trainer = Trainer(model, Reconstruction(), replace(QUICK, steps=40, valid_every=2, patience=3, ema=0.0, batch=20))
    steps = list(trainer.fit(data))
    distortions = [s.validation.valid.distortion.mean for s in steps if s.validation]
    assert trainer.best and -trainer.best_bound == min(distortions) < distortions[0]
    assert steps[-1].number > 8  # more than patience alone would have given it
    assert steps[-1].terms.loss.isfinite() and not steps[-1].bound.isfinite()


@pytest.mark.parametrize("precision, optimizer", [("float32", "adamw"), ("bfloat16", "adamw"), ("float32", "muon")])
@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_trains(name, precision, optimizer):
    case = MODELS[name]
    data = case.data()
    model = case.make(data.fixed("train"))
    trainer = Trainer(model, Elbo(), replace(QUICK, steps=40, batch=20, precision=precision, optimizer=optimizer))
    losses = [step.terms.loss for step in trainer.fit(data)]
    assert all(loss.dtype == torch.float32 for loss in losses) and trainer.skipped == 0
    assert sum(losses[-8:]) < sum(losses[:8])
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_bfloat16_is_near_float32_and_not_the_same():
    case = MODELS["conv"]
    data = case.data()
    first = []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        trainer = Trainer(case.make(data.fixed("train")), Elbo(), replace(QUICK, precision=precision))
        first.append(float(next(iter(trainer.fit(data))).terms.loss))
    assert first[0] != first[1] and first[0] == pytest.approx(first[1], rel=0.02)


def run(trainer: Trainer, data: Data, until: int = 99) -> list[tuple]:
    seen = []
    for step in trainer.fit(data):
        found = step.validation and (step.validation.valid.elbo.mean, step.validation.train.elbo.mean)
        seen.append((step.number, float(step.terms.loss), float(step.grad_norm), step.lr, step.skipped, found))
        if step.number == until:
            break
    return seen


RESUME = Options(steps=10, batch=8, lr=1e-2, warmup=3, valid_every=4, patience=50)


@pytest.mark.parametrize(
    "changes", [dict(ema=0.9), dict(ema=0.0, optimizer="adamax", patience=0), dict(optimizer="muon", clip=1.0)]
)
@pytest.mark.parametrize("name", list(MODELS))
def test_a_trainer_goes_on_from_a_state_bit_for_bit(name, changes):
    case, options = MODELS[name], replace(RESUME, **changes)
    data = case.data()

    def fresh(seed):
        torch.manual_seed(seed)
        return Trainer(case.make(data.fixed("train")), Elbo(Weight(warmup=8)), options)

    whole = fresh(1)
    expected = run(whole, data)
    for cut in (0, 3, 4, 7, 10):
        first = fresh(1)
        run(first, data, cut) if cut else None
        state, numbers = first.state()
        snapshot = {key: t.clone() for key, t in state.items()}
        run(first, data)  # what happens to the first no longer matters
        assert same(state, snapshot)
        second = fresh(2)
        second.load(state, numbers)
        assert run(second, data) == expected[cut:]
        assert same(weights(second), weights(whole)) and same(second.result(), whole.result())
        assert same(state, snapshot)


def test_a_state_of_another_optimizer_is_refused():
    tensors_of, numbers = Trainer(small(), Elbo(), replace(QUICK, optimizer="adamax")).state()
    with pytest.raises(ValueError, match=r"the state is of another optimiser .*: the two differ in largest\.0"):
        Trainer(small(), Elbo(), QUICK).load(tensors_of, numbers)


def test_leaving_the_loop_and_coming_back_changes_nothing():
    case = MODELS["bernoulli"]
    data = case.data()

    def fresh():
        torch.manual_seed(1)
        return Trainer(case.make(data.fixed("train")), Elbo(), RESUME)

    expected = run(fresh(), data)
    trainer = fresh()
    assert run(trainer, data, 3) + run(trainer, data, 6) + run(trainer, data) == expected


@pytest.mark.parametrize("name", ["bernoulli", "mixture"])
def test_the_callers_use_of_random_numbers_changes_nothing(name):
    case = MODELS[name]
    data = case.data()
    seen = []
    for disturb in (False, True):
        torch.manual_seed(1)
        trainer = Trainer(case.make(data.fixed("train")), Elbo(), RESUME)
        losses = []
        for step in trainer.fit(data):
            losses.append(float(step.terms.loss))
            if disturb:
                torch.manual_seed(step.number)
                torch.randn(step.number)
                trainer.model.eval()  # to look at it, say
        seen.append(losses)
    assert seen[0] == seen[1]


def test_a_trainer_leaves_the_callers_random_numbers_alone():
    case = MODELS["bernoulli"]
    data = case.data()
    model = case.make(data.fixed("train"))
    before = torch.get_rng_state()
    list(Trainer(model, Elbo(), RESUME).fit(data))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_state_of_another_model_is_refused():
    saved, numbers = Trainer(small(), Elbo(), QUICK).state()
    other = Trainer(small(scale="shared"), Elbo(), QUICK)
    with pytest.raises(ValueError, match=r"missing from the file: model.decoder.family.affine.shared"):
        other.load(saved, numbers)


def test_filling_a_model_says_all_that_differs():
    model = small()
    saved = {name: t.clone() for name, t in tensors(model).items()}
    saved["extra"] = torch.zeros(1)
    removed = "decoder.net.net.1.bias"
    del saved[removed]
    saved["decoder.net.net.1.weight"] = torch.zeros(3, 3)
    before = {name: t.clone() for name, t in tensors(model).items()}
    match = (
        rf"only in the file: extra; missing from the file: {removed}; "
        r"decoder.net.net.1.weight has shape \[3, 3\] in the file and \[8, 2\] in the model"
    )
    with pytest.raises(ValueError, match=match):
        fill(model, saved)
    assert same({name: t.clone() for name, t in tensors(model).items()}, before)


def test_fewer_rows_than_a_batch_are_refused():
    with pytest.raises(ValueError, match=r"batch=21 is more than the 20 rows there are.*train.batch=20 or less"):
        next(iter(Trainer(small(), Elbo(), replace(QUICK, batch=21)).fit(Numbers(20))))


@pytest.mark.parametrize("weight", [Weight(warmup=13), Weight(warmup=2, cycle=6, cycles=3)])
def test_a_schedule_that_cannot_end_is_refused(weight):
    with pytest.raises(ValueError, match=rf"schedule ends at step {weight.horizon}, training at step 12"):
        Trainer(small(), Elbo(weight), QUICK)
    Trainer(small(), Elbo(weight), replace(QUICK, steps=weight.horizon))


@pytest.mark.parametrize("objective", [Elbo(k=0), Iwae(0)])
def test_no_samples_are_refused(objective):
    with pytest.raises(ValueError, match=r"k=0: an objective takes 1 sample"):
        Trainer(small(), objective, QUICK)


def test_all_options_that_cannot_work_are_listed_at_once():
    wrong = dict(
        steps=0, batch=0, give_up=0, valid_rows=0, warmup=-1, weight_decay=-0.1, clip=-1.0, valid_every=-1, patience=-1,
        seed=-1, lr=math.inf, insane=1.0, ema=1.0, hide=1.5, decay="linear", optimizer="sgd", precision="float16",
    )  # fmt: skip
    with pytest.raises(ValueError, match="these training options cannot work") as caught:
        Options(**wrong)
    for name in wrong:
        assert f"{name}=" in str(caught.value)
    for one in [dict(lr=0.0), dict(lr=math.nan), dict(ema=math.nan), dict(steps=-3), dict(insane=4.0, clip=5.0)]:
        with pytest.raises(ValueError, match="these training options cannot work"):
            Options(**one)
    with pytest.raises(ValueError, match=r"patience=3 needs validations: set valid_every"):
        Options(patience=3, valid_every=0)


def test_probabilistic_pca_reaches_its_maximum_likelihood():
    """Tipping & Bishop 1999: the maximum is known, and so is the likelihood of what was learned."""
    truth = LinearGaussian.random(x=5, z=2, scale=0.5)
    x = truth.sample(400).float()
    values, _ = torch.linalg.eigh(x.double().T.cov(correction=0))
    noise = values[:3].mean()
    best = -0.5 * (5 * math.log(2 * math.pi) + values[3:].log().sum() + 3 * noise.log() + 5)

    z, likelihood = families.FullNormal((2,)), families.Normal((5,), "shared")
    model = VAE(
        Conditional(nn.Linear(5, z.shape[0]), z), priors.StandardNormal((2,)), Conditional(nn.Linear(2, 5), likelihood)
    )
    parts = {"train": torch.arange(400), "valid": torch.arange(1), "test": torch.arange(1)}

    class All(Data):
        def __post_init__(self):
            pass

    options = Options(steps=1500, batch=400, lr=2e-2, warmup=20, valid_every=0, ema=0.99)
    trainer = Trainer(model, Elbo(k=4), options)
    for _ in trainer.fit(All("pca", x, parts)):
        pass
    learned = trainer.averaged.decoder
    scale = learned(torch.zeros(2)).scale[0].double().item()
    found = (
        LinearGaussian(learned.net.weight.double(), learned.net.bias.double(), scale).marginal().log_prob(x.double())
    )
    assert best - 0.01 < found.mean() <= best + 1e-6
    bound = lowerbound.train.trainer.evaluate(trainer.averaged, x, k=50)
    assert best - 0.02 < bound.elbo.mean < best + 0.02  # the posterior has become the true one


@pytest.mark.parametrize("family", ["normal", "laplace", "student_t"])
@pytest.mark.parametrize("recipe", ["mlp", "conv"])
def test_other_units_of_the_data_cost_their_logarithm_and_nothing_else(family, recipe):
    c = 64.0  # a power of two: floats only change their exponent
    event = (1, 4, 6)
    x = torch.randn(40, *event, generator=torch.Generator().manual_seed(0)) * 3 + 7
    values = []
    for scale in (1.0, c):
        torch.manual_seed(0)
        rows = x * scale
        small_net = dict(hidden=(8,)) if recipe == "mlp" else dict(channels=(8,))
        model = getattr(recipes, recipe)(rows, event=event, latent=2, family=family, **small_net)
        parts = dict(zip(("train", "valid", "test"), torch.arange(40).split([24, 8, 8])))
        trainer = Trainer(model, Elbo(), replace(QUICK, steps=10))
        list(trainer.fit(Data("units", rows, parts)))
        values.append(lowerbound.train.trainer.evaluate(trainer.averaged, rows, k=3).values)
    torch.testing.assert_close(values[1] + 24 * math.log(c), values[0], rtol=1e-4, atol=1e-3)


COMPILE = """
import sys
sys.path.insert(0, {tests!r})
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from helpers import MODELS
from lowerbound.objectives import FreeBits, Weight
from lowerbound.train import Loss

for name, case in MODELS.items():
    torch._dynamo.reset()
    x = case.data().fixed("train")
    loss = Loss(case.make(x), FreeBits(0.1, Weight(1.0, warmup=50, cycle=60)))
    loss(x, torch.tensor(0.0))  # the first call of a divergence registers it
    # zuko's transforms, numpy's nodes and recurrent networks break the graph
    whole = name not in ("iaf_flow", "sphere", "sequence")
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(loss, backend=counter, fullgraph=whole)
    counts = []
    for step in range(4):
        terms = compiled(x, torch.tensor(float(step)))
        terms.loss.backward()
        counts.append(counter.frame_count)
    assert len(set(counts)) == 1 and (counts[0] == 1 or not whole), (name, counts)
    torch.manual_seed(0)
    expected = loss(x, torch.tensor(7.0)).loss
    torch.manual_seed(0)
    torch.testing.assert_close(compiled(x, torch.tensor(7.0)).loss, expected)
print("compiled", len(MODELS))
"""


@pytest.mark.slow
def test_a_compiled_step_is_one_graph_and_is_not_compiled_again_when_the_weight_changes():
    """In a process of its own: the run-time check of shapes cannot be traced."""
    script = COMPILE.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == f"compiled {len(MODELS)}"


def test_the_package_trains_in_double_precision():
    case = MODELS["mixture"]
    doubles = case.data().fixed("train").double()
    model = case.make(doubles.float()).double()
    assert nn.utils.parameters_to_vector(model.parameters()).dtype == torch.float64

    class Rows(Numbers):
        x = doubles

    steps = list(Trainer(model, Elbo(), QUICK).fit(Rows()))
    assert steps[-1].terms.loss.dtype == torch.float64


class Exploding(Model):
    """A loss that is finite, with a gradient that is not."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.w = nn.Parameter(torch.zeros(3))

    def generate(self, n, *context, z=()):
        raise NotImplementedError

    def trace(self, x, code, *context, k=1):
        value = self.w.sum().abs().sqrt() + 0 * x.sum()
        return Trace(x, (Site(torch.zeros(1, len(x), 1), NORMAL, NORMAL),), Constant(value.expand(1, len(x))))


class Constant(torch.distributions.Distribution):
    def __init__(self, value) -> None:
        self.value = value
        super().__init__(value.shape, validate_args=False)

    def log_prob(self, x):
        return self.value


NORMAL = DiagonalNormal(torch.zeros(1, 1), torch.ones(1, 1), 1)


def test_a_first_gradient_that_is_not_finite_is_skipped():
    model = Exploding()
    trainer = Trainer(model, Elbo(), replace(QUICK, steps=3, valid_every=0))
    assert [step.skipped for step in trainer.fit(Numbers())] == [1, 2, 3]
    assert model.w.tolist() == [0.0, 0.0, 0.0]


def test_patience_waits_for_the_schedule():
    model = MODELS["bernoulli"]
    data = model.data()
    options = Options(steps=40, batch=4, warmup=0, valid_every=1, patience=2, lr=1e-9)
    found = list(Trainer(model.make(data.fixed("train")), Elbo(Weight(warmup=30)), options).fit(data))
    assert found[-1].done
    assert found[-1].number >= 30 + 2


def test_a_part_of_the_rows_loses_a_random_part_of_what_is_known():
    data = Data("rows", torch.randn(4000, 50), {part: torch.arange(4000)[i::3] for i, part in enumerate(PARTS)})
    options = replace(QUICK, batch=1300, hide=0.4)
    (x,) = Batches(data, options, torch.device("cpu")).draw(0, torch.Generator().manual_seed(3))
    holed = x.isnan().double().mean(1)
    whole = holed == 0
    assert abs(whole.double().mean() - 0.6) < 0.05
    # the part that is hidden is uniform: a half of it on average, and spread out by the root of a twelfth
    assert abs(holed[~whole].mean() - 0.5) < 0.05 and abs(holed[~whole].std() - 12**-0.5) < 0.03
    rows = data.train[torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed_of(0, "pass 0")))]
    torch.testing.assert_close(x, rows[:1300].masked_fill(x.isnan(), math.nan), equal_nan=True)
    assert not Batches(data, QUICK, torch.device("cpu")).draw(0, None)[0].isnan().any()
