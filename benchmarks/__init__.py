"""How fast, and at what cost: one module a question, each beside raw LMDB in the same run."""
