#!/usr/bin/python3
"""A tour of the Python client: example.py ENDPOINT IMAGE

Creates the image if it is not there yet; puts and gets a parameter, appends and lists events,
stores a data product and reads it back.
"""
import os
import sys

from spaceblock_client import Client, Code, Error, RpcError, download, image, upload


def create(client, probe):
    try:
        client.Images.Create(image=probe, total_blocks=1024)
        print("image: created")
    except RpcError as error:
        if error.code != Code.ALREADY_EXISTS:
            raise
        print("image: there already")


def parameters(client, probe):
    generation = client.Params.Put(image=probe, id=42, value=b"3.14159").generation
    value = client.Params.Get(image=probe, id=42).param.value
    print(f"parameter 42: {value.decode()}, generation {generation}")
    try:
        client.Params.Put(image=probe, id=42, value=b"2.71828", expected_generation=generation + 7)
    except RpcError as error:
        print(f"parameter 42: not put, {error.reason}")


def events(client, probe):
    first = client.Events.Append(image=probe, events=[
        {"severity": 1, "code": 100, "payload": b"boot"},
        {"severity": 2, "code": 7, "payload": b"battery at 20 %"}]).first_index
    for event in client.Events.List(image=probe, limit=2).events:
        print(f"event {event.index - first}: severity {event.severity}, code {event.code}, "
              f"{event.payload.decode()}")


def products(client, probe):
    data = os.urandom(100_000)
    product = upload(client, probe, "science/thermal", data, replace=True)
    back = download(client, probe, "science/thermal")
    print(f"product science/thermal: {product.length} bytes, the same: {back == data}")


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    probe = image(sys.argv[2])
    try:
        with Client(sys.argv[1], timeout_s=10) as client:
            for part in (create, parameters, events, products):
                part(client, probe)
    except Error as error:
        print(f"example: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
