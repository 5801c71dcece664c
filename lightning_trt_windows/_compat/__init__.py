"""Everything that works around an upstream release, one file per upstream.

The rule for each workaround: a named constant with the version interval it was seen in, the reason, a test in
``tests/compat/`` that fails when the installed upstream no longer needs it, and the condition for deletion. The rest of
the package calls these functions as if upstream behaved.

==================  ======================================================================================
torch               capture and compile on CPU: backend heuristics that narrow ranges
torch_tensorrt      import without a GPU, decompositions, engine records, output marking
lightning           ``lightning.pytorch`` or ``pytorch_lightning``
==================  ======================================================================================
"""
