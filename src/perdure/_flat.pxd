# Types of _flat.py, which Cython compiles with them. Everything here is seen by Python too.
import cython


@cython.locals(fields=dict, scalars=frozenset)
cpdef encode_flat(object value)
