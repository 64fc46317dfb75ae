"""The same random scripts to the real beanstalkd and to our front: every reply, byte for byte.

RULE: draws scripts, runs them on both sides in step, compares. What must differ is replaced before
it is compared: ids by the order of the puts, times by whether they are 0, and the figures of the
process. What the original does by accident, and ours does not on purpose, the scripts avoid: see
`Run._avoid`.

    python -m tests.fronts.beanstalkd_differential --seeds 0:1000

Our side is the front over the real machine; its clock follows the original's. A script with sleeps
in it counts as different if it is so three times: a busy machine may be late by a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cluster.fronts.beanstalkd.server import Beanstalkd
from cluster.testing.local_node import LocalNode
from tests.fronts.around import around

PROGRAM = "beanstalkd"
PATIENCE_S = 20.0
# Tubes that the control connection watches stay, and may be paused; the others come and go.
STAYING = ("default", "stays", "s.t-a+y/s;$_(1)")
GOING = ("goes", "goes.too")
SLEEP_MS = 1_500
"""Lengths of time that matter are 1 or 3 seconds, and warnings come a second before: half a second
lies between the sleep and all of them."""

_CONNECTIONS = 4
_MASKED = re.compile(
    rb"^(pid|version|rusage-utime|rusage-stime|uptime|binlog-[a-z-]+|id|hostname|os|platform"
    rb"|cmd-stats|age): .*$",
    re.MULTILINE,
)
# Its newer versions quote names, as ours does; Debian's does not.
_QUOTED = re.compile(rb'^(name|tube): "([^"]*)"$', re.MULTILINE)
# Within a second of its end: one side has begun that second, the other not yet.
_SOON = re.compile(rb"^((?:pause-)?time-left): [01]$", re.MULTILINE)
_LEFT = re.compile(rb"^((?:pause-)?time-left): [0-9]+$", re.MULTILINE)
_JOB = re.compile(rb"^(INSERTED|RESERVED|FOUND|BURIED) ([0-9]+)")
_JOB_FIGURE = re.compile(rb"^id: ([0-9]+)$", re.MULTILINE)


class Difference(AssertionError):
    """The two sides do not agree."""


class Side:
    """One server and our connections to it.

    Attributes:
        ids: of the jobs put, in order.
    """

    def __init__(self, name: str, path: str | None, port: int = 0) -> None:
        self.name = name
        self.ids: list[int] = []
        self._path = path
        self._port = port
        self._streams: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
        self._awaited: dict[int, asyncio.Task[bytes]] = {}

    async def dial(self, number: int) -> None:
        """Connect."""
        if self._path is None:
            self._streams[number] = await asyncio.open_connection("127.0.0.1", self._port)
            return
        while True:
            try:
                self._streams[number] = await asyncio.open_unix_connection(self._path)
            except OSError:  # It has only just been started.
                await asyncio.sleep(0.002)
            else:
                return

    async def send(self, number: int, data: bytes, cuts: list[int]) -> None:
        """Write, in pieces."""
        writer = self._streams[number][1]
        last = 0
        for cut in [*cuts, len(data)]:
            writer.write(data[last:cut])
            last = cut
            with contextlib.suppress(ConnectionError):  # It quit before its last words.
                await writer.drain()

    async def reply(self, number: int) -> bytes:
        """One whole reply; empty at the end of the connection."""
        task = self._awaited.pop(number, None) or asyncio.create_task(self._read(number))
        try:
            return await asyncio.wait_for(task, PATIENCE_S)
        except TimeoutError:
            return b"(no reply)"

    def has_reply(self, number: int) -> bool:
        """A reply that is waited for is there."""
        if number not in self._awaited:
            self._awaited[number] = asyncio.create_task(self._read(number))
        return self._awaited[number].done()

    async def _read(self, number: int) -> bytes:
        reader = self._streams[number][0]
        try:
            line = await reader.readuntil(b"\r\n")
            if line.startswith((b"OK ", b"RESERVED ", b"FOUND ")):
                line += await reader.readexactly(int(line.split()[-1]) + 2)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            return getattr(error, "partial", b"")
        if line.startswith(b"INSERTED "):
            self.ids.append(int(line.split()[1]))
        return line

    def half_close(self, number: int) -> None:
        """Nothing more will be written."""
        self._streams[number][1].write_eof()

    async def hang_up(self, number: int) -> None:
        """Close."""
        awaited = self._awaited.pop(number, None)
        if awaited is not None:
            awaited.cancel()
        writer = self._streams.pop(number)[1]
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def end(self) -> None:
        """Close all."""
        for number in list(self._streams):
            await self.hang_up(number)

    def resolved(self, data: bytes, last: int) -> bytes:
        """Put the ids of this side for @0, @1 and so on, and the given one for @last."""
        data = data.replace(b"@last@", b"@%d@" % last)

        def id_of(match: re.Match[bytes]) -> bytes:
            number = int(match[1])
            return b"%d" % (self.ids[number] if number < len(self.ids) else 10**9 + number)

        return re.sub(rb"@([0-9]+)@", id_of, data)

    def comparable(self, reply: bytes) -> bytes:
        """A reply without what must differ."""

        def number_of(match: re.Match[bytes]) -> bytes:
            return b"%s @%d" % (match[1], self.ids.index(int(match[2])))

        if not reply.startswith(b"OK "):
            return _JOB.sub(number_of, reply)
        head, _, data = reply.partition(b"\r\n")
        if int(head.split()[1]) != len(data) - 2:
            return reply
        is_job = _JOB_FIGURE.search(data) if b"\nttr: " in data else None
        if is_job is not None:
            data = data.replace(is_job[0], b"number: @%d" % self.ids.index(int(is_job[1])))
        data = _QUOTED.sub(rb"\1: \2", data)
        data = _LEFT.sub(rb"\1: +", _SOON.sub(rb"\1: -", _MASKED.sub(rb"\1: ~", data)))
        return b"OK\r\n" + data


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a script.

    Attributes:
        what: "send", "reserve" (which may wait), "sleep", "hang up", "half close".
        requests: to be sent at once, each with one reply.
        cuts: where the bytes are cut.
    """

    what: str
    number: int = 0
    requests: tuple[bytes, ...] = ()
    cuts: float = 0.0


@dataclass
class Script:
    """Steps drawn from one seed."""

    seed: int
    has_sleeps: bool
    job_bytes_max: int
    steps: list[Step] = field(default_factory=list)


def drawn(seed: int) -> Script:
    """Draw a script; one in eight has sleeps in it, and lengths of time that matter."""
    rng = random.Random(seed)
    script = Script(seed, seed % 8 == 0, rng.choice((65_535, 65_535, 100, 10)))
    sleeps = 1 if script.has_sleeps else 0
    timeouts = (0, 1, 3, 30) if script.has_sleeps else (0, 30)
    for at in range(30 if script.has_sleeps else 60):
        number, dice = rng.randrange(_CONNECTIONS), rng.random()
        if sleeps and at == 15:
            sleeps -= 1
            script.steps.append(Step("sleep"))
        elif dice < 0.12:
            timed = b"reserve-with-timeout %d" % rng.choice(timeouts)
            word = rng.choice((b"reserve", b"reserve", timed))
            script.steps.append(Step("reserve", number, (word + b"\r\n",)))
        elif dice < 0.16:
            script.steps.append(Step("hang up", number))
        elif dice < 0.18:
            script.steps.append(Step("half close", number))
        else:
            count = 1 if script.has_sleeps else rng.choice((1, 1, 1, 2, 3, 6))
            requests = tuple(_request(rng, script) for _ in range(count))
            quits = [at for at, request in enumerate(requests) if request.startswith(b"quit")]
            requests = requests[: quits[0] + 1] if quits else requests
            script.steps.append(Step("send", number, requests, rng.choice((0.0, 0.0, 0.1, 0.9))))
    return script


def _tube(rng: random.Random) -> bytes:
    return rng.choice((*STAYING, *STAYING, *GOING)).encode()


def _id(rng: random.Random) -> bytes:
    """The id of a job put; one in two times that of the connection's last reservation."""
    return rng.choice((b"@last@", b"@%d@" % rng.choice((0, 1, 2, 3, 4, 5, 6, 8, 12))))


def _pri(rng: random.Random) -> bytes:
    return rng.choice((b"0", b"0", b"5", b"1023", b"1024", b"4294967295"))


def _request(rng: random.Random, script: Script) -> bytes:
    kind = rng.choices(
        ("put", "job", "tube", "look", "figures", "kick", "pause", "reserve", "odd"),
        (30, 25, 14, 12, 12, 6, 5, 14, 10),
    )[0]
    if kind == "put":
        return _put(rng, script)
    if kind == "reserve":
        # What Debian's version gives by reserve-job to who has another job already never times out.
        word = b"reserve-with-timeout 0" if script.has_sleeps else b"reserve-job " + _id(rng)
        return rng.choice((b"reserve-with-timeout 0", word)) + b"\r\n"
    if kind == "job":
        job = _id(rng)
        delay = rng.choice((b"0", _long(rng)))
        line = rng.choice(
            (
                b"delete " + job,
                b"delete " + job,
                b"release %b %b %b" % (job, _pri(rng), delay),
                b"release %b %b %b" % (job, _pri(rng), delay),
                b"bury %b %b" % (job, _pri(rng)),
                b"bury %b %b" % (job, _pri(rng)),
                b"touch " + job,
                b"kick-job " + job,
            )
        )
    elif kind == "tube":
        line = rng.choice((b"use ", b"watch ", b"watch ", b"ignore ", b"ignore ")) + _tube(rng)
    elif kind == "look":
        line = rng.choice((b"peek " + _id(rng), b"peek-ready", b"peek-delayed", b"peek-buried"))
    elif kind == "figures":
        line = rng.choice(
            (
                b"stats",
                b"stats-tube " + _tube(rng),
                b"stats-tube " + _tube(rng),
                b"stats-job " + _id(rng),
                b"stats-job " + _id(rng),
                b"list-tubes",
                b"list-tube-used",
                b"list-tubes-watched",
            )
        )
    elif kind == "kick":
        line = b"kick " + rng.choice((b"0", b"1", b"1", b"2", b"100", b"-1", b"+1", b" 1x"))
    elif kind == "pause":
        delay = rng.choice((b"0", b"0", b"1", b"100") if script.has_sleeps else (b"0", b"99"))
        line = b"pause-tube %b %b" % (rng.choice(STAYING).encode(), delay)
    else:
        line = _odd(rng)
    return line + b"\r\n"


def _long(rng: random.Random) -> bytes:
    """A delay that no other has: of those that are due at the same time to the millisecond, the
    original knows which one was so first, and ours takes the older job.
    """
    return b"%d" % rng.randrange(100, 1_000_000)


def _put(rng: random.Random, script: Script) -> bytes:
    size = rng.choice((0, 1, 5, 11, 150))
    body = bytes(rng.choices(b"ab \r\n\0\xff", k=size))
    delay = rng.choice((b"0", b"0", b"0", _long(rng)))
    ttr = rng.choice((b"60", b"4294967295"))
    if script.has_sleeps:
        delay = rng.choice((delay, b"1", b"3"))
        ttr = rng.choice((ttr, b"0", b"1", b"3"))
    head = b"put %b %b %b %d\r\n" % (_pri(rng), delay, ttr, size)
    end = b"\r\n" if rng.random() < 0.93 or size > script.job_bytes_max else b"xy"
    return head + body + end


def _odd(rng: random.Random) -> bytes:
    words = (b"put", b"reserve", b"delete", b"use", b"stats", b"kick", b"pause-tube", b"touch")
    return rng.choice(
        (
            b"",
            b" ",
            # But for "reserve", which is none of these: it would wait.
            rng.choice(words[:1] + words[2:]),
            rng.choice(words) + b" ",
            rng.choice(words) + b"x",
            rng.choice(words).upper() + b" 1",
            b"delete  1000000001",
            b"delete -1",
            b"delete 1000000001x",
            b"delete 1000000001 ",
            b"delete 18446744073709551615",
            b"delete 18446744073709551616",
            b"delete 0",
            b"peek 0",
            b"touch 99999999999999999999999",
            b"reserve-job 18446744073709551615",
            b"stats-job 0",
            b"reserve-with-timeout",
            b"reserve-with-timeoutx 0",
            b"reserve-job",
            b"kick",
            b"kick ",
            b"kick x",
            b"kick 99999999999999999999999",
            b"put 0 0 0",
            b"put 0 0 0 -1",
            b"put 0 0 0 1x",
            b"put 0 0 0 1 ",
            b"put 4294967296 0 0 0",
            b"put 0 4294967296 0 0",
            b"put 0 0 4294967296 0",
            b"put x 0 0 0",
            b"put  0  0  0",
            b"release 1000000001 0",
            b"release 1000000001 0 0 0",
            b"release 1000000001 4294967296 0",
            b"bury 1000000001",
            b"bury 1000000001 0 1",
            b"use -x",
            b"use  x",
            b"use x y",
            b"use " + b"t" * 201,
            b"watch a*b",
            b"watch " + b"t" * 210,
            b"ignore never-watched",
            b"stats-tube never-seen",
            b"stats-tube -",
            b"stats-jobx",
            b"stats ",
            b"statsx",
            b"list-tubesx",
            b"list-tubes-watched ",
            b"list-tube-usedx",
            b"peek-readyx",
            b"peek-",
            b"pause-tube",
            b"pause-tube never-seen 1",
            b"pause-tube never-seen",
            b"pause-tube  never-seen  1",
            b"pause-tube -x 1",
            b"pause-tube never-seen 1x",
            b"pause-tube never-seen 4294967296",
            b"pause-tubenever-seen 1",
            b"pause-tube never-seen1",
            b"x" * 222,
            b"x" * 300,
            b"use " + b"t" * 300,
            b"\0",
            b"stats\0",
            b"use \xff",
            b"quit?",
        )
    )


@dataclass
class Run:
    """One script on both sides, in step.

    Attributes:
        waiting: connections whose reservation has no answer yet.
        open: connections there are; the control connection apart.
        got, last: by connection: how many reservations it was given, and of which job the last.
        is_told: every reply is printed.
        compared: replies, by their first word.
    """

    script: Script
    sides: tuple[Side, Side]
    node: LocalNode
    is_told: bool = False
    compared: Counter[str] = field(default_factory=Counter)
    waiting: set[int] = field(default_factory=set)
    open: set[int] = field(default_factory=set)
    got: Counter[int] = field(default_factory=Counter)
    last: Counter[int] = field(default_factory=Counter)

    began_s: float = field(default_factory=time.monotonic)
    passed_ms: int = 0

    CONTROL = -1

    async def go(self) -> None:
        """Run it."""
        for side in self.sides:
            await side.dial(self.CONTROL)
        for tube in STAYING:
            await self._both(self.CONTROL, (b"watch " + tube.encode() + b"\r\n",))
        for step in self.script.steps:
            if step.what == "sleep":
                await asyncio.sleep(SLEEP_MS / 1000)
            else:
                await self._step(step)
            self._pass_time(1)  # What comes one after the other is due so, too.
            await self._hear()

    def _pass_time(self, least_ms: int = 0) -> None:
        """Bring our side's clock to where the other's is, or on by so much at least."""
        now_ms = round((time.monotonic() - self.began_s) * 1000)
        now_ms = max(now_ms, self.passed_ms + least_ms)
        self.node.advance(now_ms - self.passed_ms)
        self.passed_ms = now_ms

    async def _step(self, step: Step) -> None:
        number = step.number
        if self._avoid(step):
            return
        if step.what in {"hang up", "half close"}:
            if number in self.open:
                await self._part(step)
            return
        if number not in self.open:
            for side in self.sides:
                await side.dial(number)
            self.open.add(number)
        if step.what == "send":
            await self._both(number, step.requests, step.cuts)
            if any(request.startswith(b"quit") for request in step.requests):
                await self._gone(number)
        elif self.waiting:
            # One waits already: whom the original serves first is left to chance.
            await self._both(number, (b"reserve-with-timeout 0\r\n",))
        else:
            for side in self.sides:
                await side.send(number, step.requests[0], [])
            self.waiting.add(number)

    def _avoid(self, step: Step) -> bool:
        """What the two do differently on purpose, or by accident of the original.

        Somebody waits, and several jobs become ready in one step: the original gives the first one
        that happens to be moved, ours the one that is first by priority. A connection that waits is
        not read from. (The requests themselves avoid lines of exactly 223 bytes, whose end the
        original overlooks, and lone CRs; timeouts with a sign or with more behind them, which
        Debian's version takes, and newer ones and ours do not.)
        """
        others = self.waiting - {step.number}
        if step.what == "send" and step.number in self.waiting:
            return True
        if step.what == "reserve" and step.number in self.waiting:
            return True
        is_end = step.what in {"hang up", "half close"}
        if is_end or any(request.startswith(b"quit") for request in step.requests):
            return bool(others) and self.got[step.number] > 1
        return bool(others) and any(request.startswith(b"kick ") for request in step.requests)

    async def _part(self, step: Step) -> None:
        number = step.number
        if step.what == "half close":
            for side in self.sides:
                side.half_close(number)
            if number in self.waiting:
                await self._compare(number, "half close")
        await self._gone(number)

    async def _gone(self, number: int) -> None:
        """Close on our side too, and see that both know it."""
        self.waiting.discard(number)
        self.open.discard(number)
        self.got[number] = 0
        for side in self.sides:
            await side.hang_up(number)
        wanted = b"\ncurrent-connections: %d\n" % (len(self.open) + 1)
        for side in self.sides:
            while wanted not in await self._figures(side):
                await asyncio.sleep(0)

    async def _both(self, number: int, requests: tuple[bytes, ...], cuts: float = 0.0) -> None:
        """Send to both, and compare as many replies."""
        for side in self.sides:
            data = b"".join(side.resolved(request, self.last[number]) for request in requests)
            places = [at for at in range(1, len(data)) if at * 7919 % 1000 < cuts * 100]
            await side.send(number, data, places)
        for request in requests:
            await self._compare(number, request.partition(b"\r\n")[0].decode("latin-1"))
            if request.startswith(b"quit"):
                return

    async def _compare(self, number: int, what: str) -> bytes:
        theirs, ours = self.sides
        # The other side's first: its ids must be known before they are replaced.
        left, right = await theirs.reply(number), await ours.reply(number)
        left_seen, right_seen = theirs.comparable(left), ours.comparable(right)
        if what == "list-tubes":
            left_seen, right_seen = (
                b"\n".join(sorted(seen.split(b"\n"))) for seen in (left_seen, right_seen)
            )
        if left_seen != right_seen:
            raise Difference(
                f"seed {self.script.seed}, connection {number}, {what!r}:\n"
                f"  theirs {left_seen!r}\n  ours   {right_seen!r}"
            )
        if self.is_told:
            print(f"  {number} {what!r}: {left_seen[:70]!r}")
        if left.startswith(b"RESERVED"):
            self.got[number] += 1
            self.last[number] = theirs.ids.index(int(left.split()[1]))
        self.compared[left[:40].decode("latin-1").split()[0] if left.strip() else "(end)"] += 1
        return left

    async def _hear(self) -> None:
        """Let whoever waits have its answer, if it has one by now."""
        for number in sorted(self.waiting):
            for side in self.sides:
                while not side.has_reply(number):
                    if b"\ncurrent-waiting: 1\n" in await self._figures(side):
                        break
            answered = [side.has_reply(number) for side in self.sides]
            if any(answered):
                self.waiting.discard(number)
                await self._compare(number, "the answer to a reserve that may wait")

    async def _figures(self, side: Side) -> bytes:
        self._pass_time()
        await side.send(self.CONTROL, b"stats\r\n", [])
        return await side.reply(self.CONTROL)


async def run(seed: int, program: str, folder: Path, *, is_told: bool = False) -> Counter[str]:
    """Run one script on fresh servers.

    Raises:
        Difference: a reply differs.
    """
    script = drawn(seed)
    socket = folder / f"{seed}.sock"
    size = str(script.job_bytes_max)
    process = await asyncio.create_subprocess_exec(
        program, "-l", f"unix:{socket}", "-z", size, stderr=asyncio.subprocess.DEVNULL
    )
    node = LocalNode()
    front = Beanstalkd(around(node), job_bytes_max=script.job_bytes_max)
    try:
        await front.start("127.0.0.1", 0)
        sides = (Side("theirs", str(socket)), Side("ours", None, front.addresses[0][1]))
        one = Run(script, sides, node, is_told)
        try:
            await one.go()
        finally:
            for side in sides:
                await side.end()
        return one.compared
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        socket.unlink(missing_ok=True)
        await front.stop(1.0)


async def alike(seed: int, program: str, folder: Path, *, is_told: bool = False) -> Counter[str]:
    """Run one script, again if only time may be the reason that it differs.

    Raises:
        Difference: a reply differs.
    """
    tries = 3 if drawn(seed).has_sleeps else 1
    while True:
        tries -= 1
        try:
            return await run(seed, program, folder, is_told=is_told)
        except Difference:
            if not tries:
                raise


def main() -> int:
    """Run a range of seeds; the first difference ends it unless told otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seeds", default="0:200", help="FIRST:BEYOND (default %(default)s)")
    parser.add_argument("--go-on", action="store_true", help="tell of all differences")
    parser.add_argument("--tell", action="store_true", help="print every reply")
    arguments = parser.parse_args()
    program = shutil.which(PROGRAM)
    if program is None:
        print(f"{PROGRAM} is not on the PATH", file=sys.stderr)
        return 2
    first, _, beyond = arguments.seeds.partition(":")
    compared: Counter[str] = Counter()
    different = scripts = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(int(first), int(beyond)):
            try:
                one = alike(seed, program, Path(folder), is_told=arguments.tell)
                compared += asyncio.run(one)
                scripts += 1
            except KeyboardInterrupt:
                break
            except Difference as difference:
                print(difference, flush=True)
                different += 1
                if not arguments.go_on:
                    break
    print(f"{scripts} scripts alike, {different} not; {compared.total()} replies compared")
    print(", ".join(f"{word} {count}" for word, count in compared.most_common()))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
