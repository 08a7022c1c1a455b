"""The doctor: what is wrong with a model or with data, in words, with the remedy.

A check is a function that looks at one thing and returns a `Finding`. `examine` looks at a trained model,
`examine_data` at data before training.
"""

from .data import examine_data
from .finding import Finding, status
from .run import examine

__all__ = ["Finding", "examine", "examine_data", "status"]
