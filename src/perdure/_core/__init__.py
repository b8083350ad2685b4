"""The deterministic loop and the state machine of an invocation. Does no I/O, reads no clock."""
