"""Kamath et al.: SGD's hyper-parameters, the Hessian, robustness."""
