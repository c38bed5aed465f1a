"""Plays joint trajectories on a serial arm with Feetech servos."""
