"""K15: no node ends by itself, none raises what nobody catches.

RULE: a fact that says so is enough.

Facts: `node.crash` (key = node, value `exit`, `log`: last lines), `node.traceback` (key = node, value
`text`), `node.leak` (key = node, value `what`, `from`, `to`), `node.untruthful` (key = node, value
`said`, `was`). The runner records `node.watched` once (value `nodes`), so that "nothing was seen" can
be told from "nobody looked".
"""
