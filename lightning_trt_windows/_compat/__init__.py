"""Everything that works around an upstream release, one file per upstream.

The rule for each workaround: a constant of the class ``Workaround`` with
the interval of versions it was seen in, the reason with a link, a test in ``tests/_compat/`` that fails when the
installed upstream no longer needs it, and the condition for deletion. Tests hold the constants to it, and
``docs/versions.md`` lists them. The rest of the package calls these functions as if upstream behaved.

==================  ======================================================================================
torch               capture and compile on CPU: heuristics that narrow ranges, causal masks
precision           products in full float32, and the settings put back
recurrent           LSTM, GRU and RNN kept whole in a trace, with a length that may vary
torch_tensorrt      decompositions, complex numbers, engine records, output marking
converters          operators that upstream computes otherwise than PyTorch
no_gpu              importing Torch-TensorRT without a GPU
cpu_build           Torch-TensorRT-RTX beside a PyTorch for CPUs only
bindings            TensorRT's own bindings
tensorrt_rtx        what TensorRT-RTX does not build, and releases whose engines were seen computing wrong numbers
modelopt            quantised modules on a machine without a GPU
deepspeed           what ZeRO 3 leaves behind in a process
lightning           ``lightning.pytorch`` or ``pytorch_lightning``
versions            the record of a workaround; not an upstream
==================  ======================================================================================
"""
