"""The simulated network: what it may do to messages, and what it must not."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import replace

from tests.simulation.network import HARSH, MS, SECOND, TCP, Network, Special, Weather

SILENT = replace(TCP, slow=0.0)


class Bench:
    """A receiver with a heap of its own that writes down what arrives."""

    def __init__(self, weather: Weather, seed: int = 1) -> None:
        self.now_us = 0
        self.listening = {"a", "b", "c"}
        self.arrived: list[tuple[str, str, bytes]] = []
        self.events: list[tuple[str, str, str]] = []
        self._heap: list[tuple[int, int, Callable[..., None], tuple[object, ...]]] = []
        self._pushed = 0
        self.network = Network(
            self, ["a", "b", "c"], weather, lambda name: random.Random(f"{seed}/{name}")
        )
        for name in ("a", "b", "c"):
            self.network.node_up(name)
        self.run(SECOND)

    def at(self, time_us: int, act: Callable[..., None], *args: object, lane: int = 0) -> None:
        self._pushed += 1
        heapq.heappush(self._heap, (time_us, self._pushed, act, args))

    def run(self, for_us: int) -> None:
        end_us = self.now_us + for_us
        while self._heap and self._heap[0][0] <= end_us:
            self.now_us, _, act, args = heapq.heappop(self._heap)
            act(*args)
        self.now_us = end_us

    def deliver(self, source: str, target: str, frame: bytes) -> None:
        self.arrived.append((source, target, frame))

    def connected(self, source: str, target: str) -> None:
        self.events.append(("up", source, target))

    def disconnected(self, source: str, target: str) -> None:
        self.events.append(("down", source, target))

    def is_listening(self, name: str) -> bool:
        return name in self.listening

    def send(self, count: int, source: str = "a", target: str = "b", first: int = 0) -> None:
        for number in range(first, first + count):
            self.network.send(source, target, frame(number), self.now_us)

    def numbers(self, target: str = "b") -> list[int]:
        return [int.from_bytes(f[2:], "big") for _, to, f in self.arrived if to == target]


def frame(number: int, tag: int = 1) -> bytes:
    """A message whose tag is where the codec puts it."""
    return bytes([0x87, tag]) + number.to_bytes(4, "big")


def test_a_stream_delivers_everything_in_order() -> None:
    """Slow messages hold up those behind them; nothing overtakes."""
    bench = Bench(TCP)
    bench.send(500)
    bench.run(2 * SECOND)
    assert bench.numbers() == list(range(500))


def test_a_reset_loses_what_is_under_way_but_never_reorders_a_connection() -> None:
    """Of the old connection a first part arrives, perhaps late; the new one is whole."""
    lost = late = 0
    for seed in range(40):
        bench = Bench(SILENT, seed)
        bench.send(30)
        bench.network.reset("a", "b")
        bench.run(150 * MS)
        bench.send(30, first=100)
        bench.run(2 * SECOND)
        old = [number for number in bench.numbers() if number < 100]
        new = [number for number in bench.numbers() if number >= 100]
        assert old == list(range(len(old)))
        assert new == list(range(100, 130))
        lost += len(old) < 30
        late += bool(old) and bench.numbers()[-1] < 100
    assert lost > 0
    assert late > 0, "a rest of the old connection never arrived after the new one's messages"
    assert ("down", "a", "b") in bench.events


def test_nothing_passes_a_cut_and_the_other_direction_stays_open() -> None:
    """A one-way cut is a one-way cut."""
    for weather in (SILENT, replace(HARSH, lost=0.0)):
        bench = Bench(weather)
        bench.network.cut("a", "b")
        bench.send(20, "a", "b")
        bench.send(20, "b", "a")
        bench.run(150 * MS)
        assert bench.numbers("b") == []
        assert set(bench.numbers("a")) == set(range(20))


def test_a_short_cut_delays_a_stream_and_a_long_one_breaks_it() -> None:
    """TCP sends again what was held up, until somebody gives the connection up."""
    bench = Bench(SILENT)
    bench.network.cut("a", "b")
    bench.send(5)
    bench.run(100 * MS)
    bench.network.mend("a", "b")
    bench.run(SECOND)
    assert bench.numbers() == list(range(5))

    bench.network.cut("a", "b")
    bench.send(5, first=10)
    bench.run(10 * SECOND)
    assert ("down", "a", "b") in bench.events
    bench.network.mend("a", "b")
    bench.run(SECOND)
    assert bench.numbers() == list(range(5))
    bench.send(1, first=50)
    bench.run(SECOND)
    assert bench.numbers()[-1] == 50


def test_datagrams_are_lost_repeated_and_reordered() -> None:
    """All that harsh weather promises happens within a thousand messages."""
    bench = Bench(HARSH)
    bench.send(1_000)
    bench.run(10 * SECOND)
    numbers = bench.numbers()
    assert len(set(numbers)) < 1_000
    assert len(numbers) > len(set(numbers))
    assert numbers != sorted(numbers)


def test_a_datagram_outlives_a_restart_of_its_receiver_and_a_stream_does_not() -> None:
    """Messages to a process that died reach its next life only as datagrams."""
    for weather, arrives in ((replace(HARSH, lost=0.0), True), (SILENT, False)):
        bench = Bench(replace(weather, delay_us=(500 * MS, 600 * MS)))
        bench.send(5)
        bench.listening.discard("b")
        bench.network.node_down("b")
        bench.run(10 * MS)
        bench.listening.add("b")
        bench.network.node_up("b")
        bench.run(5 * SECOND)
        if arrives:
            assert set(bench.numbers()) == set(range(5))
        else:
            # What the kernel had already taken in died with it; at most a late rest is left.
            assert bench.numbers() == list(range(len(bench.numbers())))
            assert ("down", "a", "b") in bench.events


def test_special_treatment_is_by_kind_of_message() -> None:
    """Only votes are repeated when only votes are to be."""
    weather = replace(SILENT, stream=False, special={6: Special(repeated=1.0)})
    bench = Bench(weather)
    bench.network.send("a", "b", frame(1, tag=1), bench.now_us)
    bench.network.send("a", "b", frame(2, tag=6), bench.now_us)
    bench.run(SECOND)
    assert sorted(bench.numbers()) == [1, 2, 2]


def test_the_order_of_speaking_to_two_peers_changes_nothing() -> None:
    """Each pair has its own chance: an unordered set in a node cannot make two runs differ."""
    arrivals = []
    for order in (("b", "c"), ("c", "b")):
        bench = Bench(HARSH, seed=5)
        for number in range(200):
            for target in order:
                bench.network.send("a", target, frame(number), bench.now_us)
            bench.run(1 * MS)
        bench.run(10 * SECOND)
        arrivals.append((bench.numbers("b"), bench.numbers("c")))
    assert arrivals[0] == arrivals[1]
