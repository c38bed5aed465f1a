"""Shared ROS 2 code of Evergreen: parameters, QoS, diagnostics, start-up."""
