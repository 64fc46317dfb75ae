"""Two checkers, one question: thousands of random histories, and not one on which they differ.

RULE: makes histories, legal ones and spoilt ones, and asks `jepsen.linearizable` and Porcupine
(`jepsen-style/porcupine`, a Go program) about each. Draws all from one seed.

    PYTHONPATH=jepsen-style python -m jepsen.crosscheck --histories 10000 --seed 1
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from jepsen import models
from jepsen.history import Operation, Type
from jepsen.linearizable import Model, search

SOURCE: Final = Path(__file__).resolve().parents[1] / "porcupine"
TOOL: Final = SOURCE.parents[1] / ".tools" / "bin" / "porcupine-check"
BUILD_S: Final = 300
NOTHING: Final = -1
"""What a register holds at first."""


class NoTool(Exception):
    """Porcupine is not to be had here; the message says why."""


def tool() -> Path:
    """Find the program, or build it with the Go on PATH: seconds the first time.

    Raises:
        NoTool: there is no Go, or it cannot build.
    """
    sources = [SOURCE / name for name in ("main.go", "go.mod", "go.sum")]
    newest_s = max(source.stat().st_mtime for source in sources)
    if TOOL.exists() and TOOL.stat().st_mtime >= newest_s:
        return TOOL
    go = shutil.which("go")
    if go is None:
        raise NoTool("there is no go on PATH")
    TOOL.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
    with tempfile.TemporaryDirectory(dir=TOOL.parent, prefix="build-") as scratch:
        built = Path(scratch) / TOOL.name
        command = [go, "build", "-mod=readonly", "-trimpath", "-o", str(built), "."]
        try:
            ended = subprocess.run(
                command,
                cwd=SOURCE,
                env=environment,
                capture_output=True,
                text=True,
                timeout=BUILD_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoTool(f"{go} does not build it: {error}") from None
        if ended.returncode:
            raise NoTool(f"{go} does not build it: {ended.stderr.strip()[-500:]}")
        built.replace(TOOL)
    return TOOL


# Histories.


class Made(msgspec.Struct, frozen=True):
    """A history that was made, and how.

    Attributes:
        is_spoilt: an answer was changed; it may be legal all the same.
    """

    model: str
    operations: tuple[Operation, ...]
    is_spoilt: bool


def register_history(rng: random.Random, *, has_cas: bool) -> list[Operation]:
    """Answers of one register to clients at once; few values, so that mistakes are not obvious."""
    values = rng.choice((2, 3, 6))

    def ask(rng: random.Random) -> tuple[str, Any]:
        dice = rng.random()
        if has_cas and dice < 0.35:
            return "cas", [rng.randrange(-1, values), rng.randrange(values)]
        return ("write", rng.randrange(values)) if dice < 0.6 else ("read", None)

    def answer(state: int, f: str, value: Any) -> tuple[Any, int]:
        if f == "write":
            return None, value
        if f == "cas":
            return state == value[0], (value[1] if state == value[0] else state)
        return state, state

    return _run(rng, ask, answer, NOTHING)


def lock_history(rng: random.Random) -> list[Operation]:
    """Answers of one lock to sessions that take it alone or together, and end without a word."""
    sessions = [f"s{number}" for number in range(rng.choice((2, 3, 4)))]
    known = [0]

    def ask(rng: random.Random) -> tuple[str, Any]:
        session = rng.choice(sessions)
        dice = rng.random()
        if dice < 0.45:
            mode = "shared" if rng.random() < 0.4 else "exclusive"
            return "acquire", {"session": session, "mode": mode}
        if dice < 0.75:
            return "release", {"session": session, "token": max(1, known[0] - rng.randrange(3))}
        if dice < 0.85:
            return "check", {"token": max(1, known[0] - rng.randrange(2))}
        return ("read", {}) if dice < 0.95 else ("end", {"session": session})

    def answer(state: models.LockState, f: str, value: Any) -> tuple[Any, models.LockState]:
        result = _lock_answer(rng, state, f, value)
        known[0] = max(known[0], result.get("token", 0))
        step = models.lock().step
        operation = _operation(0, f, value, result, 0, 1)
        fits, after = step(state, operation)
        assert fits, (state, operation)
        return result, after

    return _run(rng, ask, answer, models.LockState())


def _lock_answer(rng: random.Random, state: models.LockState, f: str, value: Any) -> dict[str, Any]:
    """What a good lock answers."""
    tokens = [grant.token for grant in state.grants]
    own = next((g for g in state.grants if g.session == value.get("session")), None)
    if f == "acquire":
        if value["session"] in state.gone:
            return {"code": "session_expired"}
        shared = value["mode"] == "shared"
        if own is not None and (shared or not own.shared):
            return {"token": own.token}
        others = [grant for grant in state.grants if grant is not own]
        if any(not (shared and grant.shared) for grant in others):
            return {"code": "lock_held", "holder_token": rng.choice(tokens)}
        return {"token": state.last + rng.randrange(1, 3)}
    if f == "release":
        return {} if own is not None and own.token == value["token"] else {"code": "stale_token"}
    if f == "check":
        return {"valid": value["token"] in tokens, "current_token": max(tokens, default=None)}
    if f == "read":
        return {
            "holders": [
                {
                    "session": grant.session,
                    "token": grant.token,
                    "mode": "shared" if grant.shared else "exclusive",
                }
                for grant in state.grants
            ]
        }
    return {}


def _run(
    rng: random.Random,
    ask: Callable[[random.Random], tuple[str, Any]],
    answer: Callable[[Any, str, Any], tuple[Any, Any]],
    initial: Any,
) -> list[Operation]:
    """Clients at once: each operation begins, has its effect, and is answered, in random order.

    An operation whose answer is lost had its effect, will have it later, or never has it.
    """
    count = rng.randrange(4, 36)
    most = rng.randrange(1, 6)
    losses = rng.choice((0.0, 0.1, 0.25))
    state = initial
    under_way: list[list[Any]] = []  # process, f, value, start, result or None, whether it is done
    lost: list[list[Any]] = []
    made: list[Operation] = []
    asked = at = process = 0
    while asked < count or under_way:
        dice = rng.random()
        if asked < count and (not under_way or (dice < 0.4 and len(under_way) < most)):
            f, value = ask(rng)
            under_way.append([process, f, value, at, None, False])
            process += 1
            asked += 1
        elif lost and dice < 0.45:
            late = lost.pop(rng.randrange(len(lost)))
            _, state = answer(state, late[1], late[2])
        else:
            one = rng.choice(under_way)
            if not one[5] and rng.random() < losses:
                under_way.remove(one)
                made.append(_operation(one[0], one[1], one[2], None, one[3], None))
                if rng.random() < 0.6:
                    lost.append(one)
            elif not one[5]:
                one[4], state = answer(state, one[1], one[2])
                one[5] = True
            else:
                under_way.remove(one)
                made.append(_operation(one[0], one[1], one[2], one[4], one[3], at))
        at += 1
    return sorted(made, key=lambda operation: operation.start)


def spoil(rng: random.Random, operations: Sequence[Operation]) -> list[Operation]:
    """Change what one operation was answered, or when; often enough that is no longer allowed."""
    spoilt = list(operations)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(spoilt))
        one = spoilt[at]
        changed: dict[str, Any] = {}
        same = [o.result for o in operations if o.f == one.f and not o.is_open]
        if one.end is not None and rng.random() < 0.75 and same:
            changed["result"] = rng.choice(same)
        elif one.end is not None:
            # Earlier it cannot have been: it ends as soon as it has begun, or begins just before.
            later = rng.random() < 0.5
            changed = {"start": one.end} if later else {"end": one.start}
        spoilt[at] = msgspec.structs.replace(one, **changed)
    return _spread(spoilt)


def _spread(operations: Sequence[Operation]) -> list[Operation]:
    """The same order of events, each with a place of its own; calls before returns."""
    events = [(o.start, 0, number) for number, o in enumerate(operations)]
    events += [(o.end, 1, number) for number, o in enumerate(operations) if o.end is not None]
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    for place, (_, kind, number) in enumerate(sorted(events)):
        (ends if kind else starts)[number] = place
    return [
        msgspec.structs.replace(o, start=starts[number], end=ends.get(number))
        for number, o in enumerate(operations)
    ]


def _operation(
    process: int, f: str, value: Any, result: Any, start: int, end: int | None
) -> Operation:
    outcome = Type.INFO if end is None else Type.OK
    return Operation(process, f, "x", value, result, outcome, start, end, start, end)


def make(seed: int) -> Made:
    """The history of a seed."""
    rng = random.Random(seed)
    kind = rng.choice(("register", "cas", "lock", "lock"))
    if kind == "lock":
        operations = lock_history(rng)
    else:
        operations = register_history(rng, has_cas=kind == "cas")
    is_spoilt = rng.random() < 0.6
    if is_spoilt:
        operations = spoil(rng, operations)
    model = "lock" if kind == "lock" else "register"
    return Made(model, tuple(operations), is_spoilt)


# Asking both.


MODELS: Final[dict[str, Model[Any]]] = {
    "register": models.register(NOTHING),
    "lock": models.lock(),
}


def ours(made: Made) -> bool | None:
    """What the search of this package says."""
    return search(MODELS[made.model], made.operations).valid


def theirs(program: Path, histories: Sequence[Made]) -> list[bool]:
    """What Porcupine says of each.

    Raises:
        NoTool: the program ended badly.
    """
    asked = b"\n".join(
        msgspec.json.encode(
            {
                "id": number,
                "model": made.model,
                "operations": [
                    {
                        "process": o.process,
                        "f": o.f,
                        "value": o.value,
                        "result": o.result,
                        "open": o.is_open,
                        "call": o.start,
                        "return": o.end if o.end is not None else -1,
                    }
                    for o in made.operations
                ],
            }
        )
        for number, made in enumerate(histories)
    )
    ended = subprocess.run([program], input=asked, capture_output=True, timeout=600, check=False)
    if ended.returncode:
        raise NoTool(f"{program} ended with {ended.returncode}: {ended.stderr.decode()[-500:]}")
    answers = [msgspec.json.decode(line) for line in ended.stdout.splitlines()]
    return [bool(answer["legal"]) for answer in answers]


class Result(msgspec.Struct):
    """What came of it."""

    histories: int = 0
    illegal: int = 0
    spoilt: int = 0
    by_model: dict[str, int] = {}
    differing: list[int] = []
    wronged: list[int] = []
    ours_s: float = 0.0
    theirs_s: float = 0.0

    def __str__(self) -> str:
        models_told = ", ".join(f"{count} {name}" for name, count in sorted(self.by_model.items()))
        return (
            f"{self.histories} histories ({models_told}; {self.spoilt} spoilt, {self.illegal} "
            f"illegal): {len(self.differing)} disagreements, {len(self.wronged)} legal ones called "
            f"illegal; ours {self.ours_s:.1f} s, Porcupine {self.theirs_s:.1f} s"
        )


def compare(program: Path, seeds: Sequence[int]) -> Result:
    """Ask both about the history of each seed."""
    result = Result()
    for some in _chunks(seeds, 500):
        histories = [make(seed) for seed in some]
        began_s = time.monotonic()
        mine = [ours(made) for made in histories]
        middle_s = time.monotonic()
        other = theirs(program, histories)
        result.ours_s += middle_s - began_s
        result.theirs_s += time.monotonic() - middle_s
        for seed, made, one, two in zip(some, histories, mine, other, strict=True):
            result.histories += 1
            result.by_model[made.model] = result.by_model.get(made.model, 0) + 1
            result.spoilt += made.is_spoilt
            result.illegal += not two
            if one is not two:
                result.differing.append(seed)
            if not made.is_spoilt and not one:
                result.wronged.append(seed)
    return result


def _chunks(seeds: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (seeds[at : at + size] for at in range(0, len(seeds), size))


def main() -> int:
    """Compare, print the figures, and the seeds of what differs."""
    parser = argparse.ArgumentParser(prog="python -m jepsen.crosscheck", description=__doc__)
    parser.add_argument("--histories", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first; each is its own")
    asked = parser.parse_args()
    try:
        result = compare(tool(), range(asked.seed, asked.seed + asked.histories))
    except NoTool as why:
        print(f"NOT COMPARED: {why}", file=sys.stderr)
        return 2
    print(result)
    for seed in [*result.differing, *result.wronged]:
        print(f"replay: python -m jepsen.crosscheck --histories 1 --seed {seed}")
    return 1 if result.differing or result.wronged else 0


if __name__ == "__main__":
    sys.exit(main())
