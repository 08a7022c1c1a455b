"""Linear maps, by the fastest matrix product there is.

PyTorch multiplies float32 matrices on a CPU with Intel's MKL, which runs at half the speed where the processor is of
another maker. oneDNN, which comes with PyTorch too, does not: so where there is AVX-512, large products go there. Small
ones stay, because a call of oneDNN takes longer to begin; and so does everything on other devices, in other types, and
under autocast.

Under `torch.vmap` the products of several maps with one input are one product.

Axes: ``m`` maps under `torch.vmap`, ``n`` rows, ``i`` inputs, ``o`` outputs.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

# Whether oneDNN is there, and the processor has the instructions that make it the faster, or on Intel's as fast.
ONEDNN = (
    torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
)
# Multiplications from which oneDNN is faster, the beginning of its call included.
WORTHWHILE = 2**20


class Linear(nn.Linear):
    """`torch.nn.Linear`, with its parameters, its start and its values, by the fastest product there is."""

    def forward(self, x: Float[Tensor, "*lead i"]) -> Float[Tensor, "*lead o"]:
        """x W' + b."""
        return linear(x, self.weight, self.bias)


def linear(
    x: Float[Tensor, "*lead i"], weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"] | None = None
) -> Float[Tensor, "*lead o"]:
    """x W' + b."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not ONEDNN or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    bare = not torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()
    y: Tensor = _product(rows, weight, bias) if bare else _Product.apply(rows, weight, bias)
    return y.reshape(*x.shape[:-1], len(weight))


class _Product(torch.autograd.Function):
    """x W' + b, with its gradients, each of which is such a product again."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _product(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _Product.apply(g, weight.T, None) if of_x else None,
            _outer(g, x) if of_weight else None,
            g.sum(0) if of_bias else None,
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, int]:
        m, i = info.batch_size, x.shape[-1]
        x, weight = (t if at is None else t.movedim(at, 0) for t, at in zip((x, weight), in_dims, strict=False))
        if bias is not None:
            bias = bias.expand(m, -1) if in_dims[2] is None else bias.movedim(in_dims[2], 0)
        if x.ndim == weight.ndim == 2:  # several biases of one map
            assert bias is not None
            return _product(x, weight) + bias[:, None], 0
        if x.ndim == 2:  # one input of several maps
            y = _product(x, weight.reshape(-1, i), None if bias is None else bias.reshape(-1))
            return y.unflatten(1, (m, -1)).movedim(1, 0).contiguous(), 0
        if weight.ndim == 2 and bias is None:  # several inputs of one map
            return _product(x.reshape(-1, i), weight).unflatten(0, (m, -1)), 0
        weight = weight.expand(m, *weight.shape[-2:])
        if x[0].numel() * weight.shape[1] <= WORTHWHILE:
            y = torch.bmm(x, weight.mT)
            return y if bias is None else y + bias[:, None], 0
        biases = [None] * m if bias is None else bias.unbind()
        return torch.stack([_product(*each) for each in zip(x, weight, biases, strict=True)]), 0


def _outer(g: Float[Tensor, "n o"], x: Float[Tensor, "n i"]) -> Float[Tensor, "o i"]:
    """g' x. The left one of two factors is copied to turn it: x, if to copy that and the result is less."""
    (n, o), i = g.shape, x.shape[1]
    if (n + o) * i < n * o:
        return _Product.apply(x.T, g.T, None).T.contiguous()
    return _Product.apply(g.T, x.T, None)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if len(x) * weight.numel() < WORTHWHILE:
        return F.linear(x, weight, bias)
    if not (weight.is_contiguous() or weight.T.is_contiguous()):
        weight = weight.contiguous()  # of rows with gaps oneDNN takes each number by itself
    return _onednn_sealed(x, weight, bias) if torch.compiler.is_compiling() else _onednn(x, weight, bias)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


@torch.library.custom_op("lowerbound::onednn", mutates_args=())
def _onednn_sealed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same, closed to `torch.compile`, which takes the weights of oneDNN's own operation for constants."""
    return _onednn(x, weight, bias)


@_onednn_sealed.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(len(x), len(weight))
