"""A LightningCLI that knows ``--windows_export``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_trt_windows._compat.lightning import cli
from lightning_trt_windows.integrations.lightning_flag import add_windows_export

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
else:
    LightningCLI = cli().LightningCLI

__all__ = ["WindowsExportCLI"]


class WindowsExportCLI(LightningCLI):
    """LightningCLI with the flag ``--windows_export`` and the group ``--windows_export.*``.

    It is the CLI of the Lightning that has been imported. Where both have been, it is that of ``lightning``: for
    modules of ``pytorch_lightning`` derive from its LightningCLI, and call ``add_windows_export`` there.

    Example:
        >>> WindowsExportCLI(MyModule, MyDataModule)
    """

    # not add_arguments_to_parser: that one is for those who derive from this class, and need not call it
    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Lightning's own, and the flag."""
        super().add_default_arguments_to_parser(parser)
        add_windows_export(parser)
