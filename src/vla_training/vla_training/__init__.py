"""Records, trains, exports and evaluates policies."""
