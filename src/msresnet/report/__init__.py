"""Pictures and the one-file HTML report: the only place that draws."""
