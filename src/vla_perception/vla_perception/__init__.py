"""Publishes any number of cameras (V4L2, HTTP MJPEG, video, folders) as JPEG topics."""
