"""Edits that let CPython 3.11.2 compile for Windows with mingw-w64 instead of Microsoft's compiler."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tools.windows_python.cache import RecipeError

__all__ = ["edit_sources"]

BUILT_IN = ("_bz2", "_socket", "_ctypes", "_overlapped", "select", "unicodedata", "_queue", "_multiprocessing")
"""Modules that python.org's installer has as files of their own, and that are linked into the DLL here."""
# the values of winsock's enumeration, which mingw's headers do not define as macros
PROTOCOLS = {
    "ICMP": 1, "IGMP": 2, "GGP": 3, "TCP": 6, "PUP": 12, "UDP": 17, "IDP": 22, "ND": 77, "RAW": 255, "MAX": 256,
    "HOPOPTS": 0, "IPV4": 4, "IPV6": 41, "ROUTING": 43, "FRAGMENT": 44, "ESP": 50, "AH": 51, "ICMPV6": 58, "NONE": 59,
    "DSTOPTS": 60, "EGP": 8, "PIM": 103, "ICLFXBM": 78, "ST": 5, "CBT": 7, "IGP": 9, "RDP": 27, "PGM": 113, "L2TP": 115,
    "SCTP": 132,
}  # fmt: skip
COMPILER = '#define COMPILER "[gcc]"\n'
COMPILER_SAID = '#define COMPILER "[GCC 64 bit (AMD64)]"\n'
"""``sysconfig`` looks for AMD64 in it."""
# PC/pyconfig.h defines these for Microsoft's compiler only
DEFINITIONS = (
    '#define PYD_PLATFORM_TAG "win_amd64"\n'
    "#define MS_WIN64\n#define PY_SUPPORT_TIER 0\n#define HAVE_UINTPTR_T 1\n#define HAVE_INTPTR_T 1\n"
    "typedef __int64 Py_ssize_t;\n#define PY_SSIZE_T_MAX LLONG_MAX\n#define HAVE_PY_SSIZE_T 1\n"
    "#include <basetsd.h>\n#include <limits.h>\n#include <sys/types.h>\n"
)


def edit_sources(root: Path) -> None:
    """Change the files below ``root``, a folder with CPython's sources.

    Raises:
        RecipeError: A file is not as expected: these are the sources of another version.
    """

    def change(name: str, edit: Callable[[str], str]) -> None:
        path = root / name
        before = path.read_text(encoding="utf-8")
        after = edit(before)
        if after == before:
            raise RecipeError(f"{name} of CPython does not have the lines that are changed here: another version?")
        path.write_text(after, encoding="utf-8")

    # it asks for Microsoft's compiler where it means Windows
    change("Modules/posixmodule.c", lambda text: text.replace("_MSC_VER", "MS_WINDOWS"))
    change("Modules/socketmodule.c", _protocols)
    change("PC/config.c", _built_in)
    change("PC/pyconfig.h", lambda text: text.replace(COMPILER, COMPILER_SAID + DEFINITIONS, 1))
    change("Python/dynload_win.c", _extension_modules)
    change("Python/sysmodule.c", lambda text: text.replace("#ifdef MS_COREDLL", "#if 1"))


def _protocols(text: str) -> str:
    for name, value in PROTOCOLS.items():
        text = re.sub(
            rf"^#define IPPROTO_{name} IPPROTO_{name}\b.*$", f"#define IPPROTO_{name} {value}", text, flags=re.M
        )
    return text


def _built_in(text: str) -> str:
    declared = "".join(f"extern PyObject* PyInit_{name}(void);\n" for name in BUILT_IN)
    listed = "".join(f'\n    {{"{name}", PyInit_{name}}},' for name in BUILT_IN)
    return re.sub(r"(struct _inittab _PyImport_Inittab\[\] = \{)", lambda found: declared + found[0] + listed, text)


def _extension_modules(text: str) -> str:
    text = re.sub(r"^static int\n(?=_Py_CheckPython3)", "int\n", text, flags=re.M)
    return '#define PY3_DLLNAME L"python3.dll"\n' + text
