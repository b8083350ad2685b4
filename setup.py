"""Builds ext/ into perdure._journal and compiles the hot modules of the core; no more than that.

The core's modules are Python: with a .pxd beside it, which gives its classes C types, a module is
compiled, and behaves the same interpreted (tests/stateful runs both).
"""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

PARTS = sorted(
    str(part) for suffix in ("*.pxd", "*.pxi", "*.h") for part in Path("ext/perdure").glob(suffix)
)
TYPES = sorted(str(path) for path in Path("src/perdure").rglob("*.pxd"))
FLAGS = ["-O3", "-fno-strict-aliasing", "-fvisibility=hidden"]


def compiled(types: str) -> Extension:
    """The extension of a Python module with a .pxd beside it."""
    source = Path(types).with_suffix(".py")
    name = ".".join(source.relative_to("src").with_suffix("").parts)
    return Extension(name, [str(source)], depends=TYPES, extra_compile_args=FLAGS)


setup(
    ext_modules=[
        *cythonize(
            [
                Extension(
                    "perdure._journal",
                    ["ext/perdure/_journal.pyx"],
                    depends=PARTS,
                    include_dirs=["ext/perdure"],
                    libraries=["pthread", "dl"],
                    extra_compile_args=FLAGS,
                )
            ],
            build_dir="build/cython",
        ),
        *cythonize(
            [compiled(types) for types in TYPES],
            include_path=["src"],
            build_dir="build/cython",
            compiler_directives={
                "language_level": 3,
                # The annotations are for type checkers; the types of C are in the .pxd files.
                "annotation_typing": False,
                "auto_pickle": False,
            },
        ),
    ]
)
