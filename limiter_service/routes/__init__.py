"""One module per route of the HTTP API: Struct in, engine, Struct out."""
