"""AWS's services as far as a release needs them. Only `session` imports AWS's client."""

SHADOW = "evergreen"
"""The bridge's default name for the shadow that it reports into."""
