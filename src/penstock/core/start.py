"""How this process starts."""

describe_options = True
"""Whether options carry their descriptions, which are read from the sources when a plugin is imported.

Commands that only run or check pipelines turn this off before anything else is imported: it is a third of their start.
"""
