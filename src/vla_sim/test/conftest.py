"""Chooses MuJoCo's OpenGL library before a test imports MuJoCo."""

import vla_sim  # noqa: F401 (its import chooses)
