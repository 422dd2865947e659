"""What the engine costs, against the floor of the same work in one bare loop. Run `make bench`."""
