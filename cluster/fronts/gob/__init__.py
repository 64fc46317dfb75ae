"""gob: how Go's programs write values to one another, and to files.

RULE: bytes to values and back; no I/O. `kinds.py` says what types there are, `messages.py` finds
where messages end, `decoder.py` and `encoder.py` each keep the table of types of one direction.

Source: the documentation of Go's package encoding/gob. A stream is messages; a message is its
length and then either the definition of a type (under a negative number) or a value (under the
number of its type). A definition comes before the first value that needs it and holds for the rest
of the stream.
"""
