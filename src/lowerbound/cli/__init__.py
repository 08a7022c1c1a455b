"""The command line: verbs, and the functions they call.

Each verb has a few options of its own. Everything about data, model, objective and training is an override
``table.key=value``, checked against the recipe's signature: the command line never grows a flag for a model's option.
torch is imported inside the verbs that compute: ``--help`` and ``list`` answer at once.
"""

import os
import sys

from . import latent, names, numbers, training
from .terminal import app, err

__all__ = ["app", "latent", "main", "names", "numbers", "training"]


def main() -> None:
    """Run the command line; mistakes become one line on standard error and exit status 1 or 2."""
    debug = bool(os.environ.get("LOWERBOUND_DEBUG"))
    try:
        status = app(result_action="return_value")
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if debug:
            raise
        err.print("[red]error:[/red]", end=" ")
        err.print(error.strerror if isinstance(error, OSError) and error.strerror else str(error), markup=False)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
