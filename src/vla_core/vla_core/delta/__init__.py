"""Shipping only what changed between two versions of a model.

```
header.py    the file: a JSON header that names base and target, then the blocks' payloads one after another
layout.py    where in a file which numbers lie (safetensors), so that like is compared with like
codecs.py    one block: copied, compressed, compressed against the old bytes, or as differences of floats
floats.py    differences of floating-point numbers, arranged so that they compress
build.py     old and new folder -> delta, and what each file of it costs
rebuild.py   delta and old folder -> the new files
```
A delta is only a way to travel: what is rebuilt must match the hashes of the target's manifest, as if it had come
whole. Both ways work through a file in blocks, so memory does not grow with the model. docs/deltas.md tells the rest.
"""
