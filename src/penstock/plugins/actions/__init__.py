"""What other processors do with events: actions of `aggregate` and `obfuscate`, one module each."""
