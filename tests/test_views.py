"""Views: what is shown is what the model says, whatever the kind of data, and nothing is disturbed by looking."""

import pytest
import torch
from torch import distributions as td

from lowerbound import recipes
from lowerbound.data import Data, split
from lowerbound.views import View, typical, typical_name, without_gradients


def grey(n, *event, levels=256):
    return torch.randint(0, levels, (n, *event)).to(torch.uint8)


CASES = {
    "images": lambda: Data("d", grey(30, 1, 6, 5, levels=17), split(30), levels=17),
    "colour": lambda: Data("d", grey(30, 3, 6, 5), split(30), levels=256),
    "bits": lambda: Data("d", grey(30, 1, 6, 6, levels=2), split(30), levels=2),
    "continuous images": lambda: Data("d", torch.randn(30, 1, 6, 6), split(30)),
    "dequantised": lambda: Data("d", grey(30, 1, 6, 6), split(30), levels=256, noise="dequantize"),
    "vectors": lambda: Data("d", torch.randn(30, 7) * torch.arange(7) + 3, split(30)),
    "a column": lambda: Data("d", torch.randn(30, 1), split(30)),
    "a line": lambda: Data("d", grey(30, 1, 1, 9), split(30), levels=256),
}


@pytest.fixture(params=list(CASES))
def view(request):
    data = CASES[request.param]()
    levels = data.observed_levels
    family = "normal" if levels is None else "bernoulli" if levels == 2 else "logistic_mixture"
    model = recipes.mlp(
        data.fixed("train"), event=tuple(data.event), latent=3, hidden=(8,), family=family, levels=levels or 256,
        prior="vamp", prior_components=3,
    )  # fmt: skip
    return View.of(model.eval(), data), data


def size(picture):
    return picture.size if hasattr(picture, "size") else picture.get_size_inches()


def test_every_operation_has_the_shape_it_says_and_can_be_drawn(view):
    view, data = view
    event, x = tuple(data.event), data.fixed("train")
    with without_gradients(view.model, 0):
        means = view.means(x)
        assert [m.shape for m in means] == [(len(x), 3)]
        again = view.reconstruct(x)
        assert again.shape == x.shape
        made = view.generate(9)
        assert made.shape == (9, *event)
        drawn = view.generate(9, draw=True)
        assert drawn.shape == (9, *event)
        paths = view.interpolate([m[:4] for m in means], [m[4:8] for m in means], 5)
        assert paths.shape == (4, 5, *event)
        moved = view.traverse(view.means(x[:1]), [(0, 2), (0, 0)], [torch.linspace(-1, 1, 3)] * 2)
        assert moved.shape == (2, 3, *event)
    assert all(t.isfinite().all() for t in (again, made, drawn, paths, moved))
    assert bool(view.model.decoder.family.support.check(drawn).all())  # a draw is a datum; a mean need not be
    pairs = torch.stack([x[:8], again[:8]])
    for picture in (view.sheet(made), view.strips(paths), view.strips(moved), view.stacks(pairs)):
        assert min(size(picture)) > 0


def test_a_path_ends_where_it_should_and_a_traversal_passes_through_its_start(view):
    view, data = view
    x = data.fixed("train")
    with without_gradients(view.model, 0):
        means = view.means(x)
        paths = view.interpolate([m[:2] for m in means], [m[2:4] for m in means], 7)
        decoded = view.generate(4, [m[:4] for m in means])
        torch.testing.assert_close(paths[:, 0], decoded[:2])
        torch.testing.assert_close(paths[:, -1], decoded[2:])
        here = means[0][0, 1]
        moved = view.traverse([means[0][:1]], [(0, 1)], [torch.stack([here - 1, here, here + 1])])
        torch.testing.assert_close(moved[0, 1], decoded[0])
        # only one dimension moves, one row at a time
        assert not torch.equal(moved[0, 0], moved[0, 1])


def test_batches_do_not_change_what_is_decoded(view, monkeypatch):
    view, data = view
    x = data.fixed("train")
    with without_gradients(view.model, 0):
        z = view.means(x)
        whole = view.generate(len(x), z)
        monkeypatch.setattr("lowerbound.views.BATCH", 5)
        torch.testing.assert_close(view.means(x)[0], z[0])
        torch.testing.assert_close(view.generate(len(x), z), whole)


def test_looking_disturbs_nothing(view):
    view, _ = view
    view.model.train()
    before = torch.get_rng_state()
    with without_gradients(view.model, 3):
        assert not view.model.training
        first = view.generate(4)
    assert view.model.training and torch.equal(torch.get_rng_state(), before)
    with without_gradients(view.model, 3):
        assert torch.equal(view.generate(4), first)
    with without_gradients(view.model, 4):
        assert not torch.equal(view.generate(4), first)
    with pytest.raises(RuntimeError, match="stop"), without_gradients(view.model, 0):
        raise RuntimeError("stop")
    assert view.model.training and torch.equal(torch.get_rng_state(), before)


def test_all_values_of_discrete_images_are_shown_from_black_to_white():
    data = CASES["images"]()
    view = View.of(recipes.mlp(event=(1, 6, 5), levels=17, family="logistic_mixture"), data)
    assert float(view.low) == 0 and float(view.high) == 16
    column = CASES["vectors"]()
    view = View.of(recipes.mlp(event=(7,), family="normal"), column)
    assert view.low.shape == view.high.shape == (7,) and bool((view.low <= view.high).all())
    x = column.fixed("train")
    assert ((x >= view.low) & (x <= view.high)).float().mean() > 0.85


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 100])
def test_columns_are_never_more_than_there_is_to_show(n):
    view = View(recipes.mlp(event=(1, 6, 6)), (1, 6, 6), torch.zeros(()), torch.ones(()))
    assert 1 <= view.columns(n) <= n
    view.sheet(torch.rand(n, 1, 6, 6))


@pytest.mark.parametrize(
    "p, shown",
    [
        (td.Normal(torch.tensor(2.0), 1.0), 2.0),
        (td.Bernoulli(torch.tensor(0.3)), 0.3),
        (td.Categorical(torch.tensor([0.1, 0.7, 0.2])), 1),
        (td.StudentT(5.0, torch.tensor(2.0)), 2.0),
        (td.Cauchy(torch.tensor(2.0), 1.0), 2.0),  # no mean: its mode
    ],
    ids=lambda p: type(p).__name__,
)
def test_what_is_shown_is_the_mean_or_else_the_mode(p, shown):
    assert float(typical(p)) == pytest.approx(shown)


def test_where_there_is_neither_mean_nor_mode_a_draw_is_shown():
    normal = td.Normal(torch.zeros(3), 1)
    flow = td.TransformedDistribution(normal, [td.ExpTransform()])
    assert typical(flow).shape == (3,) and bool((typical(flow) > 0).all()) and typical_name(flow) == "draw"


def test_a_prior_that_does_not_answer_for_the_codes_is_not_asked_for_their_range(view):
    view, data = view
    with without_gradients(view.model, 0):
        site = view.infer(data.fixed("train")[:1])[1][0]
        means = view.means(data.fixed("train"))[0]
        assert view.reach(site, False, means) is means
        assert view.reach(site, True, means).shape[1:] == (3,) and len(view.reach(site, True, means)) >= 500


def test_ways_between_directions_stay_on_the_sphere():
    data = Data("d", torch.randn(30, 7), split(30))
    options = dict(event=(7,), latent=3, hidden=(8,), family="normal", posterior="sphere", prior="sphere")
    model = recipes.mlp(data.fixed("train"), **options).eval()
    decoded = []
    model.decoder.register_forward_pre_hook(lambda module, inputs: decoded.append(inputs[0]))
    view = View.of(model, data)
    x = data.fixed("train")
    with without_gradients(model, 0):
        (means,) = view.means(x)
        torch.testing.assert_close(means, model.encoder(x).loc)
        decoded.clear()
        for spherical in (False, True):
            view.interpolate([means[:4]], [means[4:8]], 5, spherical=spherical)
        view.traverse([means[:1]], [(0, 2), (0, 0)], [torch.linspace(-1, 1, 3)] * 2)
        view.generate(50)
    z = torch.cat([rows.flatten(0, -2) for rows in decoded])
    assert len(z) == 2 * 20 + 6 + 50
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(len(z)))
