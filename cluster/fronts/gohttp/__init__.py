"""How servers written in Go speak HTTP, for the fronts of systems that were such servers.

RULE: Go's habits and nothing of any one system. A front gives a handler and gets requests as Go's
handlers see them; it answers with values.

    exchange.py    requests and answers
    documents.py   JSON as encoding/json writes it
    queries.py     queries and forms as net/url reads them, numbers as strconv does
    durations.py   durations as package time reads and writes them
    servemux.py    net/http's router, as of Go 1.22
    httprouter.py  julienschmidt/httprouter 1.3.0
    server.py      connections, from the first to the last

Sources: the documentation of Go's net/http, net/url, encoding/json and time, and of httprouter.
"""
