std = "lua51"
read_globals = { "redis", "KEYS", "ARGV", "cjson", "cmsgpack", "struct", "bit" }
max_line_length = 100
-- A lib/ file is included whole: a script does not use every function of it.
ignore = { "211", "231", "311", "411/p" }
