"""``castile demo``: a client, a service and a bad network between them, each a process.

`command` reads the options, `director` starts, kills and watches the processes (`client`,
`service`, `proxy`), `diagram` draws what the proxy saw, and `verdict` judges by the rows that
the service's handlers wrote, never by what the protocol believes of itself.
"""
