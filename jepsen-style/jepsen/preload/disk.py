"""x."""

from __future__ import annotations

from pathlib import Path


class NodeDisk:
    def __init__(self, data: Path, side: Path):
        pass

    def prepare(self) -> None: ...
    def behave(self) -> None: ...
    def close(self) -> None: ...
    def environ(self) -> dict[str, str]:
        return {}


def build(tools: Path) -> Path | None:
    return None
