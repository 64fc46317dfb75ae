"""The primitives on the command line: one table of verbs each, named like the path of the API.

RULE: tables only; how a verb is carried out stands in `cluster.cli.verbs`.
"""
