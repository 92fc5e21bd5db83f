"""Recipes in, tidy rows out: train, measure, keep, publish."""
