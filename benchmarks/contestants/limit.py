"""The limit: the matrix products of a step, and nothing else, each by the fastest routine on this machine.

A linear map of i inputs and o outputs costs a batch of b rows 2bio floating-point operations forward, as many for the
gradient of its weights, and as many for that of its inputs, which the first map of the encoder does not need. What each
product takes at best, in the same rounds as the contestants, is what no program can go below.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..problem import Problem
from ..race import Contestant
from ..timing import per_call, stopwatch

NAME = "the limit: matrix products alone"


@dataclass(frozen=True)
class Product:
    """a @ b of shapes (m, k) and (k, n), each stored by rows or, if transposed, by columns: as training has them."""

    m: int
    k: int
    n: int
    a_transposed: bool = False
    b_transposed: bool = False

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.m * self.k * self.n

    def operands(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Random matrices."""
        a = torch.randn((self.k, self.m) if self.a_transposed else (self.m, self.k), device=device).to(dtype)
        b = torch.randn((self.n, self.k) if self.b_transposed else (self.k, self.n), device=device).to(dtype)
        return a.T if self.a_transposed else a, b.T if self.b_transposed else b


def forward(batch: int, layers: list[tuple[int, int]]) -> list[Product]:
    """x W' of each layer."""
    return [Product(batch, i, o, b_transposed=True) for i, o in layers]


def training(batch: int, layers: list[tuple[int, int]]) -> list[Product]:
    """The products of a step: forward, the weights' gradients, and the inputs' but for the first layer's."""
    weights = [Product(o, batch, i, a_transposed=True) for i, o in layers]
    inputs = [Product(batch, o, i) for i, o in layers[1:]]
    return [*forward(batch, layers), *weights, *inputs]


def routines(product: Product, device: str = "cpu") -> dict[str, Callable[[], object]]:
    """The ways to compute a product on this machine, by the name of the library."""
    a, b = product.operands(device)
    out = torch.empty(product.m, product.n, device=device)
    found: dict[str, Callable[[], object]] = {"torch.mm": lambda: torch.mm(a, b, out=out)}
    if device != "cpu":
        return found
    if torch.backends.mkldnn.is_available():
        # torch.mm is MKL's, which runs at half speed on processors of other makers; oneDNN does not. It takes b' and
        # computes a b, or takes a and computes (a b)': which is faster depends on the shape.
        linear = torch.ops.mkldnn._linear_pointwise
        found["oneDNN"] = lambda: linear(a, b.T, None, "none", [], "")
        found["oneDNN, transposed"] = lambda: linear(b.T, a, None, "none", [], "")
    return found


def fastest(product: Product, device: str = "cpu") -> tuple[str, Callable[[], object]]:
    """The fastest routine for a product, and its name."""
    candidates = routines(product, device)
    if len(candidates) == 1:
        return next(iter(candidates.items()))
    took = {}
    for name, routine in candidates.items():
        took[name] = per_call(routine, device=device)
    best = min(took, key=took.__getitem__)
    return best, candidates[best]


def products(problem: Problem) -> Contestant:
    """Every product of a step, as often as a pass has steps."""
    return repeated(training(problem.batch, problem.layers()), problem.steps, problem.device)


def repeated(products: list[Product], times: int, device: str = "cpu", name: str = NAME) -> Contestant:
    """Products by their fastest routines, one after the other, each so many times."""
    known = {product: fastest(product, device) for product in set(products)}

    def run() -> float:
        total = 0.0
        for product in products:
            _, routine = known[product]
            with stopwatch(device) as elapsed:
                for _ in range(times):
                    routine()
            total += elapsed()
        return total

    return Contestant(name, run)
