"""The names that runs are made of, in a line each, for `lowerbound list`.

It repeats the keys of the dicts in `recipes` (a test holds them equal) because those import torch, which takes a
second, and a list of names should not.
"""

CATALOGUE: dict[str, dict[str, str]] = {
    "data": {
        "digits": "1,797 grey 8x8 handwritten digits; nothing to download",
        "shapes": "sprites with six known factors, rendered on the spot",
        "glyphs": "characters of the fonts that come with matplotlib",
        "mnist": "70,000 grey 28x28 digits; binarize=dynamic gives bits",
        "fashion": "70,000 grey 28x28 clothes; binarize=dynamic gives bits",
        "binarized_mnist": "the fixed bits that the literature reports on",
        "folder": "your images: data.path, data.size; subfolders are labels",
        "array": "your numbers: .npy, .npz or idx; data.path, data.key",
        "table": "your columns: .csv, .tsv, .parquet, .arrow; data.path",
    },
    "model": {
        "mlp": "two multi-layer perceptrons, for anything",
        "conv": "two residual convolutional stacks, for images of any size",
        "topdown": "a convolutional ladder: latents at several resolutions",
        "table": "columns of mixed kinds, with holes",
    },
    "objective": {
        "elbo": "the evidence lower bound; beta, with a warm-up or cycles",
        "free_bits": "the bound with a floor under the KL term or its parts",
        "capacity": "a KL term led along a capacity that rises",
        "balanced": "the bound, its KL gradient shared by prior and posterior",
        "geco": "the least KL term at a distortion that you give",
        "iwae": "the importance-weighted bound",
        "renyi": "between iwae and elbo; alpha",
        "stl": "the bound by sticking the landing",
        "dreg": "the importance-weighted bound, doubly reparameterised",
        "tc": "beta-TC-VAE: the total correlation of codes, weighed apart",
        "factor": "FactorVAE: the same, estimated by a discriminator",
        "dip": "DIP-VAE I and II: codes whose dimensions do not correlate",
        "info": "InfoVAE: codes that match the prior all together",
        "mutual": "the bound with a floor under what codes say of data",
        "wae": "Wasserstein autoencoder; model.posterior=point too",
        "reconstruction": "the likelihood alone: a plain autoencoder",
    },
}
