"""Power cuts: what the disk holds after one, at every write of the canonical scenarios.

`record` plays a scenario with a client and a service whose stores lie on `disk`, a VFS of apsw
under the product's own SQL, and keeps every write, sync and promise in their order (`trace`).
`judge` makes the files that a cut at each of these moments could leave, opens them with the
product, and says which promises are broken. apsw and the standard library's sqlite3 never meet
on one file: the recording is a process of its own.
"""
