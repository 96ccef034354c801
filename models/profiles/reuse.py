"""Profiles of an earlier run that are kept, because their users have hardly changed since.

A kept profile has a record of its own, over fewer interactions than its user has now. It is proved
anew each time: the interactions that there were when it was written are kept with it, all of them
must still be training interactions, and the record is recomputed from them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.config import History
from models.profiles.provenance import has_record, lines_of, record
from models.profiles.user_history import select
from models.schemas import INTERACTIONS, ITEM, PROFILES, TEXT, USER


@dataclass(frozen=True)
class KeptProfiles:
    """What an earlier run leaves to this one.

    Attributes:
        profiles: schema `PROFILES`, sorted by user.
        seen: schema `INTERACTIONS`: the training part as it was when each profile was written, as
            it is now where none is kept.
        proved: `record` of what each of them was written from, recomputed.
    """

    profiles: pa.Table
    seen: pa.Table
    proved: pa.Table


def keep(
    earlier: pa.Table, seen: pa.Table, train: pa.Table, policy: History, min_new: int
) -> KeptProfiles:
    """Find the users who keep their profile.

    A user keeps it with fewer than `min_new` interactions that were not there when it was written,
    if what was there then (`seen`) is a part of `train` and gives the record that the profile
    carries.
    """
    earlier = earlier.filter(pc.is_valid(earlier[TEXT])).replace_schema_metadata(None)
    seen = seen.select(INTERACTIONS.names).replace_schema_metadata(None)
    seen = seen.filter(pc.is_in(seen[USER], earlier[USER].combine_chunks()))
    users = pc.unique(train[USER])
    known = _counts(seen, users)
    is_there = pc.is_in(lines_of(seen, USER, ITEM), lines_of(train, USER, ITEM))
    lost = _counts(seen.filter(pc.invert(is_there)), users)
    new = _counts(train, users) - known
    keeps = users.filter(pa.array((known > 0) & (lost == 0) & (new < min_new)))
    proved = record(select(seen.filter(pc.is_in(seen[USER], keeps)), policy))
    profiles = earlier.filter(has_record(earlier, proved))
    keeps = profiles[USER].combine_chunks()
    others = train.filter(pc.invert(pc.is_in(train[USER], keeps))).replace_schema_metadata(None)
    kept = seen.filter(pc.is_in(seen[USER], keeps))
    everyone = pa.concat_tables([others.select(INTERACTIONS.names), kept])
    return KeptProfiles(
        profiles.select(PROFILES.names).cast(PROFILES).sort_by(USER),
        everyone.sort_by([(USER, "ascending"), (ITEM, "ascending")]),
        proved.filter(pc.is_in(proved[USER], keeps)),
    )


def _counts(rows: pa.Table, users: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Count the rows of each user: int64 (users,)."""
    found = pc.index_in(rows[USER], users).drop_null()
    return np.bincount(np.asarray(found, dtype=np.int64), minlength=len(users))
