"""What an ErrorResponse says.

RULE: one exception for all of the front; its code is an SQLSTATE of PostgreSQL's list.
"""

from __future__ import annotations


class Failure(Exception):
    """A statement, a value or a message that cannot be.

    Attributes:
        code: SQLSTATE.
        hint: what to do about it; may be empty.
    """

    def __init__(self, code: str, text: str, hint: str = ""):
        super().__init__(text)
        self.code = code
        self.hint = hint
