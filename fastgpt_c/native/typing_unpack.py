"""typing.Unpack, for signatures such as  **changes: Unpack[OptionKeywords].

Python has it from 3.11 on.  In 3.10 an annotation with it evaluates to Any, so that typing.get_type_hints works there
as well, and nothing has to be installed for it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Unpack
elif sys.version_info >= (3, 11):
    from typing import Unpack
else:

    class Unpack:
        def __class_getitem__(cls, keywords: object) -> Any:
            return Any


__all__ = ["Unpack"]
