"""Pure building blocks of the engine: no input or output, nothing of ours imported."""
