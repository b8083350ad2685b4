"""What a client is made of: the wire to a server, what is asked on it, and what is made of replies.

Only ``_wire.py`` imports httpx, and only ``perdure.connect`` imports that.
"""
