# The LMDB binding: find the library that the `lmdb` wheel brings, resolve what is used of it.

cdef Api api
cdef char* SYMBOLS[25]
SYMBOLS[:] = [
    b"version", b"strerror", b"env_create", b"env_open", b"env_close", b"env_sync", b"env_get_fd",
    b"env_info", b"env_copyfd2", b"env_set_mapsize", b"env_set_maxdbs", b"reader_check",
    b"txn_begin", b"txn_commit", b"txn_abort", b"txn_reset", b"txn_renew", b"dbi_open", b"stat",
    b"get", b"put", b"del", b"cursor_open", b"cursor_close", b"cursor_get",
]

VERSION_MIN = (0, 9, 20)


cdef str resolve_symbols(void* handle, str prefix, Api* into):
    """Fill *into*, in the order of SYMBOLS, or say which symbol is missing."""
    cdef void** slots = <void**>into
    cdef int index
    cdef bytes name
    assert sizeof(Api) == sizeof(SYMBOLS)
    for index in range(<int>(sizeof(SYMBOLS) // sizeof(SYMBOLS[0]))):
        name = prefix.encode() + <bytes>SYMBOLS[index]
        slots[index] = dlsym(handle, name)
        if slots[index] == NULL:
            return name.decode()
    return ""


def library_candidates():
    """Files that may hold LMDB, best first. The lmdb package is located, never imported."""
    from importlib.machinery import EXTENSION_SUFFIXES
    from importlib.util import find_spec

    found = []
    spec = find_spec("lmdb")
    if spec is not None and spec.submodule_search_locations is not None:
        for folder in spec.submodule_search_locations:
            for suffix in EXTENSION_SUFFIXES:
                file = os.path.join(folder, "cpython" + suffix)
                if os.path.exists(file):
                    found.append(file)
    found.extend(
        ["liblmdb.dylib"] if sys.platform == "darwin" else ["liblmdb.so.0", "liblmdb.so"]
    )
    return found


cdef tuple load(object candidates, Api* into):
    cdef list tried = []
    cdef int major = 0, minor = 0, patch = 0
    cdef void* handle
    cdef const char* reason
    for file in candidates:
        encoded = os.fsencode(file)
        handle = dlopen(encoded, RTLD_NOW | RTLD_LOCAL)
        if handle == NULL:
            reason = dlerror()
            tried.append(os.fsdecode(<bytes>reason) if reason != NULL else f"{file}: not loadable")
            continue
        missing = []
        for prefix in ("mdb09_", "mdb_"):
            absent = resolve_symbols(handle, prefix, into)
            if absent:
                missing.append(absent)
                continue
            into.version(&major, &minor, &patch)
            version = (major, minor, patch)
            if VERSION_MIN <= version < (0, 10, 0):
                return os.fsdecode(file), version
            tried.append(f"{file}: LMDB {major}.{minor}.{patch}, not 0.9.20 or later of 0.9")
            break
        else:
            tried.append(f"{file}: no symbol " + " and no ".join(missing))
    raise ImportError(
        "perdure found no usable LMDB. Tried:\n  " + "\n  ".join(tried)
        + "\nReinstall it: pip install --force-reinstall lmdb",
        name="perdure._journal",
    )


def find_library(candidates):
    """Return (file, version) of the first usable LMDB of *candidates*; binds nothing.

    Raises:
      ImportError: None is usable; the text says what was tried and what to do.
    """
    cdef Api scratch
    return load(candidates, &scratch)


LIBRARY, LMDB_VERSION = load(library_candidates(), &api)


cdef str strerror(int code):
    # LMDB answers with constants of its own, or with the system's text for an errno.
    cdef const char* text = api.strerror(code)
    return f"{(<bytes>text).decode('utf-8', 'replace')} (code {code})"


cdef str DAMAGED = "`perdure doctor --deep` tells more, a backup helps"

cdef dict CODE_TEXTS = {
    ERR_TRUNCATED: "the data ends in the middle of a field",
    ERR_NOT_MINIMAL: "a number is written longer than needed",
    ERR_TOO_BIG: "a number is too large for its field",
    ERR_HEADER: "the payload codec in the first byte is unknown",
    ERR_COUNT: "it counts more entries than its bytes can hold",
    ERR_KIND: "an entry has kind 0",
    ERR_PRESENCE: "an entry has fields that this version does not know",
    ERR_EMPTY_FIELD: "an entry states a field that is empty",
    ERR_TRAILING: "bytes follow the last entry",
    ERR_UTF8: "a name is not UTF-8",
    ERR_CHECKSUM: f"the checksum does not match; {DAMAGED}",
    ERR_SHORT_VALUE: f"the value is too short to carry a checksum; {DAMAGED}",
}


cdef dict REMEDIES = {
    **dict.fromkeys((ENOSPC, EDQUOT, EFBIG), "make room for it"),
    **dict.fromkeys(
        (EACCES, EPERM), "give this user the rights to it, or choose another data directory"
    ),
    **dict.fromkeys((EMFILE, ENFILE), "too many files are open; allow more (ulimit -n)"),
    **dict.fromkeys(
        (MDB_CORRUPTED, MDB_PAGE_NOTFOUND),
        f"the file is damaged; {DAMAGED}",
    ),
    EIO: "the disk may be full or failing, the system's log tells",
    EROFS: "it is on a read-only file system; mount that for writing",
    ENOMEM: "allow the process more memory or address space (ulimit -v), or lower map_size=",
    MDB_MAP_FULL: "allow the process more address space (ulimit -v)",
}


def remedy_for(int code):
    """What to do about an errno or a code of LMDB's, as ``: do this``; empty where unknown."""
    remedy = REMEDIES.get(code)
    return "" if remedy is None else f": {remedy}"


cdef int raise_for_code(int code, str what) except -1:
    """Raise what *code* stands for, *what* saying where. The only place that does. 0 is fine."""
    if code == 0:
        return 0
    if code == ERR_NO_MEMORY or code == ENOMEM:
        raise MemoryError(what)
    if code == ERR_CLOSED:
        raise StoreClosed(f"{what}: the store is closed")
    if code == ERR_SNAPSHOT_ENDED:
        raise StoreError(f"{what}: the snapshot has ended, for the file was mapped anew")
    if code == ERR_COPY_STOPPED:
        raise StoreClosed(f"{what}: the copy was stopped before it was whole")
    if code == ERR_COPYING:
        raise StoreError(f"{what}: another copy is being made")
    if code in CODE_TEXTS:
        raise StoreCorrupt(f"{what}: {CODE_TEXTS[code]}")
    if code in (MDB_CORRUPTED, MDB_PAGE_NOTFOUND, MDB_INVALID, MDB_VERSION_MISMATCH):
        raise StoreCorrupt(f"{what}: {strerror(code)}{remedy_for(code)}")
    if code == MDB_PANIC:
        raise StoreBroken(f"{what}: {strerror(code)}; close the store and open it again")
    raise StoreError(f"{what}: {strerror(code)}{remedy_for(code)}")
