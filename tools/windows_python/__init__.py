"""A Python for Windows that runs on Debian, under Wine, with real Windows wheels: the PC's half is tested with it.

``python -m tools.windows_python prepare`` makes everything in a cache folder, ``... run ARGUMENTS`` starts that Python
with ``ARGUMENTS``, ``... where`` names the folder. No GPU, no Windows licence and no download of a Windows program is
needed: CPython is compiled from Debian's own source package with mingw-w64, which takes a minute or two, once.

``docs/windows-tests.md`` says what it is not.
"""
