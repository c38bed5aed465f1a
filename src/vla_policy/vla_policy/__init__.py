"""Runs a vision-language-action policy and publishes joint trajectories."""
