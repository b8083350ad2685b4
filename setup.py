"""Builds ext/ into perdure._journal; everything else is in pyproject.toml."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

PARTS = sorted(
    str(part) for suffix in ("*.pxd", "*.pxi", "*.h") for part in Path("ext/perdure").glob(suffix)
)

setup(
    ext_modules=cythonize(
        [
            Extension(
                "perdure._journal",
                ["ext/perdure/_journal.pyx"],
                depends=PARTS,
                include_dirs=["ext/perdure"],
                libraries=["pthread", "dl"],
                extra_compile_args=["-O3", "-fno-strict-aliasing", "-fvisibility=hidden"],
            )
        ],
        build_dir="build/cython",
    )
)
