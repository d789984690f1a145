"""`python -m msresnet`."""

from msresnet.cli.main import entry

entry()
