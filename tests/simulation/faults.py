"""Nemeses: what goes wrong, one generator per kind of misfortune.

RULE: each yields the µs it waits and leaves nothing broken behind, except what `heal` mends. All
chance is from the generator's own lots.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping

from cluster.machine.commands import OpenSession
from cluster.node.pending import Answered, Failed
from tests.simulation.network import MS, SECOND
from tests.simulation.world import Call, Host, World

Nemesis = Generator[int, None, None]


def run(world: World, until_us: int) -> Nemesis:
    """Draw one fault after the other, by the weights of the plan, until the time is up."""
    rng = world.lots("faults")
    names = sorted(world.plan.faults)
    weights = [world.plan.faults[name] for name in names]
    if not names:
        return
    least_us, most_us = world.plan.gap_us
    while True:
        yield rng.randrange(least_us, most_us)
        if world.now_us >= until_us:
            return
        name = rng.choices(names, weights)[0]
        world.spawn(FAULTS[name](world, rng), lane=40)


def heal(world: World) -> None:
    """End every fault; what is down starts again, except what refuses to."""
    world.network.mend_all()
    for host in world.hosts.values():
        disk = host.disk
        disk.fail_before = 0.0
        disk.full = disk.write_fails = disk.sync_fails = False
        host.sync_us = (20, 400)
        host.resume()
        host.start()


# ---- who ------------------------------------------------------------------------------------


def _victim(world: World, rng: random.Random) -> Host:
    """Any node, but every other time the leader."""
    leader = world.leader()
    if leader is not None and rng.random() < 0.5:
        return leader
    return world.hosts[rng.choice(world.names)]


def _power(world: World, rng: random.Random) -> bool:
    return not world.plan.kill_only and rng.random() < 0.6


def _down_us(rng: random.Random) -> int:
    """How long a process is away: every other time it is back before anybody has noticed."""
    return rng.randrange(1 * MS, rng.choice((60 * MS, 3 * SECOND)))


def _candidate(world: World) -> Host | None:
    for host in world.up():
        if host.replica is not None and host.replica.role == "candidate":
            return host
    return None


def _pairs(world: World) -> list[tuple[str, str]]:
    return [(a, b) for a in world.names for b in world.names if a != b]


# ---- machines -------------------------------------------------------------------------------


def crash(world: World, rng: random.Random) -> Nemesis:
    """Kill one process, with or without its machine."""
    host = _victim(world, rng)
    host.kill(power=_power(world, rng))
    yield _down_us(rng)
    host.start()


def crash_most(world: World, rng: random.Random) -> Nemesis:
    """Kill a majority or all within a moment: a power cut in the room."""
    count = rng.choice((len(world.names) // 2 + 1, len(world.names)))
    hosts = rng.sample([world.hosts[name] for name in world.names], count)
    power = _power(world, rng)
    for host in hosts:
        host.kill(power=power)
        if rng.random() < 0.5:
            yield rng.randrange(1, 30 * MS)
    rng.shuffle(hosts)
    for host in hosts:
        yield _down_us(rng) // 2
        host.start()


def crash_in_election(world: World, rng: random.Random) -> Nemesis:
    """Kill the leader, and whoever votes for its successor right after the vote."""
    leader = world.leader()
    if leader is not None:
        leader.kill(power=_power(world, rng))
    yield from _await(world, 1_500, lambda: _candidate(world) is not None)
    for _ in range(rng.randrange(1, 6)):
        yield rng.randrange(100, 4 * MS)
        host = world.hosts[rng.choice(world.names)]
        host.kill(power=_power(world, rng))
        yield rng.randrange(100, 2 * MS)
        host.start()
    yield _down_us(rng)
    for host in world.hosts.values():
        host.start()


def pause(world: World, rng: random.Random) -> Nemesis:
    """Stop a process for a while, as a garbage collector or a hypervisor does."""
    host = _victim(world, rng)
    if host.is_up:
        host.pause(rng.randrange(300 * MS, 3 * SECOND))
    yield 0


def slow_disk(world: World, rng: random.Random) -> Nemesis:
    """Let the syncs of a node take long."""
    host = _victim(world, rng)
    most_us = rng.choice((20 * MS, 200 * MS, 700 * MS))
    host.sync_us = (most_us // 4, most_us)
    world.say(host.name, f"has a slow disk, up to {most_us // 1000} ms per sync")
    yield rng.randrange(200 * MS, 3 * SECOND)
    host.sync_us = (20, 400)


def sick_disk(world: World, rng: random.Random) -> Nemesis:
    """Let the next writes or syncs of a node fail: it must stop, and start when mended."""
    host = _victim(world, rng)
    if not host.is_up:
        return
    kind = rng.choice(("full", "write_fails", "sync_fails"))
    setattr(host.disk, kind, True)
    world.say(host.name, f"has a sick disk: {kind}")
    yield rng.randrange(100 * MS, SECOND)
    setattr(host.disk, kind, False)


def flip(world: World, rng: random.Random, prefix: str = "") -> Nemesis:
    """Turn one synced bit of one node over; it must refuse to start, and stays out.

    Never so often that fewer than a majority of disks are left.

    Args:
        prefix: only the newest file whose name begins so; all files without.
    """
    spare = (len(world.names) - 1) // 2
    if world.disks_at_risk >= spare:
        return
    world.disks_at_risk += 1
    host = world.hosts[rng.choice(world.names)]
    host.kill(power=_power(world, rng))
    yield rng.randrange(10 * MS, 100 * MS)
    if host.is_up or host.is_refused or host.flipped is not None:
        world.disks_at_risk -= 1
        return
    try:
        names = [name for name in host.disk.names() if prefix and name.startswith(prefix)]
        host.flipped = host.disk.flip(rng, prefix=max(names, default=prefix))
    except LookupError:
        world.disks_at_risk -= 1
        host.start()
        return
    host.is_flip_at_end = host.disk.is_of_last_write(*host.flipped)
    world.count("flips")
    world.say(host.name, f"has a bit flipped in {host.flipped[0]} at byte {host.flipped[1]}")
    yield _down_us(rng)
    host.start()


def flip_journal(world: World, rng: random.Random) -> Nemesis:
    """The same in the segment that is being written, where a torn end is allowed."""
    yield from flip(world, rng, "journal-")


def transfer(world: World, rng: random.Random) -> Nemesis:
    """Ask for a hand-over, of anybody, to anybody, also to somebody out of reach."""
    leader = world.leader()
    host = leader if leader is not None and rng.random() < 0.7 else _victim(world, rng)
    to = rng.choice([*world.names, None])

    def on_reply(reply: Answered | Failed) -> None:
        if isinstance(reply, Answered):
            world.count("hand-overs")

    if host.is_up:
        world.count("hand-overs asked")
        world.say(host.name, f"is asked to hand leadership to {to}")
        host.post("transfer", to, on_reply)
    yield 0


def hand_over(world: World, rng: random.Random) -> Nemesis:
    """Ask a healthy leader for a hand-over to a healthy follower: it must work."""
    leader = world.leader()
    if leader is None:
        return
    to = rng.choice([name for name in world.names if name != leader.name])
    world.count("hand-overs asked")
    world.say(leader.name, f"is asked to hand leadership to {to}")

    def on_reply(reply: Answered | Failed) -> None:
        if isinstance(reply, Answered):
            world.count("hand-overs")
        elif "a hand-over works" in world.plan.laws:
            world.complain("a hand-over works", f"{leader.name} to {to}: {reply.error!r}")

    leader.post("transfer", to, on_reply)
    yield 0


# ---- network --------------------------------------------------------------------------------


def partition(world: World, rng: random.Random) -> Nemesis:
    """Divide the nodes: the leader alone, halves, a ring in which each sees a majority, a bridge."""
    names = list(world.names)
    rng.shuffle(names)
    leader = world.leader()
    kind = rng.choice(("leader", "halves", "ring", "bridge"))
    if kind == "leader" and leader is not None:
        alone = leader.name
        cuts = [(a, b) for a, b in _pairs(world) if alone in (a, b)]
    elif kind == "ring" and len(names) > 3:
        # Each node sees its two neighbours on each side only.
        place = {name: number for number, name in enumerate(names)}
        count = len(names)
        cuts = [
            (a, b) for a, b in _pairs(world) if (place[a] - place[b]) % count not in (1, count - 1)
        ]
    elif kind == "bridge":
        half = len(names) // 2
        left, right = set(names[:half]), set(names[half + 1 :])
        cuts = [
            (a, b)
            for a, b in _pairs(world)
            if (a in left and b in right) or (a in right and b in left)
        ]
    else:
        left = set(names[: rng.randrange(1, len(names))])
        cuts = [(a, b) for a, b in _pairs(world) if (a in left) != (b in left)]
    world.say("network", f"partition ({kind}): {_show(cuts)}")
    for a, b in cuts:
        world.network.cut(a, b)
    yield rng.randrange(200 * MS, 4 * SECOND)
    world.say("network", f"mended: {_show(cuts)}")
    for a, b in cuts:
        world.network.mend(a, b)


def one_way(world: World, rng: random.Random) -> Nemesis:
    """Cut single directions: the leader hears but is not heard, or the other way round."""
    leader = world.leader()
    if leader is not None and rng.random() < 0.5:
        is_deaf = rng.random() < 0.5
        cuts = [(a, b) for a, b in _pairs(world) if (b if is_deaf else a) == leader.name]
        if rng.random() < 0.5:
            cuts.pop(rng.randrange(len(cuts)))
    else:
        pairs = _pairs(world)
        cuts = rng.sample(pairs, rng.randrange(1, len(pairs) // 2 + 1))
    world.say("network", f"one-way cut: {_show(cuts)}")
    for a, b in cuts:
        world.network.cut(a, b)
    yield rng.randrange(200 * MS, 4 * SECOND)
    world.say("network", f"mended: {_show(cuts)}")
    for a, b in cuts:
        world.network.mend(a, b)


def away(world: World, rng: random.Random) -> Nemesis:
    """Cut one follower off, and let it come back with all it has missed."""
    leader = world.leader()
    if leader is None:
        return
    gone = rng.choice([name for name in world.names if name != leader.name])
    cuts = [(a, b) for a, b in _pairs(world) if gone in (a, b)]
    world.say("network", f"{gone} is away")
    for a, b in cuts:
        world.network.cut(a, b)
    yield rng.randrange(SECOND, 2_500 * MS)
    world.say("network", f"{gone} is back")
    for a, b in cuts:
        world.network.mend(a, b)


def see_saw(world: World, rng: random.Random) -> Nemesis:
    """Give a leader a tail nobody else wants, depose it, elect it again, and make it mute.

    Answers to its first tail that are still under way then come to a leader of the same name.
    """
    first = world.leader()
    if first is None:
        return
    others = [name for name in world.names if name != first.name]
    rng.shuffle(others)
    half = len(others) // 2
    friends, rest = others[: half - 1], others[half - 1 :]
    side = {first.name, *friends}
    cuts = [(a, b) for a, b in _pairs(world) if (a in side) != (b in side)]
    world.say("network", f"see-saw: {_show(cuts)}")
    for a, b in cuts:
        world.network.cut(a, b)
    yield from _await(world, 1_500, lambda: world.leader() not in (None, first))
    yield rng.choice((1, 100, 400)) * MS
    for a, b in cuts:
        world.network.mend(a, b)
    yield rng.randrange(30 * MS, 300 * MS)
    second = world.leader()
    if second is not None and second is not first:
        second.post("transfer", first.name, lambda _: None)
    yield from _await(world, 300, lambda: world.leader() is first)
    mute = [(first.name, name) for name in (*friends, *rest[1:])]
    world.say("network", f"see-saw, the other end: {_show(mute)}")
    for a, b in mute:
        world.network.cut(a, b)
    yield rng.randrange(300 * MS, 1_500 * MS)
    for a, b in mute:
        world.network.mend(a, b)


def two_tails(world: World, rng: random.Random) -> Nemesis:
    """Two leaders get a tail each that nobody else has; then the one, begun again and knowing
    nothing of what is committed, meets the other, who reaches nobody else.
    """
    first = world.leader()
    if first is None:
        return
    away = [(a, b) for a, b in _pairs(world) if first.name in (a, b)]
    world.say("network", f"two tails: {_show(away)}")
    for a, b in away:
        world.network.cut(a, b)
    yield from _await(world, 1_500, lambda: world.leader() not in (None, first))
    second = world.leader()
    yield rng.randrange(1, 60) * MS
    if second is None or second is first:
        for a, b in away:
            world.network.mend(a, b)
        return
    apart = [pair for pair in _pairs(world) if second.name in pair and first.name not in pair]
    world.say("network", f"two tails, the other: {_show(apart)}")
    for a, b in apart:
        world.network.cut(a, b)
    yield rng.randrange(10, 300) * MS
    first.kill(power=False)
    yield rng.randrange(1, 30) * MS
    first.start()
    for a, b in away:
        if second.name in (a, b):
            world.network.mend(a, b)
    yield rng.randrange(300, 900) * MS
    for a, b in (*away, *apart):
        world.network.mend(a, b)


def _await(world: World, most_ms: int, is_so: Callable[[], bool]) -> Nemesis:
    """Wait until something is so, looking every millisecond, or until it has been too long."""
    for _ in range(most_ms):
        if is_so():
            return
        yield 1 * MS


def overtake(world: World, rng: random.Random) -> Nemesis:
    """Pause a leader until somebody campaigns, and let nobody hear of that campaign.

    The candidate ends with a higher term than the leader, who goes on as if nothing had been.
    """
    leader = world.leader()
    if leader is None:
        return
    leader.pause(1_200 * MS)
    yield from _await(world, 1_150, lambda: _candidate(world) is not None)
    candidate = _candidate(world)
    if candidate is None:
        return
    cuts = [(candidate.name, name) for name in world.names if name != candidate.name]
    world.say("network", f"nobody hears {candidate.name}")
    for a, b in cuts:
        world.network.reset(a, b)
        world.network.cut(a, b)
    # Let the leader wake before the others lose patience too.
    leader.resume()
    yield rng.randrange(100 * MS, 400 * MS)
    for a, b in cuts:
        world.network.mend(a, b)


def old_word(world: World, rng: random.Random) -> Nemesis:
    """Let one node hear an idle leader's clock for long, and another lead before it does.

    No entry is written while the first leader's clock runs on, so the second one, which was away,
    begins where the log stands. It opens a session and hands over to the node that heard the first:
    what that one heard is far ahead of the session's time.
    """
    first = world.leader()
    others = [host for host in world.up() if host is not first]
    if first is None or len(others) < 2:
        return
    away, listener = rng.sample(others, 2)
    cuts = [(a, b) for a, b in _pairs(world) if away.name in (a, b)]
    world.say("network", f"{away.name} is away, {listener.name} listens to {first.name}")
    for a, b in cuts:
        world.network.cut(a, b)
    yield rng.randrange(1_500 * MS, 3 * SECOND)
    first.kill(power=False)
    for a, b in cuts:
        world.network.mend(a, b)
    yield from _await(world, 3_000, lambda: _is_ready(away) or _is_ready(listener))
    if _is_ready(away):
        is_opened = False

        def on_done(reply: Answered | Failed | None) -> None:
            nonlocal is_opened
            is_opened = True

        command = OpenSession(f"{rng.getrandbits(64):x}", rng.choice((600, 1_500)), name="short")
        away.ask(
            Call(
                what=command,
                key=None,
                timeout_ms=1_000,
                on_done=on_done,
                began_us=world.now_us,
                due_us=world.now_us + 10 * SECOND,
            )
        )
        yield from _await(world, 400, lambda: is_opened)
        world.count("old words heard")
        away.post("transfer", listener.name, lambda _: None)
    yield rng.randrange(100 * MS, SECOND)
    first.start()


def _is_ready(host: Host) -> bool:
    """It leads, and has applied what was promised before it did."""
    replica = host.replica
    if replica is None or replica.role != "leader":
        return False
    return replica.log[-1][2] == replica.term and replica.applied_index == replica.log[-1][1]


def clog(world: World, rng: random.Random) -> Nemesis:
    """Make some directions slow."""
    pairs = _pairs(world)
    slow = rng.sample(pairs, rng.randrange(1, len(pairs)))
    most_us = rng.choice((30 * MS, 300 * MS, 1_500 * MS))
    world.say("network", f"slow by up to {most_us // 1000} ms: {_show(slow)}")
    for a, b in slow:
        world.network.clog(a, b, most_us)
    yield rng.randrange(200 * MS, 3 * SECOND)
    for a, b in slow:
        world.network.clog(a, b, 0)


def reset(world: World, rng: random.Random) -> Nemesis:
    """Break some connections, a few times."""
    for _ in range(rng.randrange(1, 5)):
        pairs = _pairs(world)
        broken = rng.sample(pairs, rng.randrange(1, len(pairs)))
        world.say("network", f"reset: {_show(broken)}")
        for a, b in broken:
            world.network.reset(a, b)
        yield rng.randrange(1 * MS, 300 * MS)


def _show(pairs: list[tuple[str, str]]) -> str:
    return " ".join(f"{a}>{b}" for a, b in pairs)


FAULTS: Mapping[str, Callable[[World, random.Random], Nemesis]] = {
    "crash": crash,
    "crash_most": crash_most,
    "crash_in_election": crash_in_election,
    "pause": pause,
    "slow_disk": slow_disk,
    "sick_disk": sick_disk,
    "flip": flip,
    "flip_journal": flip_journal,
    "transfer": transfer,
    "hand_over": hand_over,
    "away": away,
    "partition": partition,
    "one_way": one_way,
    "see_saw": see_saw,
    "two_tails": two_tails,
    "overtake": overtake,
    "old_word": old_word,
    "clog": clog,
    "reset": reset,
}
