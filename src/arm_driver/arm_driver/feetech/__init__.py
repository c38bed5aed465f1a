"""Feetech serial servos: packets, registers, byte streams and the bus. Knows nothing of joints, radians or ROS."""
