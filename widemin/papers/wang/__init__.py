"""Wang et al.: FOSC and dynamic adversarial training."""
