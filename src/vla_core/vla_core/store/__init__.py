"""The models that a robot has: verified, immutable, and one of them current, whatever was cut when.

```
<root>/models/<name>/<version>/   a verified model; appears by one rename and never changes
<root>/staging/<key>/             being fetched or removed; never run from
<root>/state.json                 current, last good and refused models
<root>/history.jsonl              what happened, one JSON object a line
<root>/lock                       held around every change
```
Nothing here touches the network: `gg_bridge.fetch` fills a staging folder and commits it.
"""

from vla_core.store.labels import check_label, split_label
from vla_core.store.space import Space
from vla_core.store.state import StoreState
from vla_core.store.store import MODEL_PART, STORE_VARIABLE, Store, default_root

__all__ = ["MODEL_PART", "STORE_VARIABLE", "Space", "Store", "StoreState", "check_label", "default_root", "split_label"]
