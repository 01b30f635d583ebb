"""The Sluicegate service: one shared budget over HTTP, decided by Lua scripts in Redis."""
