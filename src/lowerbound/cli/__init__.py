"""The command line: verbs, and the functions they call.

Each verb has a few options of its own. Everything about data, model, objective and training is an override
``table.key=value``, checked against the recipe's signature: the command line never grows a flag for a model's option.
torch is imported inside the verbs that compute: ``--help`` and ``list`` answer at once.
"""

import os
import sys

from rich.text import Text

from . import doctor, lab, latent, names, numbers, refit, sampling, tables, training
from .terminal import app, err

__all__ = ["app", "doctor", "lab", "latent", "main", "names", "numbers", "refit", "sampling", "tables", "training"]


def main() -> None:
    """Run the command line; mistakes become one message on standard error and exit status 1 or 2."""
    debug = bool(os.environ.get("LOWERBOUND_DEBUG"))
    try:
        status = app(sys.argv[1:], result_action="return_value")
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever reads has seen enough (lowerbound list | head): nothing more can be written, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError, RuntimeError, ImportError, MemoryError) as error:
        if debug:
            raise
        err.print(Text.assemble(("error:", "red"), " ", _message(error)))
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _message(error: BaseException) -> str:
    """What went wrong, in words: the system says it of a file without naming the file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)
