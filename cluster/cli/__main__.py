"""`python -m cluster.cli`: the command line without its script."""

from cluster.cli import main

main(prog_name="coterie")
