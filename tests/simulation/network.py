"""The network between the nodes: delay, loss, repetition, reordering, cuts and resets, by lot.

RULE: moves bytes, reads at most their tag. All chance comes from one generator per ordered pair,
so that what one pair does never depends on the order in which a node speaks to its peers.

Two kinds of weather. *Streams* behave like TCP: in order per connection, what is under way is
lost when a connection breaks, and a rest of it may still arrive after the next connection is up.
*Datagrams* behave like nothing one would buy: lost, repeated, reordered, seconds late, and
outliving a restart of their receiver.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

MS = 1_000
SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Special:
    """Other treatment for one kind of message (by tag): shares in 0..1, times in µs."""

    repeated: float = 0.0
    late: float = 0.0
    late_us: int = 0


@dataclass(frozen=True, slots=True)
class Weather:
    """How messages travel. Shares are of messages; the rest takes the base delay.

    Attributes:
        stream: connections as of TCP; else datagrams.
        delay_us: least and most base delay.
        slow, slow_us: share of messages that take up to that long.
        very_slow, very_slow_us: likewise, among datagrams.
        lost, repeated: shares, among datagrams.
        special: by message tag.
    """

    name: str
    stream: bool
    delay_us: tuple[int, int] = (200, 3 * MS)
    slow: float = 0.0
    slow_us: int = 0
    very_slow: float = 0.0
    very_slow_us: int = 0
    lost: float = 0.0
    repeated: float = 0.0
    special: Mapping[int, Special] = field(default_factory=dict)


TCP = Weather("tcp", stream=True, slow=0.01, slow_us=200 * MS)
HARSH = Weather(
    "harsh",
    stream=False,
    delay_us=(200, 8 * MS),
    slow=0.12,
    slow_us=100 * MS,
    very_slow=0.03,
    very_slow_us=3 * SECOND,
    lost=0.05,
    repeated=0.05,
)


class Receiver(Protocol):
    """What the network tells the world."""

    def deliver(self, source: str, target: str, frame: bytes) -> None: ...

    def connected(self, source: str, target: str) -> None: ...

    def disconnected(self, source: str, target: str) -> None: ...

    def is_listening(self, name: str) -> bool: ...

    def at(
        self, time_us: int, act: Callable[..., None], *args: object, lane: int = ...
    ) -> None: ...

    @property
    def now_us(self) -> int: ...


class _Link:
    """One direction between two nodes: at most one live connection."""

    __slots__ = (
        "clogged_us",
        "cut",
        "epoch",
        "free_us",
        "held",
        "lane",
        "rng",
        "source",
        "target",
        "under_way",
        "up",
    )

    def __init__(self, source: str, target: str, rng: random.Random, lane: int) -> None:
        self.source = source
        self.lane = lane  # order among events of the same µs
        self.target = target
        self.rng = rng
        self.up = False
        self.epoch = 0  # counts connections
        self.free_us = 0  # when the last message of the stream arrives
        self.cut = False
        self.clogged_us = 0  # extra delay
        self.held: deque[bytes] = deque()  # sent into a cut stream
        self.under_way: deque[tuple[int, bytes]] = deque()


class Network:
    """All links. The world is told of arrivals; the faults cut, heal, clog and reset."""

    def __init__(
        self,
        receiver: Receiver,
        names: Iterable[str],
        weather: Weather,
        lots: Callable[[str], random.Random],
    ) -> None:
        """`lots` gives the generator of a name."""
        self._receiver = receiver
        self._names = list(names)
        self.weather = weather
        pairs = [(a, b) for a in self._names for b in self._names if a != b]
        self._links = {
            (a, b): _Link(a, b, lots(f"link {a} {b}"), 100 + number)
            for number, (a, b) in enumerate(pairs)
        }
        self._is_calm = False
        self.sent = 0
        self.dropped = 0

    # ---- nodes ------------------------------------------------------------------------------

    def send(self, source: str, target: str, frame: bytes, at_us: int) -> None:
        """Take a message at a time not before now. Without a connection it is gone."""
        link = self._links[source, target]
        self.sent += 1
        if not link.up:
            self.dropped += 1
        elif self.weather.stream:
            self._send_stream(link, frame, at_us)
        else:
            self._send_datagram(link, frame, at_us)

    def node_up(self, name: str) -> None:
        """A node has started: it dials its peers, and they it."""
        for link in self._links_of(name):
            self._dial(link, 1 * MS)

    def node_down(self, name: str) -> None:
        """A node has died: its connections break, both ways."""
        for link in self._links_of(name):
            self._break(link, is_noticed=link.source != name, survives=link.source == name)

    # ---- faults -----------------------------------------------------------------------------

    def cut(self, source: str, target: str) -> None:
        """Let nothing pass from source to target until it is mended."""
        link = self._links[source, target]
        if link.cut or self._is_calm:
            return
        link.cut = True
        if link.up:
            # The sender notices a dead peer only when its pings stay unanswered.
            after_us = link.rng.randrange(200 * MS, 3 * SECOND)
            epoch = link.epoch
            self._receiver.at(
                self._receiver.now_us + after_us, self._give_up, link, epoch, lane=link.lane
            )

    def mend(self, source: str, target: str) -> None:
        """End a cut. What a stream held back goes on its way."""
        link = self._links[source, target]
        if not link.cut:
            return
        link.cut = False
        now_us = self._receiver.now_us
        held, link.held = link.held, deque()
        for frame in held:
            self._send_stream(link, frame, now_us)
        if not link.up:
            self._dial(link, 50 * MS)

    def mend_all(self) -> None:
        """End all cuts and clogs."""
        for source, target in self._links:
            self.mend(source, target)
            self._links[source, target].clogged_us = 0

    def clog(self, source: str, target: str, delay_us: int) -> None:
        """Delay everything on one link by up to this much more, until told otherwise."""
        if not self._is_calm:
            self._links[source, target].clogged_us = delay_us

    def reset(self, source: str, target: str) -> None:
        """Break one connection; it is dialled again soon."""
        if not self._is_calm:
            self._break(self._links[source, target], is_noticed=True, survives=False)

    def is_cut(self, source: str, target: str) -> bool:
        """Does nothing pass this way?"""
        return self._links[source, target].cut

    def calm(self, weather: Weather) -> None:
        """Go on with other weather and no more faults. What is under way arrives as it was to."""
        self._is_calm = True
        self.weather = weather

    # ---- inside -----------------------------------------------------------------------------

    def _links_of(self, name: str) -> list[_Link]:
        return [link for link in self._links.values() if name in (link.source, link.target)]

    def _delay_us(self, link: _Link, tag: int) -> int:
        weather, rng = self.weather, link.rng
        least, most = weather.delay_us
        delay_us = least + int((most - least) * rng.random())
        lot = rng.random()
        if lot < weather.slow:
            delay_us += int(weather.slow_us * rng.random())
        elif lot < weather.slow + weather.very_slow:
            delay_us += int(weather.very_slow_us * rng.random())
        if link.clogged_us:
            delay_us += int(link.clogged_us * rng.random())
        special = weather.special.get(tag)
        if special is not None and special.late and rng.random() < special.late:
            delay_us += int(special.late_us * rng.random())
        return delay_us

    def _send_stream(self, link: _Link, frame: bytes, at_us: int) -> None:
        if link.cut:
            link.held.append(frame)
            return
        arrival_us = at_us + self._delay_us(link, frame[1])
        link.free_us = arrival_us = max(arrival_us, link.free_us)
        link.under_way.append((arrival_us, frame))
        self._receiver.at(arrival_us, self._arrive_stream, link, link.epoch, lane=link.lane)

    def _arrive_stream(self, link: _Link, epoch: int) -> None:
        if link.epoch != epoch:
            return
        _, frame = link.under_way.popleft()
        if link.cut:
            # Already on its way when the cable was cut: sent again by TCP later, or never.
            link.held.append(frame)
            return
        self._receiver.deliver(link.source, link.target, frame)

    def _send_datagram(self, link: _Link, frame: bytes, at_us: int) -> None:
        weather, rng, tag = self.weather, link.rng, frame[1]
        if link.cut or rng.random() < weather.lost:
            self.dropped += 1
            return
        self._receiver.at(
            at_us + self._delay_us(link, tag), self._arrive, link, frame, lane=link.lane
        )
        repeated = weather.repeated
        special = weather.special.get(tag)
        if special is not None:
            repeated = max(repeated, special.repeated)
        if repeated and rng.random() < repeated:
            self._receiver.at(
                at_us + self._delay_us(link, tag), self._arrive, link, frame, lane=link.lane
            )

    def _arrive(self, link: _Link, frame: bytes) -> None:
        """A datagram, or a rest of a broken stream: whoever listens now gets it."""
        if not link.cut and self._receiver.is_listening(link.target):
            self._receiver.deliver(link.source, link.target, frame)
        else:
            self.dropped += 1

    def _dial(self, link: _Link, within_us: int) -> None:
        now_us = self._receiver.now_us
        after_us = link.rng.randrange(within_us) + 100
        self._receiver.at(now_us + after_us, self._connect, link, link.epoch, lane=link.lane)

    def _connect(self, link: _Link, epoch: int) -> None:
        if link.up or link.epoch != epoch or not self._receiver.is_listening(link.source):
            return
        if link.cut or not self._receiver.is_listening(link.target):
            if not link.cut:
                return  # Dialled again when the target is up.
            self._dial(link, 300 * MS)
            return
        link.up = True
        link.epoch += 1
        link.free_us = 0
        self._receiver.connected(link.source, link.target)

    def _give_up(self, link: _Link, epoch: int) -> None:
        if link.cut and link.epoch == epoch:
            self._break(link, is_noticed=True, survives=False)

    def _break(self, link: _Link, *, is_noticed: bool, survives: bool) -> None:
        """End a connection. With `survives` all that is under way may still arrive."""
        now_us = self._receiver.now_us
        rest = [frame for _, frame in link.under_way]
        link.under_way.clear()
        link.held.clear()
        was_up, link.up = link.up, False
        link.epoch += 1
        if not self._receiver.is_listening(link.target):
            self.dropped += len(rest)  # It died with the receiver's kernel buffers.
        elif rest and not link.cut:
            # What the receiver's kernel already has is read before, or after, the next dial.
            kept = link.rng.randrange(len(rest) + 1)
            self.dropped += len(rest) - kept
            arrival_us = now_us
            for frame in rest[:kept]:
                most_us = 400 * MS if survives or link.rng.random() < 0.2 else 5 * MS
                arrival_us = max(arrival_us, now_us + int(most_us * link.rng.random()))
                self._receiver.at(arrival_us, self._arrive, link, frame, lane=link.lane)
        if was_up and is_noticed and self._receiver.is_listening(link.source):
            self._receiver.disconnected(link.source, link.target)
        if self._receiver.is_listening(link.source):
            self._dial(link, 100 * MS)
