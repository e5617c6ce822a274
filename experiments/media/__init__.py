"""Pictures: plots, recorded episodes, clips and videos."""
