"""Wei et al.: sharpness-aware minimisation and adversarial training."""
