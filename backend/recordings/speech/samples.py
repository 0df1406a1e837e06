"""The form of sound that every back end takes."""

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000

# One channel, mono, 16 kHz, signed 16 bit; usually mapped from a file, so copy only small parts of it.
Samples = NDArray[np.int16]
