"""Telemetry: figures for machines, lines for people.

RULE: watches and never decides. Imports no other room; those who know figures hand them in.
"""
