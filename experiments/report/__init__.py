"""The report of a run: one web page that needs no network, to view or to send by mail."""
