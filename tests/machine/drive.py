"""A small driver for tests: one machine, entries written in a line, answers by request.

RULE: shortens what a test says; decides nothing that a test is about.
"""

from __future__ import annotations

from collections.abc import Sequence

from cluster.machine.commands import Batch, Command, Group, OpenSession, Origin, Request, RequestId
from cluster.machine.machine import Machine
from cluster.machine.outcome import Opened, Outcome


class Drive:
    """Feeds a machine; each call is one entry.

    Attributes:
        told: every answer of the last entry, in order, as (node, seq, outcome).
    """

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine or Machine()
        self.seqs: dict[tuple[str, int], int] = {}
        self.told: list[tuple[str, int, Outcome]] = []

    def entry(self, now_ms: int, *groups: Group) -> list[Outcome]:
        """Apply an entry as it is."""
        answers = self.machine.apply(self.machine.index + 1, Batch(now_ms, 0, groups))
        self.told = [(a.request.node, a.request.seq, a.outcome) for a in answers]
        return [answer.outcome for answer in answers]

    def ask(
        self,
        *commands: Command | None,
        now_ms: int | None = None,
        node: str = "n1",
        boot: int = 1,
        ack: int = 0,
        key: str | None = None,
        fingerprint: bytes | None = None,
    ) -> list[Outcome]:
        """Apply one entry of commands under new numbers; outcomes of all answers, in order."""
        first = self.seqs.get((node, boot), 0) + 1
        self.seqs[node, boot] = first + len(commands) - 1
        requests = tuple(
            Request(seq, command, key, fingerprint) for seq, command in enumerate(commands, first)
        )
        now_ms = self.machine.now_ms if now_ms is None else now_ms
        return self.entry(now_ms, Group(Origin(node, boot), ack, requests))

    def one(
        self,
        command: Command | None,
        *,
        now_ms: int | None = None,
        node: str = "n1",
        boot: int = 1,
        ack: int = 0,
        key: str | None = None,
        fingerprint: bytes | None = None,
    ) -> Outcome:
        """Ask one thing, and give the answer to it alone; `told` has the others."""
        self.ask(
            command,
            now_ms=now_ms,
            node=node,
            boot=boot,
            ack=ack,
            key=key,
            fingerprint=fingerprint,
        )
        seq = self.seqs[node, boot]
        return [outcome for n, s, outcome in self.told if (n, s) == (node, seq)][-1]

    def repeat(self, seqs: Sequence[int], command: Command, *, node: str = "n1") -> list[Outcome]:
        """Send numbers again that were used before."""
        requests = tuple(Request(seq, command) for seq in seqs)
        return self.entry(self.machine.now_ms, Group(Origin(node, 1), 0, requests))

    def at(self, now_ms: int) -> list[Outcome]:
        """Apply an entry that carries nothing but the time."""
        return self.entry(now_ms)

    def open(self, *ttls_ms: int, now_ms: int | None = None) -> list[str]:
        """Open sessions; gives their ids."""
        made = self.ask(*(OpenSession("s", ttl_ms) for ttl_ms in ttls_ms), now_ms=now_ms)
        return [outcome.session for outcome in made if isinstance(outcome, Opened)]

    def resolved(self, *, node: str = "n1", seq: int) -> Outcome | None:
        """What the machine remembers of a request."""
        return self.machine.answer(RequestId(node, 1, seq))
