"""Real servers, services and workers under faults, and an offline look at what they wrote down.

`journal` has the scripts write down what they do, `clocks` moves a server's clock, `stores` are
what can be broken, `worker` is a process that calls and keeps a diary, `storm` breaks things,
`verdict` compares the diaries, the journal and the store.
"""
