"""`evergreen demo --update`: the story of an update, with every real part, in simulation."""
