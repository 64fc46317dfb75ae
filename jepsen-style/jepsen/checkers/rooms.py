"""K4 and K5: places come in order and once, the window goes forward only, and not too fast.

RULE: judges acknowledged places, and what reads say of themselves.

| f | key | invoke | ok |
|---|---|---|---|
| `room.set` | room | `window_size`, `window_interval_ms`, `active_windows` | – |
| `room.join` | room | – | `position`, `status`, `ahead` |
| `room.status` | room | `position` (that of the pass that is shown) | `position`, `status`, `ahead` |
| `room.read` | room | – | `joined`, `waiting`, `active`, `expired`, `window_end` |

Rooms are not deleted and made again under one name within a run.
"""
