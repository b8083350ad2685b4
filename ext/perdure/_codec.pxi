# The entry codec. One entry is (kind, ref, name, payload, time_ms, site, flags); one chunk is
#
#   0x00 · varint count · entries        entry: kind u8 · flags u8 · presence u8 · fields present
#
# Fields in the order of their presence bits: ref, name, payload, time, site. Numbers are LEB128 of
# the least length; name and payload are a length and bytes. A number 0 and an empty name are left
# out, so that one list of entries has exactly one encoding.


cdef uint8_t* write_varint(uint8_t* out, uint64_t value) noexcept nogil:
    while value >= 0x80:
        out[0] = <uint8_t>(value | 0x80)
        out += 1
        value >>= 7
    out[0] = <uint8_t>value
    return out + 1


cdef int read_varint(Reader* reader, uint64_t most, uint64_t* out) noexcept nogil:
    cdef uint64_t value = 0
    cdef int shift = 0
    cdef uint8_t byte = 0
    while True:
        if reader.pos == reader.end:
            return ERR_TRUNCATED
        byte = reader.pos[0]
        if shift == 63 and byte > 1:
            return ERR_TOO_BIG
        reader.pos += 1
        value |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    if byte == 0 and shift > 0:
        return ERR_NOT_MINIMAL
    if value > most:
        return ERR_TOO_BIG
    out[0] = value
    return 0


cdef int read_field(Reader* reader, const uint8_t** data, size_t* length) noexcept nogil:
    cdef uint64_t size = 0
    cdef int code = read_varint(reader, VALUE_BYTES_MAX, &size)
    if code != 0:
        return code
    # Compare lengths, never pointers: `pos + size` may overflow past `end`.
    if <uint64_t>(reader.end - reader.pos) < size:
        return ERR_TRUNCATED
    data[0] = reader.pos
    length[0] = <size_t>size
    reader.pos += size
    return 0


cdef int read_header(Reader* reader, uint64_t* count) noexcept nogil:
    cdef int code
    if reader.pos == reader.end:
        return ERR_TRUNCATED
    if reader.pos[0] != 0:
        return ERR_HEADER
    reader.pos += 1
    code = read_varint(reader, <uint64_t>-1, count)
    if code != 0:
        return code
    # Checked before anything is allocated for the entries.
    if count[0] > <uint64_t>(reader.end - reader.pos) // ENTRY_BYTES_MIN:
        return ERR_COUNT
    return 0


cdef int read_number(Reader* reader, uint64_t most, uint64_t* out) noexcept nogil:
    cdef int code = read_varint(reader, most, out)
    if code == 0 and out[0] == 0:
        return ERR_EMPTY_FIELD
    return code


cdef int read_entry(Reader* reader, EntryView* entry) noexcept nogil:
    cdef int code = 0
    if reader.end - reader.pos < ENTRY_BYTES_MIN:
        return ERR_TRUNCATED
    entry.kind = reader.pos[0]
    entry.flags = reader.pos[1]
    entry.presence = reader.pos[2]
    if entry.kind == 0:
        return ERR_KIND
    if entry.presence > PRESENCE_ALL:
        return ERR_PRESENCE
    reader.pos += ENTRY_BYTES_MIN
    entry.ref = entry.time_ms = entry.site = 0
    entry.name_length = 0
    if entry.presence & HAS_REF:
        code = read_number(reader, 0xFFFFFFFF, &entry.ref)
        if code != 0:
            return code
    if entry.presence & HAS_NAME:
        code = read_field(reader, &entry.name, &entry.name_length)
        if code != 0:
            return code
        if entry.name_length == 0:
            return ERR_EMPTY_FIELD
    if entry.presence & HAS_PAYLOAD:
        code = read_field(reader, &entry.payload, &entry.payload_length)
        if code != 0:
            return code
    if entry.presence & HAS_TIME:
        code = read_number(reader, <uint64_t>-1, &entry.time_ms)
        if code != 0:
            return code
    if entry.presence & HAS_SITE:
        code = read_number(reader, 0xFFFFFFFF, &entry.site)
    return code


cdef unsigned long long number(PyObject* value, unsigned long long most) except? 0xBAD:
    cdef unsigned long long result
    if not PyLong_Check(value):
        raise TypeError(f"an entry's number is an int, not {type(<object>value).__name__}")
    result = PyLong_AsUnsignedLongLong(value)
    if result > most:
        raise OverflowError(f"{result} is above {most}, the most that its field of an entry holds")
    return result


cdef int encode_entry(Buffer* out, PyObject* entry) except -1:
    cdef const uint8_t* name = NULL
    cdef const uint8_t* payload = NULL
    cdef Py_ssize_t name_length = 0, payload_length = 0
    cdef PyObject* field
    cdef uint64_t kind, ref, time_ms, site, flags
    cdef uint8_t presence = 0
    cdef uint8_t* pos
    if not PyTuple_Check(entry) or PyTuple_GET_SIZE(entry) != FIELDS:
        raise TypeError("an entry is (kind, ref, name, payload, time_ms, site, flags)")
    kind = number(PyTuple_GET_ITEM(entry, 0), 255)
    if kind == 0:
        raise ValueError("an entry's kind is 1 to 255")
    ref = number(PyTuple_GET_ITEM(entry, 1), 0xFFFFFFFF)
    field = PyTuple_GET_ITEM(entry, 2)
    if not PyUnicode_Check(field):
        raise TypeError(f"an entry's name is a str, not {type(<object>field).__name__}")
    name = <const uint8_t*>PyUnicode_AsUTF8AndSize(field, &name_length)
    field = PyTuple_GET_ITEM(entry, 3)
    if field != <PyObject*>None:
        if not PyBytes_Check(field):
            raise TypeError(f"an entry's payload is bytes, not {type(<object>field).__name__}")
        payload = <const uint8_t*>PyBytes_AS_STRING(field)
        payload_length = PyBytes_GET_SIZE(field)
    time_ms = number(PyTuple_GET_ITEM(entry, 4), <unsigned long long>-1)
    site = number(PyTuple_GET_ITEM(entry, 5), 0xFFFFFFFF)
    flags = number(PyTuple_GET_ITEM(entry, 6), 255)
    if name_length > VALUE_BYTES_MAX or payload_length > VALUE_BYTES_MAX:
        raise ValueError("an entry's name or payload is longer than 1 GiB")

    # One reservation for the longest form of this entry; the writes below need no checks.
    if buffer_reserve(out, ENTRY_BYTES_FIXED + <size_t>name_length + <size_t>payload_length) != 0:
        raise MemoryError("no memory to encode an entry")
    pos = out.data + out.length + ENTRY_BYTES_MIN
    if ref != 0:
        presence |= HAS_REF
        pos = write_varint(pos, ref)
    if name_length != 0:
        presence |= HAS_NAME
        pos = write_varint(pos, <uint64_t>name_length)
        memcpy(pos, name, name_length)
        pos += name_length
    if payload != NULL:
        presence |= HAS_PAYLOAD
        pos = write_varint(pos, <uint64_t>payload_length)
        memcpy(pos, payload, payload_length)
        pos += payload_length
    if time_ms != 0:
        presence |= HAS_TIME
        pos = write_varint(pos, time_ms)
    if site != 0:
        presence |= HAS_SITE
        pos = write_varint(pos, site)
    out.data[out.length] = <uint8_t>kind
    out.data[out.length + 1] = <uint8_t>flags
    out.data[out.length + 2] = presence
    out.length = pos - out.data
    return 0


cdef int encode_chunk(Buffer* out, object entries) except -1:
    """Append the chunk of *entries*, a list or tuple; on error `length` may have grown."""
    cdef PyObject* items = <PyObject*>entries
    cdef Py_ssize_t index, count = PySequence_Fast_GET_SIZE(items)
    cdef uint8_t* pos
    if buffer_reserve(out, ENTRY_BYTES_FIXED) != 0:
        raise MemoryError("no memory to encode entries")
    pos = out.data + out.length
    pos[0] = 0
    out.length = write_varint(pos + 1, <uint64_t>count) - out.data
    for index in range(count):
        encode_entry(out, PySequence_Fast_GET_ITEM(items, index))
    return 0


cdef object materialize(EntryView* entry, PyTypeObject* make):
    cdef PyObject* made
    cdef PyObject* field
    if make == NULL:
        made = PyTuple_New(FIELDS)
    else:
        made = make.tp_alloc(make, FIELDS)
    # From here the tuple belongs to `result`: an exception below frees it with what it has so far.
    result = <object>made
    Py_DECREF(made)
    PyTuple_SET_ITEM(made, 0, PyLong_FromUnsignedLongLong(entry.kind))
    PyTuple_SET_ITEM(made, 1, PyLong_FromUnsignedLongLong(entry.ref))
    if entry.name_length == 0:
        field = <PyObject*>EMPTY_NAME
        Py_INCREF(field)
    else:
        field = PyUnicode_DecodeUTF8(<const char*>entry.name, entry.name_length, NULL)
    PyTuple_SET_ITEM(made, 2, field)
    if entry.presence & HAS_PAYLOAD:
        field = PyBytes_FromStringAndSize(<const char*>entry.payload, entry.payload_length)
    else:
        field = <PyObject*>None
        Py_INCREF(field)
    PyTuple_SET_ITEM(made, 3, field)
    PyTuple_SET_ITEM(made, 4, PyLong_FromUnsignedLongLong(entry.time_ms))
    PyTuple_SET_ITEM(made, 5, PyLong_FromUnsignedLongLong(entry.site))
    PyTuple_SET_ITEM(made, 6, PyLong_FromUnsignedLongLong(entry.flags))
    return result


cdef str EMPTY_NAME = ""


cdef list decode_chunk(const uint8_t* data, size_t length, type make):
    cdef Reader reader
    cdef EntryView entry
    cdef uint64_t index, count = 0
    cdef int code
    cdef list result = None
    cdef PyObject* item
    reader.start = reader.pos = data
    reader.end = data + length
    code = read_header(&reader, &count)
    if code == 0:
        result = PyList_New(<Py_ssize_t>count)
        for index in range(count):
            code = read_entry(&reader, &entry)
            if code != 0:
                break
            try:
                made = materialize(&entry, <PyTypeObject*>make if make is not None else NULL)
            except UnicodeDecodeError:
                code = ERR_UTF8
                break
            item = <PyObject*>made
            Py_INCREF(item)
            PyList_SET_ITEM(result, <Py_ssize_t>index, item)
        if code == 0 and reader.pos != reader.end:
            code = ERR_TRAILING
    if code != 0:
        raise_for_code(code, f"chunk of entries, byte {reader.pos - reader.start}")
    return result


cdef type checked_make(object make):
    if make is None:
        return None
    if not isinstance(make, type) or not issubclass(make, tuple):
        raise TypeError("make is a subclass of tuple, or None")
    return None if make is tuple else make


def encode_entries(entries):
    """The chunk of *entries*, tuples (kind, ref, name, payload, time_ms, site, flags).

    Raises:
      TypeError, ValueError, OverflowError: An entry is not of that form; nothing is encoded.
    """
    cdef Buffer out
    memset(&out, 0, sizeof(Buffer))
    items = PySequence_Fast(entries, "entries is a sequence of tuples")
    try:
        encode_chunk(&out, items)
        return <bytes>out.data[:out.length]
    finally:
        buffer_free(&out)


def decode_entries(bytes chunk not None, make=None):
    """The entries of *chunk*, as tuples of type *make* (a NamedTuple of seven fields), or plain.

    Raises:
      StoreCorrupt: *chunk* is not what :func:`encode_entries` makes of any list.
    """
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(<PyObject*>chunk)
    return decode_chunk(data, len(chunk), checked_make(make))
