"""Request logs: one function on Arrow batches (``Scorer``), and runners that spread it over cores and machines."""
