"""A client for each door.

A door has a `name`, and `deletes` says whether it can delete. `client()` is what one task uses: `is_ready`, `set`,
`get` and, for some doors, `delete` and calls of their own. `get` returns the value, or None, and the revision of the
shard at which it was written, or None where the door does not tell it. A call that fails raises `Failed` with what
became of it.
"""

from .grpc_packages import Family, Kv, KvStore, Proto, V1
from .text import Text

DOORS = (Text, V1, Proto, KvStore, Kv, Family)
