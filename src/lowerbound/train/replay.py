"""A training step that is recorded once and replayed.

As long as shapes stay the same, a pass forward and backward is a fixed list of tensor operations. What PyTorch does
besides running them (building distributions and traces, and the graph of derivatives) comes out the same every time.
`fastest` writes down the operations of one step as they reach the kernels, forward and backward alike, and returns a
function that runs them and nothing else. It is the same arithmetic in the same order, so the numbers are the same to
the bit; and that is checked, on another batch, before the function is given out.

Left out are operations whose results cannot change: views of the weights, views that show what was there already, and
numbers that depend on no batch, no weight and no noise. What goes past PyTorch (`tolist`, numpy, a counter in Python)
is not seen: the other batch and step number are there to catch it.
"""

import contextlib
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

Gradient = Callable[..., tuple[Any, Tensor, Sequence[Tensor | None]]]
"""(x, step, *context) -> what the step says, the length of the gradient, and the gradient of each parameter."""
Batch = tuple[Tensor, ...]
"""x, the number of the step, and what a conditional model is told of x."""

aten = torch.ops.aten
# What these make depends on the shape of what they are given, not on its values.
SHAPE_ALONE = {
    aten.ones_like.default,
    aten.zeros_like.default,
    aten.full_like.default,
    aten.new_ones.default,
    aten.new_zeros.default,
    aten.new_full.default,
}
# Types in which PyTorch computes with a number as it would with a tensor of one.
EXACT = (torch.float32, torch.float64)


class _Unrecordable(Exception):
    """What a step does depends on values, which a list of operations does not show."""


def fastest(gradient: Gradient, module: nn.Module, first: Batch, other: Batch) -> Gradient:
    """The same function, replayed if that gives the same numbers, and as it came if not.

    On a GPU the operations are launched together, as one CUDA graph.

    Args:
        gradient: What to record.
        module: Whose parameters and buffers it uses: their values may change later, but not where they are.
        first: A batch and the number of its step; all later ones have their shape.
        other: Another, on which both are compared.
    """
    on_gpu = first[0].device.type == "cuda"
    noise = torch.cuda.get_rng_state(first[0].device) if on_gpu else torch.get_rng_state()

    def from_the_start(run: Callable[..., Any], *batch: Tensor) -> Any:
        if on_gpu:
            torch.cuda.set_rng_state(noise, batch[0].device)
        else:
            torch.set_rng_state(noise)
        with unchanged_buffers(module):
            return run(*batch)

    try:
        replay = from_the_start(partial(_graph, gradient) if on_gpu else partial(_record, gradient, module), *first)
    except _Unrecordable as error:
        return _as_it_came(gradient, str(error))
    expected, found = (tree_leaves(from_the_start(run, *other)) for run in (gradient, replay))
    equal = _close if on_gpu else _equal
    if len(expected) == len(found) and all(map(equal, expected, found)):
        return replay
    return _as_it_came(gradient, "it gives other numbers for another batch")


@contextlib.contextmanager
def unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Within it, a module may write to its buffers; afterwards they are as before."""
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.copy_(value)


def _as_it_came(gradient: Gradient, why: str) -> Gradient:
    warnings.warn(
        f"this training step cannot be recorded ({why}): it runs operation by operation, which takes longer. "
        "train.compile=off says that this is meant.",
        stacklevel=2,
    )
    return gradient


def _graph(gradient: Gradient, *batch: Tensor) -> Gradient:
    """A CUDA graph of the function.

    Raises:
        _Unrecordable: The processor would have to wait for the device.
    """
    batch = tuple(t.clone() for t in batch)
    with torch.cuda.device(batch[0].device):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside), _Log():  # what it refuses would break off the capture and spoil the generator
            for _ in range(3):
                gradient(*batch)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            *said, gradients = gradient(*batch)

    def replay(*new: Tensor) -> Any:
        for t, value in zip(batch, new, strict=True):
            t.copy_(value)
        graph.replay()
        return *tree_map_only(Tensor, torch.clone, said), gradients  # the next replay writes to the same memory

    return replay


def _record(gradient: Gradient, module: nn.Module, *batch: Tensor) -> Gradient:
    with _Log() as log:
        result = gradient(*batch)
    run = _Program(log, module, batch).compiled(result)

    def replay(*batch: Tensor) -> Any:
        with torch.no_grad():
            return run(*batch)

    return replay


class _Log(TorchDispatchMode):
    """Every operation that reaches a kernel, with what it was given and what it made.

    All those tensors are kept until the end, so that no memory is used for two of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict, Any]] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or the compiler is imported, which takes a second, to be told to keep away

    def __torch_dispatch__(self, op: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        by_number = op is aten.index.Tensor and not any(t.dtype == torch.bool for t in _tensors(args[1]))
        if torch.Tag.data_dependent_output in op.tags or (torch.Tag.dynamic_output_shape in op.tags and not by_number):
            raise _Unrecordable(f"{op} depends on values")
        if len({t.device.type for t in _tensors((args, kwargs)) if t.ndim}) > 1:
            raise _Unrecordable(f"{op} goes from one device to another")
        if any(isinstance(value, torch.Generator) for value in kwargs.values()):
            raise _Unrecordable(f"{op} draws from a generator of its own")
        made = op(*args, **kwargs)
        self.calls.append((op, args, kwargs, made))
        return made


class _Program:
    """The graph of a log: a node for what has to be computed anew, a constant for what has not."""

    def __init__(self, log: _Log, module: nn.Module, batch: Batch) -> None:
        self.changing = {_memory(t) for t in (*module.parameters(), *module.buffers())}
        self.written = {_memory(t) for op, args, kwargs, _ in log.calls for t in _written(op, args, kwargs)}
        self.graph = fx.Graph()
        given = [self.graph.placeholder(f"given{i}") for i in range(len(batch))]
        self.first = given[0]
        self.fresh = dict(zip(map(_place, batch), given, strict=True))
        self.lasting: dict[tuple, fx.Node] = {}
        self.constants: list[Tensor] = []
        for call in log.calls:
            self.add(*call)

    def add(self, op: Any, args: tuple, kwargs: dict, made: Any) -> None:
        """One more operation, unless what it makes is there already."""
        results = _tensors(made)
        if op.is_view and all(_place(t) in self.fresh for t in results):
            return
        if self.lasts(op, _tensors((args, kwargs)), results):
            for t in results:
                self.constant(t)
            return
        args = tuple(map(partial(_as_tensor, like=made), op._schema.arguments, args))
        node = self.graph.call_function(_kernel(op), *tree_map_only(Tensor, self.node, (args, kwargs)))
        if isinstance(made, Tensor):
            self.fresh[_place(made)] = node
        else:
            for i, t in enumerate(made or ()):
                if isinstance(t, Tensor):
                    self.fresh[_place(t)] = self.graph.call_function(operator.getitem, (node, i))

    def lasts(self, op: Any, given: list[Tensor], made: list[Tensor]) -> bool:
        """Whether an operation makes the same at every replay."""
        if torch.Tag.nondeterministic_seeded in op.tags or any(_memory(t) in self.written for t in made):
            return False
        if op in SHAPE_ALONE:
            return True
        if any(_place(t) in self.fresh for t in given):
            return False
        return op.is_view or not any(_memory(t) in self.changing | self.written for t in given)

    def node(self, t: Tensor) -> fx.Node:
        """What stands for a tensor: the operation that made it, or the tensor that was there before."""
        return self.fresh.get(_place(t)) or self.constant(t)

    def constant(self, t: Tensor) -> fx.Node:
        """What stands for a tensor that is not computed anew."""
        place = _place(t)
        if place not in self.lasting:
            with self.graph.inserting_before(self.first):
                self.lasting[place] = self.graph.placeholder(f"t{len(self.lasting)}")
            self.constants.append(t.detach())
        return self.lasting[place]

    def compiled(self, result: Any) -> Callable[..., Any]:
        """The graph as a function of the batch that returns tensors in the place of those of the result."""
        self.graph.output(tree_map_only(Tensor, self.node, result))
        self.graph.eliminate_dead_code(_has_effect)
        return partial(fx.GraphModule(nn.Module(), self.graph).forward, *self.constants)


@cache
def _kernel(op: Any) -> Any:
    """What an operation calls, without what is around it, which would take a fifth of the time of a small one."""
    kernel: Any = partial(op._op)
    kernel.__name__, kernel.__module__, kernel.op = str(op).replace(".", "_"), __name__, op
    return kernel


def _as_tensor(argument: Any, value: Any, like: Any) -> Any:
    """A number that is given for a tensor, as one: it would be made of it at every call."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and str(argument.type) == "Tensor" and isinstance(like, Tensor) and like.dtype in EXACT:
        return torch.tensor(value, dtype=like.dtype, device=like.device)
    return value


def _tensors(tree: Any) -> list[Tensor]:
    return [t for t in tree_leaves(tree) if isinstance(t, Tensor)]


def _place(t: Tensor) -> tuple:
    """Where a tensor is. Two that agree in this are one, whatever objects hold them."""
    return _memory(t), t.storage_offset(), t.shape, t.stride(), t.dtype


def _memory(t: Tensor) -> int:
    return t.untyped_storage()._cdata


def _written(op: Any, args: tuple, kwargs: dict) -> list[Tensor]:
    """The tensors that an operation writes to."""
    arguments = op._schema.arguments
    given = [*zip(arguments, args, strict=False), *((a, kwargs[a.name]) for a in arguments if a.name in kwargs)]
    return [t for argument, value in given if argument.is_write for t in _tensors(value)]


def _has_effect(node: fx.Node) -> bool:
    """Whether a node is run for more than what it returns: it writes, or draws from the generator."""
    if node.op != "call_function" or node.target is operator.getitem:
        return node.op in ("placeholder", "output")
    op = cast(Any, node.target).op
    return op._schema.is_mutable or torch.Tag.nondeterministic_seeded in op.tags


def _equal(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor):
        return a is b
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def _close(a: Any, b: Any) -> bool:
    """A GPU adds in no certain order."""
    return bool((a - b).norm() <= 1e-3 * b.norm() + 1e-6) if isinstance(a, Tensor) else a is b
