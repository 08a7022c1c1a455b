"""Training: an iterator of steps.

    for step in Trainer(model, Elbo(), Options(steps=5000)).fit(data):
        if step.number % 100 == 0:
            print(step.number, float(step.bound))

What happens in one step, in order: a batch is gathered from data that stay on the device in their own dtype; the model
makes a trace of it; the objective makes a number of the trace; backward; the gradient's norm is compared with its usual
size; the optimiser moves the weights, unless loss or gradient is not finite or is insane, when the step is skipped and
counted; the moving average of the weights, which is what gets evaluated and saved, follows.

Gradients are in nats, so their size depends on the data: limits are multiples of the usual norm (a running geometric
mean), not absolute numbers.

A trainer draws all its noise from a random state of its own. What the caller does between steps changes nothing, and a
trainer restored from `Trainer.state` goes on bit for bit as if it had never stopped (on a CPU).
"""

from .batches import Rows
from .diagnosis import first_bad_tensor
from .ensemble import Ensemble, NotStackable
from .options import OPTIMIZERS, Options
from .trainer import Loss, Step, Terms, Trainer, TrainingError, Validation
from .weights import fill, tensors

__all__ = [
    "OPTIMIZERS",
    "Ensemble",
    "Loss",
    "NotStackable",
    "Options",
    "Rows",
    "Step",
    "Terms",
    "Trainer",
    "TrainingError",
    "Validation",
    "fill",
    "first_bad_tensor",
    "tensors",
]
