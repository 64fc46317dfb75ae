"""K3: a store that checks tokens loses no update; one that does not must lose some.

RULE: the store is in the process of the clients, so the order of its lines is the order of its
writes. A write is *lost* when the next one has not read it.

| f | key | invoke | ok |
|---|---|---|---|
| `store.read` | item | `token` | `value` |
| `store.write` | item | `token`, `read` (the value this writer read), `value` (unique) | `previous` (what it overwrote); refused: code `fenced`, `newest` |

`FencedStore()` wants no lost update, and accepted tokens that never fall. `UnfencedStore()` is the
negative control for items whose store checks nothing: it is *passed only when updates were lost*, so
its workload must let some writers pause longer than their TTL, whatever the nemesis does. Each takes
`prefix` of the items that are its own (checked: "fenced/", control: "unfenced/").
"""
