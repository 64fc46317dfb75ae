"""K11: nodes that have applied the same entries have the same state.

RULE: equal index, equal digest; and at the end all nodes stand at one index.

Facts: `node.digest`, key = node, value `index` (applied), `digest`, and `final: true` for those that
were read at the end, when nothing moved any more. Reads of `GET /v1/cluster` during the run may be
given as well; the more the better.
"""
