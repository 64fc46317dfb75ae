"""A stranger's project."""

from __future__ import annotations

import pytest

from tests.testing.installed import Project


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with nothing in it but settings."""
    return Project(pytester, monkeypatch)
