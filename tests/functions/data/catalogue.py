#!/usr/bin/env python3
"""A large JSON document for the `jq` function, the same bytes every time, and the answer the filter must give.

    python3 catalogue.py 40000 > catalogue.json
    python3 catalogue.py 40000 --answer        # of [.items[] | select(.stock > 500) | .price] | {count: length, sum: add}

The demo (control/cli/src/demo/generate.rs) makes the same bytes without Python.
"""
import sys

MASK = (1 << 64) - 1


def item(index):
    mixed = (index * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) & MASK
    return mixed >> 33 & 1_023, mixed >> 43 & 8_191


def main():
    count = int(sys.argv[1])
    items = [item(index) for index in range(count)]
    if "--answer" in sys.argv:
        prices = [price for stock, price in items if stock > 500]
        print(f'{{"count":{len(prices)},"sum":{sum(prices)}}}')
        return
    parts = (
        f'{{"id":{index},"name":"item number {index}","tags":["a{index % 17}","b{index % 23}"],'
        f'"stock":{stock},"price":{price},"note":null}}'
        for index, (stock, price) in enumerate(items)
    )
    sys.stdout.write('{"items":[' + ",".join(parts) + "]}")


main()
