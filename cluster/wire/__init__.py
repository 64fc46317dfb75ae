"""Values to bytes and back: commands, batches, peer frames, snapshot chunks.

RULE: still no I/O. The only room that knows CBOR; everything decoded here is limited in size and
depth and checked field by field before anybody else sees it.
"""
