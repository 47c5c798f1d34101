"""`python -m volsurf.cli …` is `volsurf …`: how our own processes start each other in the same interpreter."""

import sys

from volsurf.cli import main

sys.exit(main())
