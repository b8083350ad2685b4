# CRC-32C (Castagnoli, RFC 3720 appendix B.4), buffers, and the integers of the stored formats.

cdef uint32_t[8][256] crc_table
cdef bint crc_use_hardware = False


cdef void crc_prepare() noexcept nogil:
    global crc_use_hardware
    cdef uint32_t crc
    cdef int byte, slice_
    for byte in range(256):
        crc = <uint32_t>byte
        for _ in range(8):
            crc = (crc >> 1) ^ (<uint32_t>0x82F63B78 if crc & 1 else 0)
        crc_table[0][byte] = crc
    for byte in range(256):
        crc = crc_table[0][byte]
        for slice_ in range(1, 8):
            crc = crc_table[0][crc & 0xFF] ^ (crc >> 8)
            crc_table[slice_][byte] = crc
    crc_use_hardware = perdure_crc_has_hardware() != 0


cdef uint32_t crc_portable(uint32_t crc, const uint8_t* data, size_t size) noexcept nogil:
    # Slice by 8, byte by byte loads: any alignment, any byte order.
    cdef uint32_t low
    while size >= 8:
        low = crc ^ read_u32(data)
        crc = (
            crc_table[7][low & 0xFF] ^ crc_table[6][(low >> 8) & 0xFF]
            ^ crc_table[5][(low >> 16) & 0xFF] ^ crc_table[4][low >> 24]
            ^ crc_table[3][data[4]] ^ crc_table[2][data[5]]
            ^ crc_table[1][data[6]] ^ crc_table[0][data[7]]
        )
        data += 8
        size -= 8
    while size > 0:
        crc = crc_table[0][(crc ^ data[0]) & 0xFF] ^ (crc >> 8)
        data += 1
        size -= 1
    return crc


cdef uint32_t crc_update(uint32_t crc, const uint8_t* data, size_t size) noexcept nogil:
    if crc_use_hardware:
        return perdure_crc_hardware(crc, data, size)
    return crc_portable(crc, data, size)


cdef uint32_t crc_of_row(
    const uint8_t* key, size_t key_length, const uint8_t* value, size_t value_length
) noexcept nogil:
    return ~crc_update(crc_update(0xFFFFFFFF, key, key_length), value, value_length)


cdef int buffer_reserve(Buffer* buffer, size_t more) noexcept nogil:
    """Make room for *more* bytes behind `length`; the content stays as it is if that fails."""
    cdef size_t capacity = buffer.capacity
    cdef uint8_t* grown
    if more <= capacity - buffer.length:
        return 0
    if more > <size_t>-1 // 4 or buffer.length > <size_t>-1 // 4:
        return ERR_NO_MEMORY
    if capacity < 4096:
        capacity = 4096
    while capacity - buffer.length < more:
        capacity *= 2
    grown = <uint8_t*>realloc(buffer.data, capacity)
    if grown == NULL:
        return ERR_NO_MEMORY
    buffer.data = grown
    buffer.capacity = capacity
    return 0


cdef void buffer_free(Buffer* buffer) noexcept nogil:
    free(buffer.data)
    memset(buffer, 0, sizeof(Buffer))


cdef void write_u32(uint8_t* out, uint32_t value) noexcept nogil:
    out[0] = <uint8_t>value
    out[1] = <uint8_t>(value >> 8)
    out[2] = <uint8_t>(value >> 16)
    out[3] = <uint8_t>(value >> 24)


cdef void write_u64(uint8_t* out, uint64_t value) noexcept nogil:
    write_u32(out, <uint32_t>value)
    write_u32(out + 4, <uint32_t>(value >> 32))


cdef uint32_t read_u32(const uint8_t* data) noexcept nogil:
    return (
        <uint32_t>data[0] | (<uint32_t>data[1] << 8)
        | (<uint32_t>data[2] << 16) | (<uint32_t>data[3] << 24)
    )


cdef uint64_t read_u64(const uint8_t* data) noexcept nogil:
    return <uint64_t>read_u32(data) | (<uint64_t>read_u32(data + 4) << 32)


def crc32c(const uint8_t[::1] data not None, uint32_t seed=0):
    """CRC-32C of *data*; ``crc32c(b, crc32c(a)) == crc32c(a + b)``."""
    if data.shape[0] == 0:
        return seed
    return ~crc_update(~seed, &data[0], data.shape[0]) & 0xFFFFFFFF


def crc32c_portable(const uint8_t[::1] data not None, uint32_t seed=0):
    """The same by table, whatever the processor can do: for tests."""
    if data.shape[0] == 0:
        return seed
    return ~crc_portable(~seed, &data[0], data.shape[0]) & 0xFFFFFFFF


crc_prepare()
