"""Greets under awslambdaric; says what it knows of itself."""

import os
import sys

calls = 0


def handler(event, context):
    global calls
    calls += 1
    if event.get("do") == "fail":
        raise ValueError("as asked")
    if event.get("do") == "about":
        return {
            "python": sys.version.split()[0],
            "calls": calls,
            "function": context.function_name,
            "memory": int(context.memory_limit_in_mb),
            "request": context.aws_request_id,
            "left": context.get_remaining_time_in_millis() > 0,
            "task": os.environ["LAMBDA_TASK_ROOT"],
        }
    name = event.get("name", "world")
    print(f"greeting {name}")
    return {"message": f"Hello, {name}!"}
