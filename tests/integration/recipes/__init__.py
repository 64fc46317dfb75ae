"""Recipes of the documentation, run as programs."""
