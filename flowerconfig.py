"""Read by `celery flower` from its working directory. Without a login of its own Flower lets everybody stop workers."""

import os
import re

if not re.fullmatch(r"[^:,]+:[^:,]{12,}(,[^:,]+:[^:,]{12,})*", os.environ.get("FLOWER_BASIC_AUTH", "")):
    raise SystemExit(
        "beatline: flower: FLOWER_BASIC_AUTH must be user:password, the password of at least 12 characters"
    )

# Kept in memory.
max_tasks = 10_000
