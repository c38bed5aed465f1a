"""`evergreen health`: whether a running graph is alive."""
