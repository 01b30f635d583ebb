-- What lib/settle_any needs.
-- @include lib/success

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
-- @include lib/holding

local function breaker_of()
-- @include lib/breaker
-- @include lib/report
-- @include lib/earning
-- @include lib/pin
-- @include lib/events
-- @include lib/admission
end

local function learning_of()
-- @include lib/events
-- @include lib/learning
end
