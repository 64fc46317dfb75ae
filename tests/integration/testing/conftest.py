"""A stranger's project, as in `tests/testing`."""

from __future__ import annotations

from tests.testing.conftest import project

__all__ = ["project"]
