"""Copies of this process draw from what was seeded before it was copied. As in a restored machine no library can tell: they are made
past libc, and each is process 1 of its own, as this one is.

Usage: unshare --pid --fork python3 copies.py RUNTIME, which is one of ../runtimes. Prints what two copies draw that are left as they are,
and two that the runtime renews: {"as they are": [[...], [...]], "renewed": [[...], [...]]}
"""

import ctypes
import importlib.util
import json
import os
import random
import ssl
import sys

spec = importlib.util.spec_from_file_location("runtime", sys.argv[1])
runtime = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runtime)
assert os.getpid() == 1, "not process 1"
CLONE, NEW_PIDS, CHILD_ENDS = 56, 0x20000000, 17
syscall = ctypes.CDLL(None).syscall
syscall.restype = ctypes.c_long


def draw():
    return [random.getrandbits(64), ssl.RAND_bytes(16).hex()]


def copy(first):
    """What a copy draws that first does this."""
    reads, writes = os.pipe()
    child = syscall(CLONE, NEW_PIDS | CHILD_ENDS, 0, 0, 0, 0)
    if child == 0:
        first()
        os.write(writes, json.dumps(draw()).encode())
        os._exit(0)
    os.close(writes)
    os.waitpid(child, 0)
    with os.fdopen(reads) as pipe:
        return json.load(pipe)


draw()
doing = {"as they are": lambda: None, "renewed": runtime.renew}
print(json.dumps({name: [copy(first), copy(first)] for name, first in doing.items()}))
