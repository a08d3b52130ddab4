"""Counter-based randomness: a value depends on its key alone, never on what was drawn before.

Source:
    The finaliser is splitmix64's (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
"""

import numpy as np

from graphsys.core.types import BatchKey, NodeIds

MASK64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB


def mix64(value: int) -> int:
    """Return the splitmix64 finaliser of ``value``, an int in [0, 2**64)."""
    z = value & MASK64
    z = ((z ^ (z >> 30)) * MIX_1) & MASK64
    z = ((z ^ (z >> 27)) * MIX_2) & MASK64
    return z ^ (z >> 31)


def derive_key(*parts: int) -> int:
    """Return a 64-bit key that depends on every part and on their order."""
    key = 0
    for part in parts:
        key = mix64(key + GOLDEN + mix64(part & MASK64))
    return key


def batch_stream(key: BatchKey) -> int:
    """Return the 64-bit key from which all of a batch's draws are derived."""
    return derive_key(key.seed, key.epoch, key.batch_id)


def shuffled(node: NodeIds, *, seed: int, epoch: int) -> NodeIds:
    """Return ``node`` in the order of one epoch; the same for any thread count, rank or world size.

    Args:
        node: [B] int64 ids in any id space.
    """
    generator = np.random.Generator(np.random.Philox(key=derive_key(seed, epoch, 0x5EED)))
    return generator.permutation(node)
