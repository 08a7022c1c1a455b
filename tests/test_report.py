"""The report: a page for every kind of model and data, safe to open, the same each time, without side effects."""

import base64
import io
import re
from html.parser import HTMLParser

import PIL.Image
import pytest
import torch
from torch import nn

from lowerbound import recipes, report
from lowerbound.columns import Column
from lowerbound.data import Data, split
from lowerbound.distributions import Quantized
from lowerbound.evaluation import evaluate
from lowerbound.families import (
    Categorical,
    DiscretizedLogisticMixture,
    Family,
    FullNormal,
    InverseAutoregressive,
    Normal,
    Point,
)
from lowerbound.figures import marginals, png
from lowerbound.models import VAE, Conditional, Level, TopDownVAE
from lowerbound.nets import conv_down, conv_up, mlp
from lowerbound.priors import Mixture, StandardNormal
from lowerbound.refit import fit_prior
from lowerbound.report.subject import Subject
from lowerbound.report.words import duration, headline, overfitting
from lowerbound.views import typical, typical_name, without_gradients

RUN = {
    "data": {"name": "toy", "path": "<b>&"},
    "model": {"name": "mlp", "hidden": [8, 8]},
    "objective": {"name": "elbo", "warmup": None},
    "train": {"steps": 100, "compile": False},
}
LOG = [
    {"step": step, "loss": 9.0, "bound": -9.0 - 1 / step, "rate": 1.0, "distortion": 8.0, "skipped": 3}
    | ({"valid_bound": -9.5, "train_bound": -9.0} if step == 40 else {})
    for step in range(10, 101, 10)
]
EVIL = "<script>alert('$x_{')</script>"


def images(channels: int = 1, labels: bool = True, **more) -> Data:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 17, (40, channels, 6, 8), generator=generator).to(torch.uint8)
    return Data(
        "toy",
        x,
        split(40),
        torch.arange(40) % 3 if labels else None,
        ("a", "b", EVIL),
        levels=17,
        notes=(EVIL,),
        **more,
    )


def table(d: int = 5) -> Data:
    x = torch.randn(60, d, generator=torch.Generator().manual_seed(1)) * torch.logspace(0, 3, d)
    return Data("table", x, split(60), torch.rand(60, 2), ("size", "$"))


def vae(data: Data, posterior: Family, prior: nn.Module | None = None, likelihood: Family | None = None) -> VAE:
    likelihood = likelihood or (DiscretizedLogisticMixture(data.event, 17, 2) if data.discrete else Normal(data.event))
    encoder = Conditional(mlp(data.event, posterior.shape, hidden=(8,)), posterior)
    decoder = Conditional(mlp(posterior.event, likelihood.shape, hidden=(8,)), likelihood)
    return VAE(encoder, prior or StandardNormal(posterior.event), decoder)


def spatial(data: Data) -> VAE:
    posterior, likelihood = Normal((2, 3, 4)), DiscretizedLogisticMixture(data.event, 17, 1)
    encoder = Conditional(conv_down(data.event, posterior.shape, channels=(4,)), posterior)
    decoder = Conditional(conv_up((2, 3, 4), likelihood.shape, channels=(4,)), likelihood)
    return VAE(encoder, StandardNormal((2, 3, 4)), decoder)


class Prior(nn.Module):
    def __init__(self):
        super().__init__()
        self.given = Conditional(mlp((6,), (6,), hidden=(8,)), Normal((3,)))

    def forward(self, h):
        return self.given(h), h


class Posterior(nn.Module):
    def __init__(self):
        super().__init__()
        self.given = Conditional(mlp((12,), (6,), hidden=(8,)), Normal((3,)))

    def forward(self, h, a, p):
        return self.given(torch.cat([h, a.expand_as(h)], -1))


class Merge(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp((3,), (6,), hidden=(8,))

    def forward(self, h, z):
        return h + self.net(z)


class Features(nn.Module):
    def __init__(self, event):
        super().__init__()
        self.net = mlp(event, (2, 6), hidden=(8,))

    def forward(self, x):
        return self.net(x / 8 - 1).unbind(-2)


def ladder(data: Data) -> TopDownVAE:
    likelihood = DiscretizedLogisticMixture(data.event, 17, 1)
    decoder = Conditional(mlp((6,), likelihood.shape, hidden=(8,)), likelihood)
    return TopDownVAE(Features(data.event), [Level(Prior(), Posterior(), Merge()) for _ in range(2)], decoder, (6,))


CASES = {
    "grey": lambda: (images(), vae(images(), Normal((4,)))),
    "colour": lambda: (images(3), vae(images(3), Normal((4,)))),
    "binarised": lambda: (images(noise="binarize"), vae(images(), Normal((4,)))),
    "dequantised": lambda: (images(noise="dequantize"), vae(images(), Normal((4,)), likelihood=Normal((1, 6, 8)))),
    "no labels": lambda: (images(labels=False), vae(images(), Normal((4,)))),
    "categorical": lambda: (images(), vae(images(), Normal((4,)), likelihood=Categorical((1, 6, 8), 17))),
    "table": lambda: (table(), vae(table(), Normal((3,)))),
    "points of a plane": lambda: (table(2), vae(table(2), Normal((2,)))),
    "one column": lambda: (table(1), vae(table(1), Normal((1,)))),
    "latent plane": lambda: (images(), vae(images(), Normal((2,)))),
    "one latent": lambda: (images(), vae(images(), Normal((1,)))),
    "point": lambda: (images(), vae(images(), Point((4,)))),
    "full": lambda: (images(), vae(images(), FullNormal((4,)))),
    "flow": lambda: (images(), vae(images(), InverseAutoregressive((4,), hidden=8))),
    "mixture prior": lambda: (images(), vae(images(), Normal((4,)), Mixture((4,), 3))),
    "ladder": lambda: (images(), ladder(images())),
    "spatial": lambda: (images(), spatial(images())),
}


class Page(HTMLParser):
    VOID = ("meta", "img")

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.links, self.titles, self.pictures, self.words = [], [], [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href"):
                self.links.append(value)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)


def written(folder, data, model, **more) -> Page:
    evaluation = evaluate(model, data.fixed("test"), k=2, discrete=data.discrete)
    path = folder / "report.html"
    options = {"run": RUN, "log": LOG, "notes": ["a <note>"], "seconds": 90.0} | more
    assert report.write(path, model=model, data=data, evaluation=evaluation, **options) == path
    return Page(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_model_and_data_has_its_page(case, tmp_path):
    torch.manual_seed(0)
    data, model = CASES[case]()
    page = written(tmp_path, data, model, log=LOG if case in ("grey", "point") else [])
    shown = {"Reconstructions", "Samples", "Interpolations", "Traversals", "The latent space",
             "Nearest training data", "Notes", "The run"}  # fmt: skip
    assert shown <= set(page.titles)
    assert ("Training" in page.titles) == (case in ("grey", "point"))
    assert ("Levels" in page.titles) == (case == "ladder")
    assert ("The latent plane" in page.titles) == (case == "latent plane")
    assert ("no bound on log p(x)" in page.words) == (case == "point")
    assert ("density" in page.words) == (data.levels is None)
    with torch.no_grad():
        how = typical_name(model.generate(1, *(c[:1] for c in data.context("test"))))
    says = {"mean": "show the mean of", "mode": "show the likeliest value", "draw": "show a draw from"}
    assert [name for name, words in says.items() if words in page.words] == [how]
    # nothing is loaded, nothing runs, what is shown is also beside the page
    assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "script" not in page.tags and "link" not in page.tags
    inside = {base64.b64decode(link.partition(",")[2]) for link in page.links}
    assert inside == {path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert all(max(PIL.Image.open(io.BytesIO(png)).size) < 4000 for png in inside)
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "figures"}


def test_levels_are_shown_one_by_one_and_dead_ones_named(tmp_path):
    data, model = CASES["ladder"]()
    with torch.no_grad():  # the second level's posterior no longer moves with x
        for p in model.levels[1].posterior.parameters():
            p.zero_()
        for p in model.levels[1].prior.parameters():
            p.zero_()
        for p in model.levels[0].posterior.parameters():
            p.mul_(4)
    page = written(tmp_path, data, model)
    assert "Level 2 of 2 is dead" in page.words and "Grey: dead levels" in page.words
    names = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert {"levels", "progressive", "rates", "dimensions"} <= names and "dimensions1" not in names


def test_what_is_held_is_one_draw_of_all_levels_together():
    data, model = CASES["ladder"]()
    with without_gradients(model, 0):
        evaluation = evaluate(model, data.fixed("test"), k=1)
        subject = Subject.of(model, data, evaluation, [], "test")
        trace = model(subject.x)
        torch.manual_seed(5)
        z = subject.inferred
        torch.manual_seed(5)
        assert all(torch.equal(a, b.z[0]) for a, b in zip(z, model(subject.x).sites, strict=True))
    assert len(z) == len(trace.sites) == 2


def test_the_words_of_an_autoencoder_say_whether_its_prior_was_fitted(tmp_path):
    data, model = CASES["point"]()
    with torch.no_grad():
        model.encoder.net.net[-2].weight.mul_(100)
    page = written(tmp_path, data, model)
    assert "lies elsewhere than the codes" in page.words and "refit RUN --prior gmm" in page.words
    assert "need not look like data" in page.words
    fitted = fit_prior(model, data.fixed("train"), data.fixed("valid"), components=1)
    page = written(tmp_path, data, fitted)
    assert "no bound on log p(x)" in page.words and "Its prior lies where the codes are" in page.words
    assert "no model of the data" not in page.words and "need not look like data" not in page.words


class Chosen(nn.Module):
    """x -> codes: of 8, the first three, each as often as the others."""

    def forward(self, x):
        codes = (torch.arange(6 * len(x)) % 3).reshape(len(x), 1, 2, 3)
        return Quantized(codes.float(), codes, 8, torch.zeros(len(x)))


def test_codes_are_counted_and_nothing_is_shown_between_them(tmp_path):
    data = images()
    likelihood = DiscretizedLogisticMixture(data.event, 17, 1)
    decoder = Conditional(nn.Sequential(nn.Flatten(-3), mlp((6,), likelihood.shape, hidden=(8,))), likelihood)
    page = written(tmp_path, data, VAE(Chosen(), StandardNormal((1, 2, 3)), decoder))
    assert "Codes" in page.titles and not {"Interpolations", "Traversals"} & set(page.titles)
    assert "Usage 38% of 8 codes, perplexity 3." in page.words


def mixed(rows: int = 200, extra: int = 0) -> Data:
    pytest.importorskip("pyarrow")
    from lowerbound.data import frame

    generator = torch.Generator().manual_seed(1)
    size = torch.randn(rows, generator=generator).round(decimals=2)
    cells = {
        "size": size.tolist(),
        "$x_{": [None if i % 9 == 0 else ("no", "yes")[value > 0] for i, value in enumerate(size.tolist())],
        "count": torch.poisson(torch.full((rows,), 30.0), generator=generator).int().tolist(),
        "letter": [chr(97 + value) for value in torch.randint(12, (rows,), generator=generator).tolist()],
        "day": [f"2020-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(rows)],
        "hour": [i % 24 for i in range(rows)],
    }
    cells |= {f"more{i}": torch.randn(rows, generator=generator).tolist() for i in range(extra)}
    return frame(cells, columns={"hour": {"kind": "cyclic", "period": 24}})


@pytest.mark.parametrize("extra", [0, 7])
def test_a_table_shows_synthetic_rows_beside_real_ones(extra, tmp_path):
    data = mixed(extra=extra)
    model = recipes.table(columns=[column.table() for column in data.columns], latent=2, hidden=(8,))
    page = written(tmp_path, data, model)
    assert "Synthetic rows" in page.titles
    assert {"marginals.png", "associations.png"} <= {path.name for path in (tmp_path / "figures").iterdir()}
    assert ("The 12 of 13 columns that are furthest off" in page.words) == (extra > 0)
    assert re.search(r"Synthetic rows are off by 0\.\d{3} in the mean, training rows by 0\.\d{3}", page.words)
    if not extra:
        first = (tmp_path / "report.html").read_bytes()
        torch.manual_seed(99)
        written(tmp_path, data, model)
        assert (tmp_path / "report.html").read_bytes() == first


def test_a_table_of_few_rows_has_its_page(tmp_path):
    data = mixed(rows=30)
    model = recipes.table(columns=[column.table() for column in data.columns], latent=2, hidden=(8,))
    assert "Synthetic rows" not in written(tmp_path, data, model).titles


def test_marginals_are_drawn_of_whatever_a_column_holds():
    columns = [Column("a", "real", decimals=0), Column("b", "ordinal", tuple(map(str, range(30)))), Column("c", "real")]
    real = torch.stack([torch.full((20,), 3.0), torch.arange(20.0), torch.full((20,), torch.nan)], 1)
    assert png(marginals(columns, real, real)) == png(marginals(columns, real, real))
    axes = marginals(columns, real, real).axes
    bars = [[patch.get_width() for patch in axes[1].patches][side * 8 :][:8] for side in (0, 1)]
    assert bars[0] == bars[1] and sum(bars[0]) == pytest.approx(1)
    assert [text.get_text() for text in axes[1].get_yticklabels()][-1] == "23 more"
    assert not axes[2].patches


def test_what_comes_from_outside_is_text(tmp_path):
    page = written(tmp_path, images(), vae(images(), Normal((4,))))
    assert EVIL in page.words and "a <note>" in page.words and "<b>&" in page.words
    assert "compile" in page.words and "100" in page.words


@pytest.mark.parametrize("case", ["mixture prior", "ladder"])
def test_the_same_run_gives_the_same_page_and_leaves_no_trace(case, tmp_path):
    data, model = CASES[case]()
    model.train()
    before, weights = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    written(tmp_path, data, model)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training and all(module.training for module in model.modules())
    assert all(torch.equal(v, weights[k]) and v.grad is None for k, v in model.state_dict().items())
    first = (tmp_path / "report.html").read_bytes()
    torch.manual_seed(99)
    written(tmp_path, data, model)
    assert (tmp_path / "report.html").read_bytes() == first
    assert first.count(b"90 seconds") == 1


def test_the_page_of_a_model_that_failed_leaves_the_older_one_alone(tmp_path):
    data, model = CASES["grey"]()
    written(tmp_path, data, model)
    first = (tmp_path / "report.html").read_bytes()
    evaluation = evaluate(model, data.fixed("test"), k=1, discrete=True)
    model.decoder = nn.Identity()
    with pytest.raises(Exception):
        report.write(tmp_path / "report.html", run=RUN, model=model, data=data, evaluation=evaluation, log=LOG)
    assert (tmp_path / "report.html").read_bytes() == first and model.training


def test_a_page_without_a_log_or_notes(tmp_path):
    data, model = CASES["table"]()
    page = written(tmp_path, data, model, log=[], notes=(), seconds=None, split="valid")
    assert "Training" not in page.titles and "Notes" not in page.titles
    assert "Trained in" not in page.words


def test_reconstructions_are_of_the_split_and_in_its_pixels(tmp_path):
    data, model = CASES["grey"]()
    written(tmp_path, data, model)
    sheet = PIL.Image.open(tmp_path / "figures" / "reconstructions.png")
    grey = set((data.fixed("test").unique() / 16 * 255).round().int().tolist())
    top = torch.tensor([sheet.getpixel((x, 4))[0] for x in range(4, sheet.width)])
    assert set(top.tolist()) <= grey | {214}


def test_what_is_shown_is_the_mean_the_mode_or_a_draw():
    from torch.distributions import Categorical, Independent, Normal, TransformedDistribution
    from torch.distributions.transforms import ExpTransform, TanhTransform

    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.0, 1.0]])
    categories = Independent(Categorical(logits=logits), 1)
    assert typical(categories).tolist() == [1, 0] and typical_name(categories) == "mode"
    assert typical(Normal(2.0, 1.0)) == 2 and typical_name(Normal(2.0, 1.0)) == "mean"
    odd = TransformedDistribution(Normal(torch.zeros(3), 1.0), [ExpTransform(), TanhTransform()])
    assert typical(odd).shape == (3,) and typical_name(odd) == "draw"


def test_the_headline_says_what_was_measured_and_what_went_wrong():
    data, model = CASES["grey"]()
    say = lambda k=7, log=LOG: " ".join(
        headline(evaluate(model, data.fixed("test"), k=k, discrete=True), data, log, "test")
    )
    assert re.search(r"On 4 held-out images of the test split, .* log p\(x\) ≥ −\d", say())
    assert "(importance-weighted bound, 7 samples)" in say() and "(one-sample bound)" in say(k=1)
    assert "bits per pixel; to guess uniformly would cost 4.09" in say()
    assert "3 of 100 updates were skipped" in say() and "skipped" not in say(log=[])
    with torch.no_grad():
        model.encoder.net.net[-2].weight.zero_()  # q(z|x) no longer depends on x
    assert "None of the 4 latent dimensions is used: the posterior has collapsed" in say()
    with torch.no_grad():
        next(model.decoder.parameters()).fill_(torch.nan)
    assert "the model has diverged" in say()


def test_overfitting_is_the_gap_of_the_last_validation():
    assert "gap of 0.5 nats." in overfitting(LOG)
    assert "is overfitting" in overfitting([{"step": 1, "train_bound": -50.0, "valid_bound": -90.0}])
    assert "fare no worse" in overfitting([{"step": 1, "train_bound": -90.0, "valid_bound": -89.0}])
    assert overfitting([{"step": 1, "train_bound": None, "valid_bound": -90.0}]) == ""


def test_durations_are_said_in_their_units():
    assert [duration(s) for s in (12.2, 600.0, 36_000.0)] == ["12 seconds", "10 minutes", "10.0 hours"]
