"""Memory in pages that suit pictures."""

import os
from collections.abc import MutableMapping

# torch reads it at its first allocation: ask Linux for 2 MB pages for what is larger than those.
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def take_huge_pages(environment: MutableMapping[str, str] = os.environ) -> None:
    """Lets torch take pages of 2 MB in this process, unless the environment decides otherwise.

    Feature maps are large and new in each forward. In pages of 4 kB, Linux hands over a hundred
    thousand of them for one picture.
    """
    environment.setdefault(HUGE_PAGES, "1")
