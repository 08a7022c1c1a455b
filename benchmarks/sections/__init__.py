"""The sections: each a module with `run(settings)`, which yields tables as they are ready."""

SECTIONS = {
    "mlp": "training an MLP VAE: every contestant, and the limit",
    "conv": "training a convolutional VAE, and the bound that it reaches",
    "step": "the split of a step, and the engine's overhead",
    "modes": "the ways to run a step",
    "startup": "time to the first step, and peak memory, each in a process of its own",
    "evaluation": "the importance-weighted bound, against pythae's get_nll and the limit",
    "decoding": "encoding and decoding rows, and the latency of decoding one latent",
    "folder": "opening a folder of JPEGs, and training on it",
    "ensemble": "eight models at once against one after another",
    "quality": "seconds to a validation bound of -90.5 nats on static MNIST",
    "gpu": "on a CUDA device: all of it at once",
}
# What --quick leaves out.
LONG = ("modes", "quality")
