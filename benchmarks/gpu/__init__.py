"""The hour in which a GPU is at hand: correctness against the processor first, then throughput."""
