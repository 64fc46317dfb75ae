"""K4: a ticket has one claimant, is what was issued, and reads balance: all = free + claimed.

RULE: judges what claimants had for sure: until they, the issuer, or anybody who issues or revokes
the ticket could have taken it away.

| f | key | invoke | ok |
|---|---|---|---|
| `ticket.issue` | resource | `session`, `ticket`, `data` | `token`, `created`, `claimant` |
| `ticket.revoke` | resource | `session`, `ticket` | `revoked`, `claimant` |
| `ticket.claim` | resource | `session`, `wait_ms`, `ticket` (optional) | `ticket`, `token`, `issuer`, `data`; refused: `code` |
| `ticket.release` | resource | `session`, `ticket`, `token` | – |
| `ticket.read` | resource | – | `tickets: [{ticket, issuer, token, data, claimant, claim_token}]`, `ticket_count`, `free_count`, `queue_length`; a resource that is not there: refused with `code`, as if empty |
"""
