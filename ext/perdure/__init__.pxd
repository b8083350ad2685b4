# Makes this folder the package that Cython looks for _journal.pxd in.
