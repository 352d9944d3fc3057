"""The Typer commands, one file each: parse, call a stage, render."""
