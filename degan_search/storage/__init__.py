"""Where a run's files lie: in a folder, or in an object store of which a folder here is the working copy.

All readers read the folder. `Mirror` fetches into it what the store has, and puts into the store what is new in it.
"""

from degan_search.storage.mirror import Mirror
from degan_search.storage.places import LocalPlace, Place, RemotePlace, place, split_run, working_copy

__all__ = ["LocalPlace", "Mirror", "Place", "RemotePlace", "place", "split_run", "working_copy"]
