"""MuJoCo tabletop: an SO-101 behind a simulated serial servo bus, eight MJPEG cameras, a scripted expert."""
