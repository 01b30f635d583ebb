-- Forget the call before (lib/row): what lib/limits has opened is of its chain.
policies, states, asides, ends, anew, slow = {}, {}, {}, {}, {}, {}
