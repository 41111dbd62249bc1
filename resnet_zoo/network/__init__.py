"""The networks as mathematics: blocks, building, counting, cut-off networks. No file, no cache, no network access."""
