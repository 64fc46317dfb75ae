"""The compatible fronts of a real cluster of three, spoken to in their own protocols."""
