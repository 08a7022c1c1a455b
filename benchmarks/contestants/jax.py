"""JAX and optax: the step compiled by itself, and a whole pass as one `lax.scan`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from torch import nn

from ..problem import LR, Problem
from ..race import Contestant
from ..timing import timed
from .plain import PlainVAE


def step(problem: Problem) -> Contestant:
    """One compiled step, called from Python."""
    one, carry = _program(problem)
    compiled = jax.jit(one, donate_argnums=0)

    def one_pass(carry: Any, order: np.ndarray) -> tuple[Any, jax.Array]:
        for batch in order:
            carry, loss = compiled(carry, batch)
        return carry, loss

    return _contestant("JAX, one jitted step", problem, one_pass, carry)


def scan(problem: Problem) -> Contestant:
    """A whole pass compiled as one loop."""
    one, carry = _program(problem)
    return _contestant("JAX, lax.scan", problem, jax.jit(lambda c, o: jax.lax.scan(one, c, o), donate_argnums=0), carry)


def _program(problem: Problem) -> tuple[Callable[[Any, Any], Any], Any]:
    """A step from (parameters, optimiser, key) and a batch's row numbers to the same and the loss; and the start."""
    optimizer = optax.adam(LR)
    rows = jnp.asarray(problem.x.flatten(1).numpy())
    parameters = _start(problem)

    def one(carry: Any, batch: Any) -> Any:
        parameters, state, key = carry
        key, noise = jax.random.split(key)
        x = rows[batch].astype(jnp.float32)
        loss, gradients = jax.value_and_grad(_loss)(parameters, x, noise)
        updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(parameters, updates), state, key), loss

    return one, (parameters, optimizer.init(parameters), jax.random.PRNGKey(1))


def _start(problem: Problem) -> Any:
    """Weights and biases of encoder and decoder, where everyone's start; the posterior has no bias."""
    vae = PlainVAE(problem)
    return tuple(
        [
            {name: jnp.asarray(value.detach().numpy().T) for name, value in layer.named_parameters()}
            for layer in half
            if isinstance(layer, nn.Linear)
        ]
        for half in (vae.encoder, vae.decoder)
    )


def _loss(parameters: Any, x: Any, key: Any) -> Any:
    encoder, decoder = parameters
    loc, log_scale = jnp.split(_stack(encoder, x), 2, axis=1)
    z = loc + jnp.exp(log_scale) * jax.random.normal(key, loc.shape)
    distortion = optax.sigmoid_binary_cross_entropy(_stack(decoder, z), x).sum()
    rate = 0.5 * (loc**2 + jnp.exp(2 * log_scale) - 1 - 2 * log_scale).sum()
    return (distortion + rate) / len(x)


def _stack(layers: Any, h: Any) -> Any:
    for layer in layers[:-1]:
        h = jax.nn.relu(h @ layer["weight"] + layer["bias"])
    return h @ layers[-1]["weight"] + layers[-1].get("bias", 0.0)


def _contestant(name: str, problem: Problem, one_pass: Callable[[Any, Any], Any], carry: Any) -> Contestant:
    state = [carry]
    order_of = np.random.default_rng(0)

    def run() -> None:
        order = order_of.permutation(len(problem.x)).astype(np.int32)
        state[0], loss = one_pass(state[0], order.reshape(problem.steps, problem.batch))
        loss.block_until_ready()

    def loss() -> float:
        return float(_loss(state[0][0], jnp.asarray(problem.checked.flatten(1).numpy()), jax.random.PRNGKey(2)))

    return Contestant(name, timed(run), sum(leaf.size for leaf in jax.tree.leaves(carry[0])), loss)
