"""`evergreen record`: the live ROS graph into MCAP files, one an episode, light enough for a small computer."""
