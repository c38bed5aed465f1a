"""Pure core of Evergreen: observations, action chunks, images, wire protocol, manifests, latency."""
