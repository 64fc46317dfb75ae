"""A PostgreSQL wire front: go-session-lock's functions for ordinary drivers.

RULE: speaks the frontend/backend protocol 3.0 and understands the statements that programs of
go-session-lock send, no others. It is no database: what it cannot do it refuses by name.

`wire.py` messages and bytes · `values.py` types and their two formats · `sql.py` from text to a
statement · `functions.py` what can be called · `connection.py` one connection · `front.py` all.

Sources: PostgreSQL documentation, chapters "Frontend/Backend Protocol" and "PostgreSQL Error Codes".
"""
