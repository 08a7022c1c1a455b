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
        "chorales": "Bach as piano rolls, in windows of 16 quarter notes",
        "folder": "your images: data.path, data.size; subfolders are labels",
        "array": "your numbers: .npy, .npz or idx; data.path, data.key",
        "table": "your columns: .csv, .tsv, .parquet, .arrow; data.path",
    },
    "model": {
        "mlp": "two multi-layer perceptrons, for anything",
        "conv": "two residual convolutional stacks, for images of any size",
        "ladder": "latent vectors, each given those above it",
        "topdown": "a convolutional ladder: latents at several resolutions",
        "pixel": "a decoder that draws pixel by pixel, given z",
        "codes": "discrete codes (VQ, residual, FSQ, Gumbel) and their prior",
        "sequence": "step by step along the last axis: GRU or transformer",
        "cvae": "told of each row: its label, or a part of the image",
        "m2": "learns classes from few labels and all the data",
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
        "vaegan": "VAE-GAN: sharp images by a critic; no likelihood, no bound",
        "reconstruction": "the likelihood alone: an autoencoder, plain or RAE; no bound",
    },
}
# What a conditional model is told of each row, unless its run says something else.
TOLD = {"cvae": "label", "m2": "train label"}
