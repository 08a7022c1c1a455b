"""The estimator of scikit-learn: a VAE of the rows of an array or a frame.

estimator   TabularVAE
rows        arrays and frames as rows of numbers x, and back
"""

from .estimator import TabularVAE

__all__ = ["TabularVAE"]
