"""`field__among=ids`: what `field__in=ids` finds, for integers and as one parameter.

Django makes a parameter of each id, which takes longer than the query where there are thousands.
Importing this module gives every field the lookup.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Field, ForeignKey, Lookup


class Among(Lookup):
    """`column = ANY('{1,2,3}'::bigint[])`."""

    lookup_name = "among"
    rhs: Iterable[int]

    def get_prep_lookup(self) -> str:
        return "{" + ",".join([str(int(one)) for one in self.rhs]) + "}"

    def get_db_prep_lookup(self, value: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        return "%s", (value,)

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        lhs, lhs_params = self.process_lhs(compiler, connection)
        rhs, rhs_params = self.process_rhs(compiler, connection)
        return f"{lhs} = ANY({rhs}::bigint[])", (*lhs_params, *rhs_params)


Field.register_lookup(Among)
ForeignKey.register_lookup(Among)
