"""Dead-letter queues of sinks, one module each."""
