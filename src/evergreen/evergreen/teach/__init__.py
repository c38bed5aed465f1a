"""`evergreen teach`: a hand shows the arm a motion, and the arm repeats it."""
