"""A function that behaves as its event says; see the folder's README."""

import os
import sys
import time

print("python: cold")
if os.environ.get("INIT") == "exit":
    os._exit(7)
if os.environ.get("INIT") == "raise":
    raise ValueError("no init")
if os.environ.get("INIT") == "sleep":
    time.sleep(3600)


def tell(text, error=None):
    """A hook: says something, or fails."""
    if error:
        raise ValueError(error)
    print(f"python: {text}")


RESTORE = os.environ.get("RESTORE")
if RESTORE:
    from snapshot_restore_py import register_after_restore, register_before_snapshot

    register_before_snapshot(tell, "before snapshot, first", "no snapshot" if RESTORE == "before-fails" else None)
    register_before_snapshot(tell, "before snapshot, second")
    register_after_restore(tell, "after restore, first")
    register_after_restore(tell, "after restore, second", "no restore" if RESTORE == "after-fails" else None)

OWN = None
if os.environ.get("DRAWS"):
    import random
    import ssl

    # What is drawn from now on follows from this.
    random.seed(int(os.environ["DRAWS"]))
    ssl.RAND_bytes(16)
    OWN = random.Random()

COUNT = 0


def draw(event):
    """What generators give that began in init; the function's own is not the runtime's to seed."""
    time.sleep(event.get("for", 0))
    return {"own": OWN.getrandbits(48), "random": random.getrandbits(48), "openssl": ssl.RAND_bytes(16).hex()}


def fill():
    """Writes to /tmp until it is full; how much that was, and why it ended. Then removes it."""
    written = 0
    try:
        with open("/tmp/fill", "wb", buffering=0) as file:
            while True:
                written += file.write(b"x" * 65536)
    except OSError as error:
        return {"bytes": written, "why": os.strerror(error.errno)}
    finally:
        os.remove("/tmp/fill")


def keep(value):
    """Leaves a value in /tmp; gives what was there."""
    try:
        with open("/tmp/kept", encoding="utf-8") as file:
            before = file.read()
    except FileNotFoundError:
        before = ""
    with open("/tmp/kept", "w", encoding="utf-8") as file:
        file.write(str(value))
    return before


def handler(event, context):
    global COUNT
    COUNT += 1
    what = event.get("do")
    print(f"python: {context.aws_request_id} {what}")
    if what == "fail":
        raise ValueError("as you wish")
    if what == "exit":
        sys.stdout.flush()
        os._exit(3)
    if what == "sleep":
        time.sleep(3600)
    if what == "large":
        return "x" * event["bytes"]
    if what == "fill":
        return fill()
    if what == "keep":
        return keep(event["value"])
    if what == "draw":
        return draw(event)
    return {
        "echo": event.get("value"),
        "count": COUNT,
        "id": context.aws_request_id,
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
        "arn": context.invoked_function_arn,
        "function": context.function_name,
        "memory": int(context.memory_limit_in_mb),
        "left": context.get_remaining_time_in_millis() > 0,
    }
