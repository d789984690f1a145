"""`python -m msresnet`."""

import sys

from msresnet.cli.main import main

sys.exit(main())
