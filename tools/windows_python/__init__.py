"""A Python for Windows that runs on Debian, under Wine, with real Windows wheels: the PC's half is tested with it.

``python -m tools.windows_python prepare`` makes everything in a cache folder, ``... run ARGUMENTS`` starts that Python
with ``ARGUMENTS``, ``... where`` names the folder. No GPU, no Windows licence and no download of a Windows program is
needed: CPython is compiled from Debian's own source package with mingw-w64, which takes a minute or two, once.

What it is not: Microsoft's C runtime for CPython itself (it links to Wine's msvcrt; PyTorch's DLLs use Wine's ucrtbase),
the limit of 260 characters for a path, access control lists, read-only files (whoever is root may write them), a GPU.
"""
