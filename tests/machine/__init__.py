"""Tests of `cluster/machine`."""
