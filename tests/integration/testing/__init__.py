"""Tests of what users test with, where that starts processes."""
