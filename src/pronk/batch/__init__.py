"""Many photos -> one output that a kill cannot spoil: plans, shards, tables, engines."""
