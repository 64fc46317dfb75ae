"""Fifos: turns in order, accepted in time."""
