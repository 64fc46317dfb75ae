"""What can be loaded into a node's process: a disk that fails, a clock that is wrong.

RULE: stands between a process and its kernel by LD_PRELOAD; the node's own code is not touched.
"""
