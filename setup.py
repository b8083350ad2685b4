"""Builds ext/ into perdure._journal and compiles the hot modules of the core; no more than that.

The core's modules are Python. One with a .pxd beside it, which gives its classes C types, is
compiled, and does the same when it is interpreted (tests/stateful runs both). None is optional: a
module that does not compile ends the build, for interpreted it would be slow and nobody would know.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

PARTS = sorted(
    str(part) for suffix in ("*.pxd", "*.pxi", "*.h") for part in Path("ext/perdure").glob(suffix)
)
TYPES = sorted(str(path) for path in Path("src/perdure").rglob("*.pxd"))
FLAGS = ["-O3", "-fno-strict-aliasing", "-fvisibility=hidden"]
DIRECTIVES = {  # of the core's modules
    "language_level": 3,
    # The annotations are for type checkers; the types of C are in the .pxd files.
    "annotation_typing": False,
    "auto_pickle": False,
}


def journal() -> Extension:
    """What is written in Cython."""
    return Extension(
        "perdure._journal",
        ["ext/perdure/_journal.pyx"],
        depends=PARTS,
        include_dirs=["ext/perdure"],
        libraries=["pthread", "dl"],
        extra_compile_args=FLAGS,
    )


def compiled(types: str) -> Extension:
    """The extension of a Python module with a .pxd beside it."""
    source = Path(types).with_suffix(".py")
    name = ".".join(source.relative_to("src").with_suffix("").parts)
    return Extension(name, [str(source)], depends=TYPES, extra_compile_args=FLAGS)


def extensions() -> list[Extension]:
    """All of them, translated to C below build/."""
    return [
        *cythonize([journal()], build_dir="build/cython"),
        *cythonize(
            [compiled(types) for types in TYPES],
            include_path=["src"],
            build_dir="build/cython",
            compiler_directives=DIRECTIVES,
        ),
    ]


if __name__ == "__main__":
    setup(ext_modules=extensions(), options={"build_ext": {"parallel": str(os.cpu_count() or 1)}})
