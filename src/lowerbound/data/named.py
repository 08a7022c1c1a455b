"""The named sets: real data with the splits and the bits of the literature."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .arrays import parse_idx
from .dataset import Data, one_of, split
from .files import content, find, here, verify

CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
LAROCHELLE_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"

# SHA-256 of what is inside the .gz files; their MD5s are the published ones.
MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FASHION_SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
# SHA-256 of Larochelle's bits, a byte each: the same for his text files and for an .npz of them.
LAROCHELLE_SHA256 = {
    "train": "43490d4d6ac9002727af4426d8748609fdb7e4094fa65ad8d681ea60082a7a5a",
    "valid": "069b4f0beb389b776478c3e872b4df71c95ac4be64d7cbe6d32e24ebac8e6d5e",
    "test": "ca0294c3b8d984c7a1dc891015a8eea6f37bae59a34e35ea0fc8c47110a8dd86",
}


def digits(*, split_seed: int = 0) -> Data:
    """1,797 handwritten digits of 8x8 pixels with 17 grey levels, which come with scikit-learn.

    Args:
        split_seed: Of the split into 80 % train, 10 % valid, 10 % test.

    Source: *Alpaydin & Kaynak 1998, https://archive.ics.uci.edu/dataset/80* (its test part).
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return Data(
        "digits",
        torch.from_numpy(images.astype("uint8")).reshape(-1, 1, 8, 8),
        split(len(images), seed=split_seed),
        torch.from_numpy(labels.astype("int64")),
        label_names=tuple("0123456789"),
        levels=17,
    )


def mnist(*, binarize: str = "none", valid: int = 10_000) -> Data:
    """MNIST: 70,000 handwritten digits of 28x28 grey pixels.

    The split is that of the literature on VAEs: the first 50,000 of the official training images to learn from,
    the last 10,000 of them to choose by, the official 10,000 to test on.

    Args:
        binarize: "none" keeps 256 grey levels. "dynamic" draws new bits at each use. "static" draws them once,
            from a fixed seed; these are not the bits of Larochelle that papers call static, which are
            `binarized_mnist`: bounds on the two do not compare.
        valid: How many of the 60,000 official training images, the last, to choose by rather than learn from.

    Raises:
        ValueError: There would be none to choose by, or none to learn from.

    Source: *LeCun et al. 1998, http://yann.lecun.com/exdb/mnist/*.
    """
    return _mnist_like("mnist", MNIST_URL, MNIST_SHA256, tuple("0123456789"), binarize, valid)


def fashion(*, binarize: str = "none", valid: int = 10_000) -> Data:
    """Fashion-MNIST: 70,000 pieces of clothing of 28x28 grey pixels, split as MNIST is.

    Args:
        binarize: "none", "dynamic" or "static", as for `mnist`.
        valid: How many of the 60,000 official training images, the last, to choose by rather than learn from.

    Source: *Xiao et al. 2017, https://arxiv.org/abs/1708.07747*.
    """
    return _mnist_like("fashion_mnist", FASHION_URL, FASHION_SHA256, CLOTHES, binarize, valid)


def binarized_mnist(*, valid: int = 10_000) -> Data:
    """Larochelle's statically binarised MNIST: the fixed bits and split that published bounds in nats refer to.

    50,000 / 10,000 / 10,000 images of 28x28 bits, without labels. The test part is sorted by class, so a part of
    it must be drawn at random.

    Args:
        valid: How many of the 60,000 images that are not to test on, the last, to choose by rather than learn from.

    Raises:
        ValueError: There would be none to choose by, or none to learn from.

    Source: *Larochelle & Murray 2011, https://proceedings.mlr.press/v15/larochelle11a.html*.
    """
    held = _mnist_split(valid)
    packed = here("binarized_mnist", "binarized_mnist.npz")
    parts = []
    for part, sha256 in LAROCHELLE_SHA256.items():
        if packed:
            with np.load(packed, allow_pickle=False) as arrays:
                bits = arrays[part].tobytes()
            verify(bits, sha256, f"{part} of {packed}", "Delete the file and try again.")
        else:
            file = f"binarized_mnist_{part}.amat"
            bits = content(find("binarized_mnist", file, LAROCHELLE_URL + file, sha256), sha256)
        parts.append(torch.frombuffer(bytearray(bits), dtype=torch.uint8))
    x = torch.cat(parts).reshape(-1, 1, 28, 28)
    return Data("binarized_mnist", x, held, levels=2)


def _mnist_like(
    name: str, url: str, sha256: Mapping[str, str], label_names: tuple[str, ...], binarize: str, valid: int
) -> Data:
    one_of("binarize", binarize, ("none", "dynamic", "static"))
    held = _mnist_split(valid)
    arrays = {
        file: parse_idx(content(find(name, file, url + file, digest), digest), file) for file, digest in sha256.items()
    }
    images = [array for file, array in arrays.items() if "images" in file]
    labels = [array for file, array in arrays.items() if "labels" in file]
    grey = Data(
        name,
        torch.from_numpy(np.concatenate(images)[:, None]),
        held,
        torch.from_numpy(np.concatenate(labels).astype("int64")),
        label_names,
        noise="none" if binarize == "none" else "binarize",
        levels=256,
    )
    if binarize != "static":
        return grey
    bits = grey.draw(grey.x, torch.Generator().manual_seed(0)).to(torch.uint8)
    return Data(name, bits, grey.split, grey.labels, label_names, levels=2)


def _mnist_split(valid: int) -> dict[str, Tensor]:
    if not 0 < valid < 60_000:
        raise ValueError(
            f"valid={valid:,} of 60,000 images are to be held out to choose by: give 1 or more, and fewer than all "
            "(100 leaves nearly all of them to learn from)."
        )
    parts = torch.arange(70_000).split([60_000 - valid, valid, 10_000])
    return dict(zip(("train", "valid", "test"), parts, strict=True))
