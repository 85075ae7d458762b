#!/usr/bin/env python3
"""Asks a relay or an agent with kserve's clients, which nobody here wrote: a second pair for the Open Inference Protocol.

    pip install 'kserve==0.21.*' 'httpx[http2]'
    .ci/foreign/kserve_client.py --rest URL --grpc HOST:PORT [--ca FILE] [--key KEY] [--model NAME]

Without --ca over plain HTTP and an insecure channel, as to an agent's local listener; with it over TLS, as to a relay. The model must
be one that reads digits of 28 x 28 pixels, as the built-in `digits` does.
"""
import argparse
import asyncio
import pathlib
import ssl
import struct
import sys

import grpc
import numpy

# kserve reads the command line of whoever imports it.
ARGUMENTS, sys.argv = sys.argv[1:], sys.argv[:1]
# pylint: disable=wrong-import-position
from kserve import InferenceGRPCClient, InferenceRESTClient, RESTConfig
from kserve.protocol.infer_type import InferInput, InferRequest

passed, failed = 0, 0


def check(name, holds, why=""):
    """Says how one check went."""
    global passed, failed
    if holds:
        passed += 1
        print(f"ok    {name}")
    else:
        failed += 1
        print(f"FAIL  {name}: {why}")


def picture():
    """A one as a BMP: ink on paper."""
    rows = b"".join(bytes(b for x in range(28) for b in [10 if 13 <= x < 16 and 5 <= y < 23 else 245] * 3) for y in range(28))
    header = struct.pack("<2sIHHI", b"BM", 54 + len(rows), 0, 0, 54)
    return header + struct.pack("<IiiHHIIiiII", 40, 28, 28, 1, 24, 0, len(rows), 0, 0, 0, 0) + rows


def asked(model, binary):
    """A picture as a question."""
    tensor = InferInput("image", [1, 1], "BYTES")
    tensor.set_data_from_numpy(numpy.array([[picture()]], dtype=numpy.object_), binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[tensor], request_id="k-1")


def judge(name, response):
    """It is a one."""
    outputs = response.outputs if hasattr(response, "outputs") else response["outputs"]
    output = outputs[0]
    found = output.as_numpy() if hasattr(output, "as_numpy") else numpy.array(output["data"])
    check(name, int(numpy.asarray(found).argmax()) == 1, found)


async def rest(arguments, key):
    """Over HTTP/1.1 and HTTP/2."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    verify = ssl.create_default_context(cafile=str(arguments.ca)) if arguments.ca else True
    for http2 in [False, True] if arguments.ca else [False]:
        client = InferenceRESTClient(RESTConfig(protocol="v2", http2=http2, verify=verify, retries=0))
        base, version = arguments.rest, "HTTP/2" if http2 else "HTTP/1.1"
        check(f"{version} is_server_live", await client.is_server_live(base, headers=headers))
        check(f"{version} is_server_ready", await client.is_server_ready(base, headers=headers))
        check(f"{version} is_model_ready", await client.is_model_ready(base, arguments.model, headers=headers))
        found = await client.infer(base, asked(arguments.model, True), model_name=arguments.model, headers=headers)
        judge(f"{version} infer", found)
        await client.close()


async def calls(arguments, key):
    """Over gRPC."""
    headers = (("authorization", f"Bearer {key}"),) if key else None
    creds = grpc.ssl_channel_credentials(arguments.ca.read_bytes()) if arguments.ca else None
    client = InferenceGRPCClient(arguments.grpc, creds=creds, use_ssl=False)
    check("grpc is_server_live", await client.is_server_live(headers=headers))
    check("grpc is_server_ready", await client.is_server_ready(headers=headers))
    check("grpc is_model_ready", await client.is_model_ready(arguments.model, headers=headers))
    judge("grpc infer", await client.infer(asked(arguments.model, True), headers=headers))
    await client.close()


def main():
    """Reads the arguments and asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rest", required=True)
    parser.add_argument("--grpc", required=True)
    parser.add_argument("--ca", type=pathlib.Path)
    parser.add_argument("--key")
    parser.add_argument("--model", default="digits")
    arguments = parser.parse_args(ARGUMENTS)
    key = arguments.key
    if key and pathlib.Path(key).is_file():
        key = pathlib.Path(key).read_text(encoding="utf-8").strip()
    asyncio.run(rest(arguments, key))
    asyncio.run(calls(arguments, key))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
