"""The examples of the documentation, run against real processes."""
