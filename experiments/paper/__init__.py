"""The figures of Finn, Abbeel, Levine 2017 and the page of results: scripts that read what other scripts wrote."""
