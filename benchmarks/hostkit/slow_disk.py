"""Test-only node that makes the pack's files lie on a slow disk. Runs inside ComfyUI, copied into its custom_nodes.

It sits in the seam through which the pack reads: `AdapterCache` gets a `load` and `Prefetcher` a `warm_file`, both of
which wait for one disk, whoever asks. What the page cache holds is free, as it is on a real one.
"""

import os
import sys
from functools import partial


class TestSlowDisk:
    """From now on, no more than so many bytes per second come from the disk."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"bytes_per_s": ("INT", {"default": 0, "max": 1 << 40})}}

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "slow_down"
    CATEGORY = "test"

    def slow_down(self, bytes_per_s):
        pack = next(name for name in sys.modules if name.endswith(".nodes.runtime")).removesuffix(".nodes.runtime")
        runtime = sys.modules[f"{pack}.nodes.runtime"].get_runtime()
        resident_bytes = sys.modules[f"{pack}.loaders.system.page_cache"].resident_bytes
        disk = slow_disk(sys.modules[f"{pack}.loaders.system.rate_limit"].RateLimit, resident_bytes, bytes_per_s)
        runtime.cache._load = partial(load, runtime.cache._load, disk)
        machine = runtime.prefetcher._machine
        # Frozen, and handed to everybody already.
        object.__setattr__(machine, "warm_file", partial(warm_file, machine.warm_file, disk))
        return {"ui": {"bytes_per_s": [bytes_per_s]}}


def slow_disk(rate_limit, resident_bytes, bytes_per_s):
    """A limit for one reading of one file, behind that of who reads: one disk serves everybody."""
    disk = rate_limit(bytes_per_s)

    class Behind(rate_limit):
        def __init__(self, path, first):
            super().__init__(bytes_per_s)
            self.first = first
            # Pages vanish one by one below a balloon: only those that are missing come from the disk.
            self.missing_share = 1 - resident_bytes(path) / os.path.getsize(path)

        def spend(self, nbytes, cancelled=None):
            if self.first is not None:
                self.first.spend(nbytes, cancelled)
            # Spending nothing would wait for what others have spent.
            if self.missing_share > 0:
                disk.spend(nbytes * self.missing_share, cancelled)

    return Behind


def load(inner, disk, file, *, cancelled, storage, limiter=None):
    return inner(file, cancelled=cancelled, storage=storage, limiter=disk(file.path, limiter))


def warm_file(inner, disk, path, *, cancelled, limiter=None):
    return inner(path, cancelled=cancelled, limiter=disk(path, limiter))


NODE_CLASS_MAPPINGS = {"TestSlowDisk": TestSlowDisk}
