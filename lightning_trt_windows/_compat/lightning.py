"""``lightning.pytorch`` or ``pytorch_lightning``: the same code under two names, with different classes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

__all__ = ["Callback", "rank_zero_info", "rank_zero_warn"]

if TYPE_CHECKING:
    from lightning.pytorch import Callback
    from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
# whichever the script has imported already is the one whose Trainer will use the callback
elif "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
    from pytorch_lightning import Callback
    from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn
else:
    try:
        from lightning.pytorch import Callback
        from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
    except ImportError:
        from pytorch_lightning import Callback
        from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn
