"""K9: a request that is repeated gets the first answer again, whoever is asked, whenever.

RULE: any `f`; operations whose invoke has the same `request_id` are attempts of one request. The same
`request_id` is never used for another `f`, `key` or body.

- all ok answers are equal, member by member (`attempts` and `index` left out);
- an answer of the machine stays: one that was refused (by a code of the machine) is never granted
  later, and the other way round; codes of a node (`no_leader`, `overloaded`, `unreachable`, …) say
  nothing;
- `idempotency_key_reused` never comes.

That an effect came once is seen by the others: two jobs for one put (K7), two places (K4).
"""
