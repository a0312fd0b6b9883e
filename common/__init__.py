"""What the five scripts share: a package for each chapter. README.md says what to read first."""

import logging

# bitsandbytes reports at each start that an optional kernel is missing.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
