"""Tests of `jepsen-style`: what judges has to be judged first."""
