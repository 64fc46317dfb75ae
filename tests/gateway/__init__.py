"""Tests of the gateway: a real HTTP server before the real machine."""
