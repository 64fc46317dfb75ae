"""A node under cProfile: `python -m benchmarks.profiled_node OUTPUT serve …`.

RULE: stands before the command line of Coterie; the product itself has no switch for it. The
profile is written when the node has stopped.
"""

from __future__ import annotations

import cProfile
import sys


def main() -> None:
    """Run `coterie` with the arguments after the first, under the profiler."""
    output = sys.argv.pop(1)
    from cluster.cli import main as coterie  # noqa: PLC0415 - its imports are no part of service

    profile = cProfile.Profile()
    profile.enable()
    try:
        coterie()
    finally:
        profile.disable()
        profile.dump_stats(output)


if __name__ == "__main__":
    main()
