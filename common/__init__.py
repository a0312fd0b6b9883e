"""The rooms that the five scripts share."""

import logging

logging.getLogger("bitsandbytes").setLevel(
    logging.ERROR
)  # at each start it reports a kernel that is optional
