"""The fronts, against the specifications of the systems they stand for."""
