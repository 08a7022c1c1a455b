"""The sections of a laboratory's page, in order: functions of the subject, each None where it has nothing to say.

Every figure comes with two sentences: what is shown, and what to look at.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import figures
from ..figures import Line, Panel
from ..latents import principal_axes
from ..page import Figure, Section
from ..views import View
from .measures import SHOWN, Results
from .plan import AUTOENCODER, spell
from .training import Lab

POINTS = 1000


@dataclass(frozen=True)
class Subject:
    """What the page is about.

    Attributes:
        lab: The laboratory.
        results: What was found of its members.
        view: How rows are shown.
    """

    lab: Lab
    results: Results
    view: View

    @property
    def kind(self) -> str:
        """What rows are called."""
        return "images" if self.view.is_image else "rows"

    @property
    def axis(self) -> str:
        """What the weights are."""
        return self.lab.plan.axis

    @property
    def shown_weights(self) -> list[float | None]:
        """The members that pictures are of: the plain autoencoder first, where there is one."""
        return [w for w in (None, *self.results.weights) if w in self.results.shown]

    def labels(self) -> list[str]:
        """Their names beside a picture."""
        return [AUTOENCODER if weight is None else spell(weight) for weight in self.shown_weights]

    def line(self, label: str, name: str) -> Line | None:
        """A number over the weights, if it was measured at all of them."""
        found = self.results.over(name)
        if not found:
            return None
        reference = self.results.at(name, None)
        return Line(
            label,
            [estimate.mean for estimate in found],
            [estimate.standard_error for estimate in found],
            None if reference is None else reference.mean,
        )

    def panel(self, title: str, lines: dict[str, str], **marks: float) -> Panel | None:
        """Some numbers on one axis."""
        drawn = [line for label, name in lines.items() if (line := self.line(label, name))]
        return Panel(title, drawn, marks) if drawn else None

    def over_weights(self, *panels: Panel | None) -> figures.Picture | None:
        """Panels side by side; None if there is nothing in any."""
        there = [panel for panel in panels if panel]
        return figures.over_weights(self.results.labels, there, self.axis) if there else None

    def strips(self, rows: Tensor, labels: Sequence[str], group: int = 1) -> figures.Picture:
        """Rows of data, each named at its left."""
        rows = figures.unit_interval(rows, self.view.low, self.view.high)
        return figures.strips(labels, rows, group=group, image=self.view.is_image)

    @property
    def dotted(self) -> str:
        """What a dotted line is."""
        return " Dotted: the plain autoencoder." if None in self.results.shown else ""


def rate_and_distortion(subject: Subject) -> Section | None:
    """What the code costs and what it leaves to say."""
    results = subject.results
    found = [(w, results.at("rate", w), results.at("distortion", w)) for w in results.weights]
    points = [(weight, rate, distortion) for weight, rate, distortion in found if rate and distortion]
    if not points:
        return None
    trained, rates, distortions = zip(*points, strict=True)
    labels = [spell(weight) for weight in trained]
    reference = results.at("distortion", None)
    picture = figures.rate_distortion(
        labels,
        torch.tensor([rate.mean for rate in rates], dtype=torch.float64),
        torch.tensor([distortion.mean for distortion in distortions], dtype=torch.float64),
        torch.tensor([[r.standard_error, d.standard_error] for r, d in zip(rates, distortions, strict=True)]),
        marked=trained.index(1.0) if 1.0 in trained and subject.lab.plan.weighs_kl else None,
        entropy=results.entropy if results.discrete else None,
        autoencoder=None if reference is None else reference.mean,
        dims=results.dims if results.discrete else None,
        discrete=results.discrete,
    )
    caption = (
        "Each point is a model, named by its weight: what its code costs, and what is left to say once the code is "
        "known. Thin lines join points of equal bound: look which weight touches the lowest one, and how steeply the "
        "curve falls to its left, where a nat of code saves more than a nat of distortion."
    )
    text = ["The bound is minus the sum of two costs, of the code and of what it leaves to say."]
    if subject.lab.plan.weighs_kl:
        text[0] += (
            " The weight of the KL term sets their rate of exchange: with weight w, training spends a nat of rate "
            "wherever it saves more than w nats of distortion."
        )
    if dead := [label for label, rate in zip(labels, rates, strict=True) if rate.mean < figures.COLLAPSED]:
        text.append(
            f"At weight {', '.join(dead)} the rate is below {figures.COLLAPSED} nats: the posterior has collapsed onto "
            "the prior, and the decoder describes the average of the data."
        )
    return Section("Rate and distortion", tuple(text), (Figure("rate_distortion", picture, caption),))


def generation(subject: Subject) -> Section | None:
    """What the prior generates."""
    shown = subject.results.shown
    data = subject.lab.data.fixed("test", SHOWN).cpu()
    rows = torch.stack([_padded(data), *(shown[weight].samples for weight in subject.shown_weights)])
    pictures = subject.strips(rows, ["data", *subject.labels()])
    what = "means of p(x|z)" if subject.view.is_image else "draws from p(x|z)"
    caption = (
        f"Real {subject.kind} above, then {what} for the same draws z from the prior at every weight. "
        "Look where samples begin to be possible data, and where they begin to be all alike."
    )
    of_features = shown[subject.shown_weights[0]].of_features
    where = "features of a classifier of the labels" if of_features else f"the {subject.kind} themselves"
    found = [Figure("generation", pictures, caption)]
    chart = subject.over_weights(
        subject.panel("A classifier tells samples from data", {"accuracy": "classifier"}, chance=0.5),
        subject.panel("Squared MMD of samples and data", {"MMD": "mmd"}),
        subject.panel("Prior samples where no posterior is", {"share": "holes"}, expected=0.01),
    )
    if chart:
        caption = (
            f"How far draws from p(x|z), with their noise, are from data that no model has seen, measured on {where}; "
            f"lower is better.{subject.dotted} Look for the lowest weight whose samples are as good as any."
        )
        found.append(Figure("distances", chart, caption))
    text = "To generate, z is drawn from the prior and decoded. That works as far as codes of data fill the prior."
    return Section("Generation", (text,), tuple(found))


def interpolation(subject: Subject) -> Section | None:
    """What lies between two data."""
    shown = subject.results.shown
    pairs = len(shown[subject.shown_weights[0]].paths)
    if pairs == 0:
        return None
    rows = torch.stack([shown[weight].paths[pair] for pair in range(pairs) for weight in subject.shown_weights])
    pictures = subject.strips(rows, subject.labels() * pairs, group=len(subject.shown_weights))
    caption = (
        "The straight line between the codes of two data, decoded; the same pairs at every weight. "
        "Look whether the middle could be data, or whether one end fades into the other."
    )
    found = [Figure("interpolation", pictures, caption)]
    chart = subject.over_weights(
        subject.panel("Distance of paths to data", {"ratio": "nearest"}, data=1.0),
        subject.panel("Length over the shortest path", {"ratio": "stretch"}, shortest=1.0),
    )
    if chart:
        caption = (
            "Left: how far points on a path are from the nearest training datum, as a multiple of what held-out data "
            "are. Right: how much longer the decoded path is than the shortest the decoder could take."
            f"{subject.dotted} Look for weights at which both are near 1, and do not forget that a decoder that always "
            "says the same has short paths too."
        )
        found.append(Figure("smoothness", chart, caption))
    return Section("Interpolation", ("A latent space is smooth if what lies between data is like data.",), tuple(found))


def random_latents(subject: Subject) -> Section | None:
    """Why a plain autoencoder does not generate."""
    shown = subject.results.shown
    if None not in shown or subject.shown_weights == [None]:
        return None
    text = (
        "What a plain autoencoder decodes from N(0, I) is the row of samples above that has its name. Nothing has tied "
        "its codes to that distribution: they lie wherever reconstruction put them, and most of N(0, I) is empty of "
        "them."
    )
    if min(shown[None].codes.shape) < 2:
        return Section("Random latents, and why they fail", (text + " One latent dimension makes no map of that.",))
    # the weight that is nearest to 1, by its factor
    middle = min((w for w in subject.shown_weights if w is not None), key=lambda w: abs(math.log(max(w, 1e-9))))
    found = [_codes(subject, "codes_autoencoder", "the plain autoencoder", shown[None].codes, standard=True)]
    standard = subject.lab.plan.run["model"].get("prior") == "normal"
    found.append(_codes(subject, "codes_vae", f"weight {spell(middle)}", shown[middle].codes, standard))
    return Section("Random latents, and why they fail", (text,), tuple(found))


def _codes(subject: Subject, file: str, name: str, codes: Tensor, standard: bool) -> Figure:
    """Where codes lie; over the prior, where that is standard normal."""
    labels, names, by = _one_label(subject)
    axes, _ = principal_axes(codes, 2)
    # drawn over the prior itself: neither centred nor scaled
    picture = figures.latent_map(
        codes[:POINTS] @ axes.T,
        labels,
        names=names,
        axes_titles=("first principal axis", "second"),
        circles=standard,
        title=name + by,
    )
    caption = f"Codes of held-out data of {name}, along the two axes on which they vary most. "
    if standard:
        length = codes.square().sum(1).mean().sqrt().item() / math.sqrt(codes.shape[1])
        caption += (
            "The circles are one and two standard deviations of N(0, I), whose samples are 1 / "
            f"{length:.2g} times as long: look how much of it they fill."
        )
    else:
        caption += "The prior is learned, and no circle shows it: look whether classes lie apart."
    return Figure(file, picture, caption)


def representation(subject: Subject) -> Section | None:
    """What the codes are good for."""
    results, data = subject.results, subject.lab.data
    found = []
    chance = {}
    if data.labels is not None and data.labels.ndim == 1:
        chance = {"most frequent class": data.labels.unique(return_counts=True)[1].max().item() / len(data.labels)}
    accuracy = subject.panel(
        "Accuracy of labels from codes", {"linear probe": "probe", "nearest neighbours": "neighbours"}, **chance
    )
    noun = "choices" if subject.lab.plan.run["model"]["name"] == "codes" else "dimensions"
    chart = subject.over_weights(accuracy, subject.panel(f"Active {noun}", {"active": "active_units"}))
    if chart:
        caption = (
            "Left: how well the labels can be read off the posterior means, cross-validated. Right: how many latent "
            f"{noun} move with the data.{subject.dotted} Look for the weight from which the codes lose what you "
            "need."
            if accuracy
            else f"How many latent {noun} move with the data.{subject.dotted} Look for the weight from which they "
            "die; without labels nothing can be said of what the codes know."
        )
        found.append(Figure("representation", chart, caption))
    kls = {spell(weight): kl for weight in results.weights if (kl := results.kl(weight)) is not None}
    if kls:
        caption = (
            "What each latent dimension costs at each weight, largest first"
            f"{', the mean of all seeds' if subject.lab.plan.seeds > 1 else ''}. Look where dimensions die one after "
            "another, and whether those that are left cost alike."
        )
        picture = figures.dimensions(list(kls), torch.stack(list(kls.values())), subject.axis)
        found.append(Figure("kl_per_dimension", picture, caption))
    parts = {
        "mutual information": "mutual_information",
        "total correlation": "total_correlation",
        "dimension-wise KL": "dimension_wise",
    }
    if not results.over("dimension_wise"):
        parts = {"mutual information": "mutual_information", "aggregated posterior to prior": "gap"}
    if results.over("gap"):
        seen = min(int(compared.mean) for compared in results.over("compared") if compared.mean > 0)
        stacked = {label: [(e.mean, e.standard_error) for e in results.over(name)] for label, name in parts.items()}
        caption = (
            "The KL term in its parts: what codes say of data, how far their dimensions depend on each other, and how "
            f"far each is from the prior. Of the first no more than log {seen:,} = {math.log(seen):.1f} nats can be "
            "seen with so many data; look how much of the rest a better prior would give back."
        )
        found.append(
            Figure("parts_of_kl", figures.terms(results.labels, stacked, subject.axis, "The KL term"), caption)
        )
    return Section("Representation", (), tuple(found)) if found else None


def factors(subject: Subject) -> Section | None:
    """How well single dimensions stand for single factors."""
    chart = subject.over_weights(
        subject.panel("A dimension for each factor", {name: name for name in ("MIG", "SAP", "DCI completeness")}),
        subject.panel(
            "A factor for each dimension", {name: name for name in ("modularity", "DCI disentanglement", "IRS")}
        ),
        subject.panel(
            "Which factor was held",
            {name: name for name in ("FactorVAE score", "beta-VAE score", "DCI informativeness")},
        ),
    )
    if chart is None:
        return None
    caption = (
        "Scores of posterior means against the known factors; 1 would be perfect, and MIG and SAP cannot quite reach "
        "it for factors of few levels. Look whether they agree: each measures something else, and one seed says little."
        f"{subject.dotted}"
    )
    text = (
        f"The data have known factors ({', '.join(subject.lab.data.label_names)}). A representation is disentangled if "
        "each latent dimension follows one of them."
    )
    return Section("Disentanglement", (text,), (Figure("disentanglement", chart, caption),))


def _one_label(subject: Subject) -> tuple[Tensor | None, tuple[str, ...], str]:
    """What colours held-out codes: their class, or their first factor; the names of the classes, and of the factor."""
    labels, names = subject.results.shown[None].labels, subject.lab.data.label_names
    if labels is None:
        return None, (), ""
    if labels.ndim == 1:
        return labels[:POINTS], names, ""
    return labels[:POINTS, 0], (), f", by {names[0]}" if names else ""


def _padded(rows: Tensor) -> Tensor:
    """As many rows as samples are shown: the first again, where there are fewer."""
    return rows[torch.arange(SHOWN) % len(rows)]


SECTIONS: Sequence[Callable[[Subject], Section | None]] = (
    rate_and_distortion,
    generation,
    interpolation,
    random_latents,
    representation,
    factors,
)
