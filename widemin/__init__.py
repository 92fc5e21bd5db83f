"""Wide minima and adversarial robustness: the code behind the book."""

__version__ = "0.1.0"
