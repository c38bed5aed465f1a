"""`evergreen demo`: the whole graph against the simulation, watched, measured and written down."""
