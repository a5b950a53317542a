"""How long to fuzz: a few examples in the suite, or `MASKRCNN_FUZZ_EXAMPLES=200000` of each target for minutes.

MASKRCNN_FUZZ_EXAMPLES=200000 pytest tests/predictor/test_fuzz.py -k rle
"""

import os

from hypothesis import HealthCheck, Phase, settings


def fuzz(examples):
    """Decorator: so many examples, unless the environment asks for more."""
    asked = int(os.environ.get("MASKRCNN_FUZZ_EXAMPLES", "0"))
    return settings(
        max_examples=asked or examples,
        # A long run tells what it found at once, so that stopping it loses nothing; the suite makes it small first.
        phases=(Phase.explicit, Phase.generate) if asked else tuple(Phase),
        deadline=None,
        derandomize=not asked,  # the suite shall not fail by chance
        database=None,
        suppress_health_check=list(HealthCheck),
    )
