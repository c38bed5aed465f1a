"""The policy server process and its client: openpi's websocket protocol over a Unix socket or TCP. No ROS, no torch."""
