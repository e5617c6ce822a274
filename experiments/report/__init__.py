"""The report of a run: one web page that needs no network, to look at or to send by mail."""
