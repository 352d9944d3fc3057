"""Energy sources, one file each, and the alignment of meter and host clocks."""
