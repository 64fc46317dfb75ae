"""Bugs of single primitives: locks, semaphores, tickets, fifos, rooms, jobs, tasks, batches.

RULE: patches of one primitive each; the workload of that primitive hunts them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Final

from cluster.machine import several
from cluster.machine.commands.rooms import JoinRoom
from cluster.machine.commands.several import Several
from cluster.machine.commands.tickets import ClaimTicket
from cluster.machine.core import Core
from cluster.machine.fifos.fifos import Fifos
from cluster.machine.jobs.jobs import Jobs
from cluster.machine.jobs.stock import Stock
from cluster.machine.jobs.tubes import Hold, Job, Tube
from cluster.machine.locks import book as book_module
from cluster.machine.locks import locks as locks_module
from cluster.machine.locks import multilocks as multilocks_module
from cluster.machine.locks.book import Lock, LockBook, MultiPlace, Wants
from cluster.machine.locks.locks import Locks
from cluster.machine.locks.multilocks import MultiLocks
from cluster.machine.outcome.fifos import WAITING
from cluster.machine.outcome.jobs import Cancelled
from cluster.machine.outcome.locks import GrantedMany
from cluster.machine.rooms import Clock, Rooms
from cluster.machine.semaphores import Semaphore, Semaphores
from cluster.machine.sessions import Owned, Session
from cluster.machine.tasks import tasks as tasks_module
from cluster.machine.tasks.pools import Pool, Slot
from cluster.machine.tasks.slots import Slots
from cluster.machine.tasks.tasks import Tasks
from cluster.machine.tickets.resources import Resource
from cluster.machine.tickets.tickets import Tickets
from cluster.node import schedules
from jepsen.zoo.species import Plant, Real, Simulated, replaced

Off = AbstractContextManager[Any]


# Locks.


def _every_request_fits() -> Off:
    """Whoever asks for a lock that nobody waits for gets it, whoever holds it."""
    return replaced(locks_module, is_compatible=lambda lock, shared: True)


def _release_unchecked() -> Off:
    """A release takes the lock from whoever holds it now (etcd#22082)."""
    release = Locks.release

    def late(self: Locks, command: Any, request: Any) -> Any:
        lock = self._by_name.get(command.name)
        if lock is not None and len(lock.holders) == 1:
            (grant,) = lock.holders.values()
            command = type(command)(grant.session, command.name, grant.token)
        return release(self, command, request)

    return replaced(Locks, release=late)


def _several_overtaken() -> Off:
    """Where a lock is free, whoever comes gets it, though others wait for it and for more."""

    def blind(lock: Lock, priority: int, arrival: int) -> int:
        queue = [place for place in lock.queue if not isinstance(place[2], MultiPlace)]
        return sum(place[:2] < (priority, arrival) for place in queue)

    rank_of = book_module.rank_of
    return replaced(locks_module, rank_of=lambda *of: min(blind(*of), rank_of(*of)))


def _priority_inverted() -> Off:
    """Of those who wait, the least urgent comes first."""
    init = book_module.LockPlace.__init__

    def inverted(
        self: Any, name: str, session: str, shared: bool, priority: int, *rest: int
    ) -> None:
        init(self, name, session, shared, -priority, *rest)

    return replaced(book_module.LockPlace, __init__=inverted)


def _held_is_no_obstacle() -> Off:
    """Several locks are given to whoever is first in all queues, held or not."""
    return replaced(multilocks_module, _fits=lambda lock, session, shared: True)


def _last_left_out() -> Off:
    """Of several locks all but the last are given."""
    grant = MultiLocks._grant

    def most(self: MultiLocks, session: Session, wants: Wants) -> GrantedMany:
        given = grant(self, session, wants[:-1] or wants)
        _, token, shared = given.locks[-1]
        rest = tuple((other, token, shared) for other, _ in wants[len(given.locks) :])
        return GrantedMany((*given.locks, *rest), session.id)

    return replaced(MultiLocks, _grant=most)


def _dead_keep_a_lock() -> Off:
    """A session that ends leaves one of its locks taken."""
    take = LockBook.take

    def forgetful(self: LockBook, name: str, token: int) -> None:
        if name != "sim-west":
            take(self, name, token)

    return replaced(LockBook, take=forgetful)


def _not_looked_at_beforehand() -> Off:
    """All or nothing is carried out like any batch."""
    return replaced(several.Batches, _refused=lambda self, command: None)


def _only_first_looked_at() -> Off:
    """Of a batch only the first command is looked at beforehand."""
    refused = several.Batches._refused

    def hasty(self: several.Batches, command: Several) -> Any:
        return refused(self, Several(command.commands[:1], atomic=True))

    return replaced(several.Batches, _refused=hasty)


# Semaphores and tickets.


def _one_unit_more() -> Off:
    """One unit more than there is."""
    return replaced(Semaphore, fits=lambda self, units: self.held + units <= self.limit + 1)


def _queue_barged() -> Off:
    """A small request slips past those who wait."""
    return replaced(Semaphore, rank=lambda self, priority, arrival: 0)


def _units_outlive() -> Off:
    """What a session held of a semaphore stays taken when it ends."""
    return replaced(Semaphores, free=lambda self, session, thing, token: None)


def _claimed_twice() -> Off:
    """A ticket that somebody has is given away once more."""
    find = Tickets._find

    def generous(self: Tickets, command: ClaimTicket) -> Any:
        found = find(self, command)
        resource = self.resources.get(command.name)
        if found is None and resource is not None and not resource.is_lock:
            for ticket in resource.tickets.values():
                if ticket.claim is not None and command.ticket in (None, ticket.name):
                    self.resources.unclaim(resource, ticket)
                    return ticket
        return found

    return replaced(Tickets, _find=generous)


def _free_not_handed_on() -> Off:
    """What becomes free is not given to who waits."""
    return replaced(Tickets, settle=lambda self, name: None)


def _last_served_first() -> Off:
    """The last of those who wait for a ticket is served first."""
    return replaced(Resource, first_for=lambda self, ticket: (self.queue or [None])[-1])


# Fifos and rooms.


def _turn_skipped() -> Off:
    """The second ticket gets its turn before the first."""
    settle = Fifos.settle

    def hasty(self: Fifos, name: str) -> None:
        fifo = self._by_name.get(name)
        if fifo is not None and fifo.queue is not None and len(fifo.queue) > 1:
            first, second = fifo.queue[0], fifo.queue[1]
            if first.state == second.state == WAITING and second.place is not None:
                place = fifo.unstand(second)
                assert place is not None
                self._core.grant(place, self._accept(second, 1))
                return
        settle(self, name)

    return replaced(Fifos, settle=hasty)


def _turns_overlap() -> Off:
    """The next ticket is called while the turn before it is not over."""
    settle = Fifos.settle

    def hasty(self: Fifos, name: str) -> None:
        settle(self, name)
        fifo = self._by_name.get(name)
        if fifo is not None and fifo.queue is not None and len(fifo.queue) > 1:
            second = fifo.queue[1]
            if second.state == WAITING and second.place is not None:
                place = fifo.unstand(second)
                assert place is not None
                self._core.grant(place, self._accept(second, 1))

    return replaced(Fifos, settle=hasty)


def _place_twice() -> Off:
    """Every fifth place of a room is given twice."""
    join = Rooms.join

    def generous(self: Rooms, command: JoinRoom, request: Any) -> Any:
        room = self._by_name.get(command.name)
        if room is not None and room.joined % 5 == 4 and room.clock is not None:
            room.joined -= 1
        return join(self, command, request)

    return replaced(Rooms, join=generous)


def _slides_twice() -> Off:
    """A window moves by two steps at once."""
    slide = Rooms._slide

    def twice(self: Rooms, clock: Clock) -> None:
        clock.room.window_end += clock.room.window_size
        slide(self, clock)

    return replaced(Rooms, _slide=twice)


# Jobs.


def _any_job_token() -> Off:
    """Who comes late may still do what it likes with a job, as with old beanstalkd clients."""
    strict = Jobs._not_held_now

    def lax(self: Jobs, command: Any) -> Any:
        refusal = strict(self, command)
        job = self.stock.jobs.get(command.job)
        return refusal if job is None or job.hold is None else None

    return replaced(Jobs, _not_held_now=lax)


def _reserved_cancelled() -> Off:
    """A cancel takes the job from its worker: delivered and cancelled, both."""
    cancel = Jobs._cancel

    def ruthless(self: Jobs, job_id: int | None) -> Cancelled:
        job = None if job_id is None else self.stock.jobs.get(job_id)
        if job is None or job.hold is None:
            return cancel(self, job_id)
        self.stock.remove(job, "cancelled")
        return Cancelled(job.id, True, "gone", None)

    return replaced(Jobs, _cancel=ruthless)


def _delays_cut() -> Off:
    """A delayed job is given out a tenth too early."""
    make_ready = Stock.make_ready

    def hasty(self: Stock, job: Job, delay_ms: int = 0) -> None:
        make_ready(self, job, delay_ms - delay_ms // 10)

    return replaced(Stock, make_ready=hasty)


def _delays_ignored() -> Off:
    """A delayed job is given out at once."""
    make_ready = Stock.make_ready

    def hasty(self: Stock, job: Job, delay_ms: int = 0) -> None:
        make_ready(self, job)

    return replaced(Stock, make_ready=hasty)


def _reservations_cut() -> Off:
    """At half of the TTR somebody else gets the job."""
    arm_hold = Stock.arm_hold

    def hasty(self: Stock, hold: Hold) -> None:
        hold.deadline_ms -= (hold.deadline_ms - hold.since_ms) // 2
        arm_hold(self, hold)

    return replaced(Stock, arm_hold=hasty)


def _failed_dropped() -> Off:
    """A job that failed too often is dropped instead of going elsewhere."""
    give_up = Stock.give_up

    def careless(self: Stock, job: Job) -> bool:
        if not give_up(self, job):
            return False
        self.step_out(job)
        del self.jobs[job.id]
        return True

    return replaced(Stock, give_up=careless)


def _timed_out_dropped() -> Off:
    """A job whose reservation ran out is gone."""
    ran_out = Stock._ran_out

    def careless(self: Stock, hold: Hold) -> None:
        job = self.jobs[hold.job]
        ran_out(self, hold)
        if job.id in self.jobs and job.hold is None:
            self.remove(job, "deleted")

    timers = Stock.__init__

    def init(self: Stock, core: Core) -> None:
        timers(self, core)
        kind = next(kind for kind, does in self.timers.items() if does == self._ran_out)
        self.timers = {**self.timers, kind: lambda hold: careless(self, hold)}

    return replaced(Stock, __init__=init)


def _keys_of_jobs_ignored() -> Off:
    """Two jobs of one key live together."""
    return replaced(Tube, job_of=lambda self, key: None)


def _dead_keep_jobs() -> Off:
    """What a session reserved that ended is forgotten, and runs out some time."""
    return replaced(Jobs, free=lambda self, session, thing, token: None)


# Tasks.


def _any_task_token() -> Off:
    """Finishing a task is not conditional on the token."""
    find = tasks_module._find

    def lax(pool: Pool, id: str, session: str | None, token: int | None) -> Any:
        return find(pool, id, None, None)

    return replaced(tasks_module, _find=lax)


def _unfair() -> Off:
    """Who asks first gets all there is."""
    return replaced(Pool, most=lambda self, limit: 1_000)


def _shares_wrong() -> Off:
    """A share is three times too large."""
    # The property itself, which has no name of its own in types.
    share: Any = vars(Pool)["share"].fget
    return replaced(Pool, share=property(lambda pool: 3 * share(pool) + 1))


def _dead_keep_tasks() -> Off:
    """A session that ends frees its place as a worker only."""
    free = Tasks.free

    def forgetful(self: Tasks, session: Session, thing: Owned, token: int) -> None:
        if not thing[2]:
            free(self, session, thing, token)

    return replaced(Tasks, free=forgetful)


def _slots_left_out() -> Off:
    """The leader passes over a slot and says nothing."""
    following = schedules.following

    def hasty(*asked: Any) -> schedules.Next:
        found = following(*asked)
        every_ms = asked[0].every_ms
        return found if found.slot_ms is None else found._replace(slot_ms=found.slot_ms + every_ms)

    return replaced(schedules, following=hasty)


def _late_slots_run() -> Off:
    """Nobody looks at the catch-up window."""
    due = Slots.due

    def eager(self: Slots, slot: Slot) -> None:
        slot.due_ms = self._core.wall_ms
        due(self, slot)

    return replaced(Slots, due=eager)


def _slots_twice() -> Off:
    """A task forgets which slot was its last one: the slot is fired twice."""
    due = Slots.due

    def amnesiac(self: Slots, slot: Slot) -> None:
        due(self, slot)
        assert slot.task.timing is not None
        slot.task.timing.after_ms -= 5_000

    return replaced(Slots, due=amnesiac)


_SECONDS = 15.0

PLANTS: Final = (
    Plant(
        "plant-barge",
        "every request for a lock is compatible",
        "locks",
        _every_request_fits,
        Simulated(frozenset({"mutual exclusion"})),
        Real(frozenset({"K2 mutual exclusion", "K1 linearizable locks"}), "locks", "none", 8.0),
    ),
    Plant(
        "locks-release",
        "a release is not conditional on the token",
        "locks",
        _release_unchecked,
        Simulated(frozenset({"locks", "mutual exclusion"})),
        Real(frozenset({"K2 mutual exclusion", "K1 linearizable locks"}), "locks", "network"),
    ),
    Plant(
        "locks-overtaken",
        "later ones overtake who waits for several",
        "locks",
        _several_overtaken,
        Simulated(frozenset({"no barging"}), "mixed", "multilocks", seconds=_SECONDS),
    ),
    Plant(
        "locks-priority",
        "priorities of waiters inverted",
        "locks",
        _priority_inverted,
        Simulated(frozenset({"no barging"}), "mixed", "multilocks", seconds=_SECONDS),
    ),
    Plant(
        "locks-several-held",
        "a held lock is no obstacle to several",
        "locks",
        _held_is_no_obstacle,
        Simulated(frozenset({"mutual exclusion"}), "mixed", "multilocks", seconds=_SECONDS),
    ),
    Plant(
        "locks-several-last",
        "the last of several locks is not given",
        "locks",
        _last_left_out,
        Simulated(frozenset({"all or none"}), "mixed", "multilocks", seconds=_SECONDS),
    ),
    Plant(
        "locks-orphan",
        "a dead session keeps one of its locks",
        "locks",
        _dead_keep_a_lock,
        Simulated(
            frozenset({"a session takes all along", "locks"}),
            "mixed",
            "multilocks",
            seconds=_SECONDS,
        ),
    ),
    Plant(
        "batch-none",
        "all or nothing: nothing looked at beforehand",
        "batches",
        _not_looked_at_beforehand,
        Simulated(frozenset({"all or none"}), "mixed", "batch", seconds=_SECONDS),
    ),
    Plant(
        "batch-first",
        "all or nothing: only the first looked at",
        "batches",
        _only_first_looked_at,
        Simulated(frozenset({"all or none"}), "mixed", "batch", seconds=_SECONDS),
    ),
    Plant(
        "semaphores-capacity",
        "one unit more than there is",
        "semaphores",
        _one_unit_more,
        Simulated(frozenset({"capacity"}), "mixed", "semaphores", seconds=_SECONDS),
        Real(frozenset({"K4 capacity"}), "semaphores", "none", 8.0),
    ),
    Plant(
        "semaphores-barge",
        "the queue of a semaphore is barged",
        "semaphores",
        _queue_barged,
        Simulated(frozenset({"no barging", "semaphores"}), "mixed", "semaphores", seconds=_SECONDS),
        Real(frozenset({"K5 nobody overtakes"}), "semaphores", "none", 8.0),
    ),
    Plant(
        "semaphores-orphan",
        "units outlive their session",
        "semaphores",
        _units_outlive,
        Simulated(
            frozenset({"a session takes all along", "semaphores"}),
            "mixed",
            "semaphores",
            seconds=_SECONDS,
        ),
    ),
    Plant(
        "tickets-twice",
        "a ticket claimed twice",
        "tickets",
        _claimed_twice,
        Simulated(frozenset({"one claimant", "tickets"}), "mixed", "tickets", seconds=_SECONDS),
        Real(frozenset({"K4 tickets"}), "tickets", "none", 8.0),
    ),
    Plant(
        "tickets-stuck",
        "a free ticket beside who waits for it",
        "tickets",
        _free_not_handed_on,
        Simulated(frozenset({"no stuck waiter"}), "mixed", "tickets", seconds=_SECONDS),
    ),
    Plant(
        "tickets-last",
        "the last who waits for a ticket is served first",
        "tickets",
        _last_served_first,
        Simulated(frozenset({"no barging"}), "mixed", "tickets", seconds=_SECONDS),
    ),
    Plant(
        "fifos-skip",
        "a turn is skipped",
        "fifos",
        _turn_skipped,
        Simulated(frozenset({"turns in order"}), "mixed", "fifos", seconds=_SECONDS),
        Real(frozenset({"K5 turns in order"}), "fifos", "none", 8.0),
    ),
    Plant(
        "fifos-overlap",
        "two turns at a time",
        "fifos",
        _turns_overlap,
        Simulated(frozenset({"turns in order", "turns"}), "mixed", "fifos", seconds=_SECONDS),
    ),
    Plant(
        "rooms-place",
        "a place given twice",
        "rooms",
        _place_twice,
        Simulated(frozenset({"places in order", "places"}), "mixed", "rooms", seconds=_SECONDS),
        Real(frozenset({"K4 waiting room"}), "rooms", "none", 8.0),
    ),
    Plant(
        "rooms-window",
        "the window slides twice",
        "rooms",
        _slides_twice,
        Simulated(
            frozenset({"one step per interval", "places"}), "mixed", "rooms", seconds=_SECONDS
        ),
        Real(frozenset({"K4 waiting room"}), "rooms", "none", 8.0),
    ),
    Plant(
        "jobs-token",
        "the token of a reservation is not checked",
        "jobs",
        _any_job_token,
        Simulated(frozenset({"a late token is stale"}), "mixed", "jobs", seconds=_SECONDS),
        Real(frozenset({"K7 jobs", "K1 linearizable jobs"}), "jobs", "client-pause"),
    ),
    Plant(
        "jobs-cancel",
        "cancelled and delivered, both",
        "jobs",
        _reserved_cancelled,
        Simulated(frozenset({"a cancelled job is nobody's"}), "mixed", "jobs", seconds=_SECONDS),
        Real(frozenset({"K7 jobs", "K1 linearizable jobs"}), "jobs", "none", 8.0),
    ),
    Plant(
        "jobs-early",
        "a delayed job comes a tenth too early",
        "jobs",
        _delays_cut,
        Simulated(frozenset({"no job early"}), "mixed", "jobs", seconds=_SECONDS),
    ),
    Plant(
        "jobs-at-once",
        "a delayed job comes at once",
        "jobs",
        _delays_ignored,
        Simulated(frozenset({"no job early"}), "mixed", "jobs", seconds=_SECONDS),
        Real(frozenset({"K7 jobs"}), "jobs", "none", 8.0),
    ),
    Plant(
        "jobs-ttr",
        "a reservation ends at half of its time",
        "jobs",
        _reservations_cut,
        Simulated(frozenset({"one worker at a time", "jobs"}), "mixed", "jobs", seconds=_SECONDS),
    ),
    Plant(
        "jobs-failed",
        "a job that failed too often is dropped",
        "jobs",
        _failed_dropped,
        Simulated(frozenset({"jobs", "no job lost"}), "mixed", "jobs", seconds=_SECONDS),
    ),
    Plant(
        "jobs-lost",
        "a job whose reservation ran out is gone",
        "jobs",
        _timed_out_dropped,
        Simulated(frozenset({"jobs", "no job lost"}), "mixed", "jobs", seconds=_SECONDS),
        Real(frozenset({"K7 jobs"}), "jobs", "client-pause"),
    ),
    Plant(
        "jobs-keys",
        "two jobs of one key",
        "jobs",
        _keys_of_jobs_ignored,
        Simulated(frozenset({"a key lives once"}), "mixed", "jobs", seconds=_SECONDS),
    ),
    Plant(
        "jobs-orphan",
        "the dead keep their jobs",
        "jobs",
        _dead_keep_jobs,
        Simulated(frozenset({"jobs"}), "mixed", "jobs", seconds=_SECONDS),
    ),
    Plant(
        "tasks-token",
        "the token of a task is not checked",
        "tasks",
        _any_task_token,
        Simulated(frozenset({"one holder of a task"}), "mixed", "tasks", seconds=_SECONDS),
    ),
    Plant(
        "tasks-first",
        "who asks first gets all tasks",
        "tasks",
        _unfair,
        Simulated(frozenset({"fair shares"}), "mixed", "tasks", seconds=_SECONDS),
        Real(frozenset({"K8 tasks"}), "tasks", "none", 8.0),
    ),
    Plant(
        "tasks-share",
        "shares are unfair",
        "tasks",
        _shares_wrong,
        Simulated(frozenset({"fair shares"}), "mixed", "tasks", seconds=_SECONDS),
    ),
    Plant(
        "tasks-orphan",
        "the dead keep their tasks",
        "tasks",
        _dead_keep_tasks,
        Simulated(
            frozenset({"tasks", "the machine raises nothing"}), "mixed", "tasks", seconds=_SECONDS
        ),
    ),
    Plant(
        "slots-missed",
        "a slot is left out in silence",
        "tasks",
        _slots_left_out,
        Simulated(frozenset({"slots"}), "mixed", "tasks", seconds=_SECONDS),
        Real(frozenset({"K8 tasks"}), "tasks", "none", 8.0),
    ),
    Plant(
        "slots-late",
        "a slot is run though it is too late",
        "tasks",
        _late_slots_run,
        Simulated(frozenset({"slots"}), "mixed", "tasks", seconds=_SECONDS),
    ),
    Plant(
        "slots-twice",
        "a slot is fired twice",
        "tasks",
        _slots_twice,
        Simulated(frozenset({"slots"}), "mixed", "tasks", seconds=_SECONDS),
    ),
)
