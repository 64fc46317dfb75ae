"""beanstalkd's text protocol, complete, over jobs that are replicated.

RULE: one file, one part: `parser.py` (bytes to requests), `connection.py` (one client, in order),
`replies.py` (the words), `figures.py` (statistics), `kept.py`
(which tubes exist), `server.py` (the front).
Source: beanstalkd's protocol.txt; where text and server differ, the server.

A tube here is a tube of `/v1/tubes`, a job is a job: any node, any front and the native API see the
same ones, by the same ids, which count up from 1 over the whole cluster.

What ends with a connection: a connection that reserves has a session, opened at its first
reservation and closed when it ends, so its jobs are ready again at once. The node renews it every
three seconds; when the node dies, its connections' jobs are ready again ten seconds later.

What is told of whom: jobs, `current-jobs-*`, `total-jobs`, `job-timeouts`, `current-waiting`,
`cmd-delete` and `cmd-pause-tube` of a tube, and which tubes there are, are the cluster's, the same
on every node; a tube that was used or watched at a node that died is there for ten seconds more.
`cmd-*` and connections in `stats`, `current-using` and `current-watching` of a tube, `pid`,
`uptime`, `rusage-*`, `id`, `hostname` and `draining` are the asked node's own. A node has no binlog:
those figures are 0.

Where it differs from the original on purpose: waiters are served strictly oldest first, and of
several jobs that become ready in one step the first by priority goes first; times are in
milliseconds, and of jobs due at the same one the older goes first; a put that fails spends no id; a
paused tube stays while it is paused; a lone CR is a part of its line; what `reserve-job` gave times
out as well (in version 1.12 it does not, if its client had another job). An election, or a node
that is lost, shows as a pause.
"""
