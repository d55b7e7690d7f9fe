"""Runs a handler under awslambdaric; what was seeded before a snapshot is seeded anew in each copy, before any hook of the function's."""

import os
import random
import runpy
import sys


def renew():
    """Generators of this process that look at nothing when they are copied. The kernel's own is another one in each copy by now."""
    random.seed()
    openssl = sys.modules.get("_ssl")
    if openssl:
        seed = os.urandom(48)
        openssl.RAND_add(seed, float(len(seed)))


if __name__ == "__main__":
    # As `python3 -m` has it.
    sys.path[0] = os.getcwd()
    if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
        from snapshot_restore_py import register_after_restore

        # They run in their order.
        register_after_restore(renew)
    runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)
