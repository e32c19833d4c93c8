"""Where a run's files lie: in a folder, or in an object store with a local folder as its working copy.

All readers read the folder. `Mirror` downloads what the store has, and uploads what is new in the folder.
"""

from degan_search.storage.mirror import Mirror
from degan_search.storage.places import LocalPlace, Place, RemotePlace, place, split_run, working_copy

__all__ = ["LocalPlace", "Mirror", "Place", "RemotePlace", "place", "split_run", "working_copy"]
