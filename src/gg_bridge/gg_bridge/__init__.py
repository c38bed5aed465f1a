"""Lets AWS IoT Greengrass replace the model that a robot runs."""
