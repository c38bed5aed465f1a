"""Launch files and configuration of Evergreen, and the publisher of the robot's description."""
