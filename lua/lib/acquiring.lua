-- What lib/acquire_any needs.
-- @include lib/layout
-- @include lib/numbers
-- @include lib/bucket
-- @include lib/sliding
-- @include lib/calendar
-- @include lib/concurrency
-- @include lib/ramp
-- @include lib/windows
-- @include lib/learned
-- @include lib/scope
-- @include lib/limits
-- @include lib/lease
-- @include lib/granting
-- @include lib/answer

local function breaker_of()
-- @include lib/breaker
-- @include lib/report
-- @include lib/pin
-- @include lib/events
-- @include lib/admission
end
