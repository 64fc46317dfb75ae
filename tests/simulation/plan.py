"""What one seed means: network, size, faults and their measure.

RULE: a function of the seed and of what the caller fixed. Two calls give equal plans.

By default everything is drawn, as a swarm: each seed leaves out some faults, so that each fault is
also seen without the others in its way.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tests.simulation.network import HARSH, MS, SECOND, TCP, Special, Weather

APPEND_ANSWER_TAG, VOTE_REQUEST_TAG, VOTE_ANSWER_TAG = 3, 5, 6

SLOW_ANSWERS = replace(
    HARSH,
    name="slow-answers",
    special={APPEND_ANSWER_TAG: Special(late=0.4, late_us=6 * SECOND)},
)
REPEATED_VOTES = replace(
    HARSH,
    name="repeated-votes",
    special={VOTE_ANSWER_TAG: Special(repeated=0.9)},
)

LOSSY = replace(HARSH, name="lossy", lost=0.25, slow=0.3)
QUIET = replace(TCP, name="quiet", slow=0.0)

# Weights of the faults in faults.py, by name.
ALL_FAULTS: Mapping[str, int] = {
    "crash": 10,
    "crash_most": 2,
    "crash_in_election": 2,
    "partition": 5,
    "one_way": 4,
    "see_saw": 1,
    "overtake": 1,
    "pause": 4,
    "reset": 4,
    "clog": 2,
    "slow_disk": 2,
    "transfer": 4,
    "sick_disk": 1,
    "flip": 1,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is fixed before the first step.

    Attributes:
        seconds: virtual length of the faulty part.
        faults: name to weight; what is missing does not happen.
        gap_us: between two faults, least and most.
        kill_only: no power loss.
        stop_share: probability that a disk operation is the process's last.
        snapshot_entries: compaction every so many entries; None for hardly ever.
        clients: how many ask at once.
        think_us: mean pause of a client between two commands.
        read_share: how many of its commands are reads.
        key_share: how many carry an Idempotency-Key.
        window: uncommitted entries a leader allows itself.
        threaded: a thread waits for the disk, and requests are taken meanwhile.
        append_bytes_max: small ones bring a follower up in many steps.
        election_max: upper bound of election timeouts in seconds; a low one makes rivals.
        laws: laws of liveness that hold under these faults only, by their names in laws.py.
        drift: clocks run at 1 ± this.
        stock: the unguarded library instead of ours.
        workload: what clients do, by its name in workloads/.
    """

    seed: int
    nodes: int
    weather: Weather
    seconds: float
    faults: Mapping[str, int] = field(default_factory=lambda: dict(ALL_FAULTS))
    gap_us: tuple[int, int] = (300 * MS, 2 * SECOND)
    kill_only: bool = False
    stop_share: float = 0.0
    snapshot_entries: int | None = 40
    clients: int = 4
    think_us: int = 120 * MS
    read_share: float = 0.25
    key_share: float = 0.85
    window: int = 1
    threaded: bool = False
    append_bytes_max: int = 4 << 20
    election_max: float = 0.9
    laws: tuple[str, ...] = ()
    drift: float = 0.1
    stock: bool = False
    workload: str = "locks"

    def describe(self) -> str:
        """One line for the head of a story."""
        faults = ",".join(sorted(self.faults)) or "none"
        return (
            f"{self.nodes} nodes, {self.weather.name}, {self.seconds:g} s, faults {faults}, "
            f"{'kill only' if self.kill_only else 'power loss'}, stops {self.stop_share:g}, "
            f"compaction every {self.snapshot_entries}, {self.clients} clients, {self.workload}"
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """What a name on the command line fixes; None is drawn from the seed."""

    weather: Weather | None = None
    nodes: int | None = None
    faults: Mapping[str, int] | None = None
    kill_only: bool | None = None
    stop_share: float | None = None
    snapshot_entries: int | None = None
    read_share: float = 0.25
    window: int | None = None
    append_bytes_max: int | None = None
    election_max: float | None = None
    clients: int | None = None
    think_us: int | None = None
    gap_us: tuple[int, int] | None = None
    laws: tuple[str, ...] = ()
    is_swarm: bool = True


_WITHOUT_RARE = {k: v for k, v in ALL_FAULTS.items() if k not in ("flip", "sick_disk")}

_STORM = {**_WITHOUT_RARE, "crash": 40, "crash_most": 12}

PROFILES: Mapping[str, Profile] = {
    "mixed": Profile(),
    "tcp": Profile(weather=TCP),
    "harsh": Profile(weather=HARSH),
    "kill": Profile(weather=TCP, kill_only=True, stop_share=0.0),
    "stops": Profile(
        weather=HARSH, stop_share=0.003, is_swarm=False, kill_only=False, faults=_WITHOUT_RARE
    ),
    "compacting": Profile(weather=HARSH, snapshot_entries=10),
    "handover": Profile(faults={"transfer": 10, "crash": 3, "partition": 2, "pause": 2}),
    "slow-answers": Profile(
        weather=SLOW_ANSWERS,
        nodes=5,
        faults={"see_saw": 10, "crash": 1},
        is_swarm=False,
        kill_only=False,
        stop_share=0.0,
        snapshot_entries=1_000,
        window=12,
        clients=12,
        think_us=20 * MS,
        append_bytes_max=16 << 10,
        gap_us=(1_500 * MS, 3 * SECOND),
    ),
    "tails": Profile(
        weather=LOSSY,
        faults={"see_saw": 10, "crash": 10, "crash_most": 2},
        is_swarm=False,
        kill_only=False,
        stop_share=0.0,
        snapshot_entries=1_000,
        window=12,
        clients=12,
        think_us=20 * MS,
        append_bytes_max=8 << 10,
        gap_us=(300 * MS, 1_500 * MS),
    ),
    "elections": Profile(
        weather=TCP,
        faults={"crash_in_election": 10, "crash": 5},
        is_swarm=False,
        kill_only=False,
        stop_share=0.0,
        election_max=0.42,
        gap_us=(500 * MS, 1_500 * MS),
    ),
    "two-tails": Profile(
        faults={"two_tails": 10, "see_saw": 4, "crash": 5}, gap_us=(300 * MS, 1_500 * MS)
    ),
    # Also in the segment that is being written, where only a torn end may be cut.
    "rot": Profile(
        nodes=5, faults={"flip_journal": 4, "flip": 4, "crash": 3}, gap_us=(SECOND, 3 * SECOND)
    ),
    "overtaken": Profile(
        weather=TCP,
        faults={"overtake": 1},
        kill_only=True,
        stop_share=0.0,
        gap_us=(2 * SECOND, 4 * SECOND),
    ),
    # Nobody asks anything but the fault itself, so that no entry says what time it is.
    "idle": Profile(
        weather=QUIET,
        nodes=3,
        faults={"old_word": 1},
        is_swarm=False,
        kill_only=True,
        stop_share=0.0,
        clients=0,
        gap_us=(6 * SECOND, 8 * SECOND),
    ),
    "repeated-votes": Profile(
        weather=REPEATED_VOTES,
        nodes=5,
        faults={"crash": 10, "crash_most": 3, "pause": 6},
        is_swarm=False,
        kill_only=False,
        stop_share=0.0,
    ),
    "partitions": Profile(
        weather=TCP,
        faults={"partition": 10, "pause": 3, "one_way": 3},
        is_swarm=False,
        kill_only=True,
        stop_share=0.0,
        read_share=0.7,
        clients=8,
        think_us=20 * MS,
        gap_us=(500 * MS, 1_500 * MS),
    ),
    # The prototype's fault mix: all of it, all the time, and every crash a power loss.
    "storm-tcp": Profile(
        weather=TCP, nodes=3, faults=_STORM, is_swarm=False, kill_only=False, stop_share=0.0
    ),
    "storm-harsh": Profile(
        weather=HARSH, nodes=3, faults=_STORM, is_swarm=False, kill_only=False, stop_share=0.0
    ),
    "calm-compacting": Profile(
        weather=TCP,
        nodes=3,
        faults={"partition": 5, "pause": 4, "reset": 4},
        is_swarm=False,
        kill_only=True,
        stop_share=0.0,
    ),
    "calm": Profile(weather=TCP, faults={}, stop_share=0.0, kill_only=True),
    # Nearly healthy clusters, where laws of liveness hold as well.
    "quiet": Profile(
        weather=QUIET,
        faults={},
        stop_share=0.0,
        kill_only=True,
        window=1,
        laws=("followers apply at once", "a leader is there"),
    ),
    "returning": Profile(
        weather=QUIET,
        faults={"away": 1},
        stop_share=0.0,
        kill_only=True,
        gap_us=(3 * SECOND, 4 * SECOND),
        laws=("a healthy leader stays", "a leader is there"),
    ),
    "planned": Profile(
        weather=QUIET,
        faults={"hand_over": 1},
        stop_share=0.0,
        kill_only=True,
        is_swarm=False,
        snapshot_entries=1_000,
        clients=8,
        think_us=15 * MS,
        gap_us=(SECOND, 2 * SECOND),
        laws=("a leader is there", "a hand-over works"),
    ),
}


def make_plan(
    seed: int,
    *,
    profile: str = "mixed",
    nodes: int | None = None,
    seconds: float = 25.0,
    stock: bool = False,
    workload: str = "locks",
) -> Plan:
    """Draw a plan.

    Raises:
        KeyError: no profile has this name.
    """
    fixed = PROFILES[profile]
    rng = random.Random(f"{seed}/plan")
    weather = rng.choice((TCP, HARSH))
    drawn_nodes = rng.choice((3, 3, 5))
    kill_only = rng.random() < 0.25
    stop_share = rng.choice((0.0, 0.0, 0.001, 0.003))
    snapshot_entries = rng.choice((10, 40, 40, 40, None))
    faults = {name: weight for name, weight in ALL_FAULTS.items() if rng.random() < 0.7}
    gap_us = rng.choice(((50 * MS, 800 * MS), (300 * MS, 2 * SECOND), (SECOND, 5 * SECOND)))
    clients = rng.choice((2, 3, 4, 6))
    think_us = rng.choice((40 * MS, 100 * MS, 250 * MS))
    drift = rng.choice((0.0, 0.02, 0.1))
    window = rng.choice((1, 1, 1, 8))
    threaded = rng.random() < 0.4
    key_share = rng.choice((0.9, 0.9, 0.3))
    append_bytes_max = rng.choice((4 << 20, 4 << 20, 16 << 10))
    election_max = rng.choice((0.9, 0.9, 0.9, 0.43))
    if fixed.faults is not None:
        faults = dict(fixed.faults)
    if fixed.snapshot_entries is not None:
        snapshot_entries = fixed.snapshot_entries
    if not fixed.is_swarm:
        gap_us, clients, think_us, drift = (100 * MS, 1_200 * MS), 4, 100 * MS, 0.1
        snapshot_entries = fixed.snapshot_entries or 40
    gap_us = fixed.gap_us or gap_us
    clients = clients if fixed.clients is None else fixed.clients
    think_us = fixed.think_us or think_us
    return Plan(
        seed=seed,
        nodes=nodes or fixed.nodes or drawn_nodes,
        weather=fixed.weather or weather,
        seconds=seconds,
        faults=faults,
        gap_us=gap_us,
        kill_only=kill_only if fixed.kill_only is None else fixed.kill_only,
        stop_share=stop_share if fixed.stop_share is None else fixed.stop_share,
        snapshot_entries=snapshot_entries,
        clients=clients,
        think_us=think_us,
        read_share=fixed.read_share,
        key_share=key_share,
        window=fixed.window or window,
        threaded=threaded,
        append_bytes_max=fixed.append_bytes_max or append_bytes_max,
        election_max=fixed.election_max or (0.9 if fixed.laws else election_max),
        laws=fixed.laws,
        drift=drift,
        stock=stock,
        workload=workload,
    )
