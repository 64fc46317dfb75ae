"""Tests of `cluster/wire`."""
