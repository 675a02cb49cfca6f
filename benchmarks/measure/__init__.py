"""How pieces of work are measured: contenders, clocks, memory, and the machine's own limits."""
