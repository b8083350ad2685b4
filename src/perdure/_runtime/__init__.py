"""What drives the core on asyncio: it moves things, and decides nothing that the core decides."""
