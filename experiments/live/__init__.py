"""The live view of a run in a browser."""
