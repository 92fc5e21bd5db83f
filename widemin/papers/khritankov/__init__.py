"""Khritankov et al.: wide minima by batch size and learning rate."""
