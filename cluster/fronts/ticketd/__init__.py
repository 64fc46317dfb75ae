"""turbosquid/ticketd: tickets and locks of sessions, for its clients.

RULE: foreign words in, our commands out; what a ticket does is decided in `machine/tickets/`.
Source: its Go server and client at 8df1c75, version 0.2.0; httprouter 1.3.0; segmentio/ksuid.

    server.py    the front: routes, checks, errors
    pictures.py  its JSON documents, from the machine's state
    status.py    its status page

A resource here is the native resource of that name, and a session a native session: whatever is
opened, issued and claimed here is seen by the native API too, under the same ids. Its sessions are
swept (`Session.sweep_ms`), which gives ticketd's clients the times they know. Its locks are resources
too, as in ticketd, and not the native locks: their names do not meet.

Ids are KSUIDs as ticketd's are, 27 letters and digits that sort by time. Of the 16 bytes that it
draws by lot, 8 are the session's token here, so that an id tells what it was after its session ended.

A session keeps what only ticketd shows (its client's address, its TTL and name as they were given)
in its `meta`, so that every node shows the same.

What is freed of its original: closing a session that holds a lock frees it at once for others, where
the original loses all its state; a session's lists hold what is there and nothing else; nothing is
lost by a restart; a claim gives a session its own ticket first, so that asking again is safe.

What differs: names are at most 200 bytes of UTF-8 without control characters. Nothing has another
name: issuing and locking are refused with 422, everything else finds nothing. A dump of more than a
few hundred things is made in steps, between which the state may change. A dump of sessions leaves
out those of other protocols that have no tickets. After a restart sessions go on where they were,
instead of getting a whole TTL: time without a leader does not count. Where ticketd has no limits
and the cluster has (`machine/limits.py`), reaching one is a 500 that names it.
"""
