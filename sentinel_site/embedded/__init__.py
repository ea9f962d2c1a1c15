"""PostgreSQL and Valkey as child processes, for machines that have neither.

`python -m sentinel_site.embedded run -- CMD` runs a command beside both; `EmbeddedPostgres` and
`EmbeddedValkey` are the same from Python.
"""

from sentinel_site.embedded.postgres import EmbeddedPostgres
from sentinel_site.embedded.process import EmbeddedError
from sentinel_site.embedded.valkey import EmbeddedValkey

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedValkey"]
