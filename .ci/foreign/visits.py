#!/usr/bin/env python3
"""The two clients of the photo dialect re-enacted: the same calls, the same reading, the same prints; only where they go, the key and
the authority can be given.

    pip install requests
    .ci/foreign/visits.py URL PICTURE [PICTURE ...] [--ca FILE] [--key KEY]

The first visits GET / a hundred times, with a new connection each, and prints how long that took. The second posts each picture ten times
over as `image/png` and prints each answer as it reads it.
"""
import argparse
import json
import pathlib
import re
import sys
import time

import requests


def visits(address, options):
    """`test.py`."""
    began = time.time()
    for _ in range(100):
        answer = requests.get(address + "/", timeout=30, **options)
        assert answer.status_code == 200, answer.text
        assert re.fullmatch(r"Request:[0-9a-f.:]+,\d+; HOST:\S+; Hostname:\S+\r\n", answer.text), answer.text
    print("100 visits take " + str(time.time() - began) + " s")


def photos(address, pictures, options):
    """`client.py`; one epoch's prints are enough to read."""
    count, began = 0, time.time()
    headers = {"content-type": "image/png", **options.pop("headers", {})}
    for epoch in range(10):
        for picture in pictures:
            answer = requests.post(address + "/photo", data=picture.read_bytes(), headers=headers, timeout=30, **options)
            assert answer.status_code == 200, answer.text
            read = json.loads(answer.text)
            assert set(read) == {"inference", "message"} and read["message"] == "success", read
            assert re.fullmatch(r"Class = .+, Confidence = [01]\.\d{3}", read["inference"]), read
            count += 1
            if epoch == 0:
                print(picture.name, " ", read)
    print(f"{count} detections,take {time.time() - began} s")


def main():
    """Reads the arguments and visits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("pictures", nargs="+", type=pathlib.Path)
    parser.add_argument("--ca")
    parser.add_argument("--key")
    arguments = parser.parse_args()
    key = arguments.key
    if key and pathlib.Path(key).is_file():
        key = pathlib.Path(key).read_text(encoding="utf-8").strip()
    options = {"headers": {"x-api-key": key}} if key else {}
    if arguments.ca:
        options["verify"] = arguments.ca
    visits(arguments.url, options)
    photos(arguments.url, arguments.pictures, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
