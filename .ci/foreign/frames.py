#!/usr/bin/env python3
"""Speaks to /ws with a WebSocket client that nobody here wrote, as the clients of the frame socket do.

    pip install websockets
    .ci/foreign/frames.py URL [--ca FILE] [--key KEY] PICTURE [PICTURE ...]

URL is wss://localhost:8443/ws of a relay or ws://127.0.0.1:8080/ws of an agent. Each picture is a JPEG that is sent as a frame:
compressed by zlib, one at a time and then all at once. Where no detector is served every frame must be told so.
"""
import argparse
import json
import pathlib
import ssl
import sys
import urllib.request
import zlib

from websockets.sync.client import connect


def read(text, array):
    """What one answer says, by the way that its client reads it."""
    if array:
        # The padded array: that client cuts off the first and the last character.
        return json.loads(text[1:-1], strict=False)
    inner = json.loads(text)
    assert isinstance(inner, str), f"no JSON within JSON: {text!r}"
    return json.loads(inner)


def judge(found):
    """An answer is a list of things with boxes, or says why it is none."""
    if isinstance(found, dict):
        assert found["error"] == "no detector is ready", found
        return
    for thing in found:
        assert set(thing) == {"name", "class", "confidence", "box"}, thing
        assert set(thing["box"]) == {"x1", "y1", "x2", "y2"} and 0 <= thing["confidence"] <= 1, thing


def main():
    """Reads the arguments and speaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("pictures", nargs="+", type=pathlib.Path)
    parser.add_argument("--ca")
    parser.add_argument("--key")
    arguments = parser.parse_args()
    key = arguments.key
    if key and pathlib.Path(key).is_file():
        key = pathlib.Path(key).read_text(encoding="utf-8").strip()
    headers = {"x-api-key": key} if key else {}
    context = ssl.create_default_context(cafile=arguments.ca) if arguments.ca else None
    frames = [zlib.compress(picture.read_bytes()) for picture in arguments.pictures]
    for suffix, array in [("", False), ("?json=array", True)]:
        with connect(arguments.url + suffix, ssl=context, additional_headers=headers) as socket:
            for frame in frames:
                socket.send(frame)
                judge(read(socket.recv(timeout=30), array))
            for frame in frames:
                socket.send(frame)
            for _ in frames:
                judge(read(socket.recv(timeout=30), array))
            socket.send(b"no frame")
            assert "error" in read(socket.recv(timeout=30), array), "what is no frame is told so"
            socket.send(frames[0])
            judge(read(socket.recv(timeout=30), array))
        print(f"ok    {arguments.url}{suffix}: {2 * len(frames) + 1} frames")
    health = arguments.url.replace("ws", "http", 1).rsplit("/ws", 1)[0] + "/healthz"
    with urllib.request.urlopen(urllib.request.Request(health, headers=headers), context=context) as answer:
        assert json.load(answer) == {"status": "ok"}
    print("ok    /healthz")
    return 0


if __name__ == "__main__":
    sys.exit(main())
