"""K13: once everything is mended, everything works again, and nobody waits for ever.

RULE: no speed is judged; a stated, generous number of election timeouts is.

Facts: `heal` (see the package; its value may have `election_ms`, the longest election timeout).
Reads every operation's `f`, `key`, `wait_ms` of its invoke, and times:

- after the last `heal` each key that is used has an answer of the cluster (ok, or a refusal by the
  machine) within the allowance, from the first request on;
- no operation lasts longer than its `wait_ms` and the allowance, and none is left without an end;
- no read after it shows a lock or semaphore free with somebody waiting who could have it (`lock.read`:
  `holders` empty and `waiters` not, but for those who wait for several).
"""
