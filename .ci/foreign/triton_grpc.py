#!/usr/bin/env python3
"""Asks a relay or an agent with gRPC clients that nobody here wrote: every method of tritonclient's grpc and grpc.aio clients,
the health client and the reflection client of grpcio.

    pip install 'tritonclient[grpc]==2.73.*' grpcio-health-checking grpcio-reflection
    .ci/foreign/triton_grpc.py HOST:PORT [--ca FILE] [--key KEY] [--model NAME] [--control] [--data DIR]

HOST:PORT is a relay's front (with --ca) or an agent's local listener (without). KEY is an API key or a file with one. The model must
be one that reads digits of 28 x 28 pixels, as the built-in `digits` does. With --control models are unloaded and loaded again,
which takes a key with the scope control; without it, it is checked that this is refused. With --data, a folder as
../shared/data, the classifiers of its models that are served are held to its references.
"""
import argparse
import asyncio
import pathlib
import queue
import struct
import sys

import grpc
import numpy
import tritonclient.grpc
import tritonclient.grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from references import CLASSIFIERS, agree
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

SIDE = 28
TOLERANCE = 1e-5
SERVICES = {"inference.GRPCInferenceService", "grpc.health.v1.Health"}
passed, failed = 0, 0


def check(name, what):
    """Runs one check and says how it went."""
    global passed, failed
    try:
        what()
    except Exception as error:  # pylint: disable=broad-except
        failed += 1
        print(f"FAIL  {name}: {type(error).__name__}: {error}")
    else:
        passed += 1
        print(f"ok    {name}")


def equal(found, expected):
    """They are the same."""
    assert found == expected, f"{found!r}, not {expected!r}"


def refused(call, status, text=""):
    """A call is refused with a status and a text that has this."""
    try:
        call()
    except InferenceServerException as error:
        assert str(error.status()) == f"StatusCode.{status}", f"{error.status()}, not {status}: {error.message()}"
        assert text in error.message(), f"no {text!r} in {error.message()!r}"
    else:
        raise AssertionError("it was not refused")


def bmp():
    """A one as a picture: ink on paper, 24 bits a pixel."""
    rows = b"".join(
        bytes(b for x in range(SIDE) for b in [10 if 13 <= x < 16 and 5 <= y < 23 else 245] * 3) for y in range(SIDE)
    )
    header = struct.pack("<2sIHHI", b"BM", 54 + len(rows), 0, 0, 54)
    return header + struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, len(rows), 0, 0, 0, 0) + rows


def image(*pictures):
    """Pictures as an input."""
    tensor = InferInput("image", [len(pictures), 1], "BYTES")
    tensor.set_data_from_numpy(numpy.array([[picture] for picture in pictures], dtype=numpy.object_))
    return tensor


def prepared():
    """The same picture as the network sees it: ink is 1."""
    array = numpy.zeros((1, 1, SIDE, SIDE), numpy.float32)
    array[0, 0, 5:23, 13:16] = 1.0
    tensor = InferInput("input", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return tensor


def probabilities(result, rows=1):
    """The answer's one output, as numbers that make sense."""
    found = result.as_numpy("probabilities")
    equal(found.shape[0], rows)
    assert abs(float(found.sum()) - rows) < 1e-3, found
    return found


class Run:
    """One client, what it asks, and as whom."""

    def __init__(self, arguments, client, headers):
        self.client, self.headers, self.model, self.arguments = client, headers, arguments.model, arguments

    def ask(self, inputs, **options):
        """One inference."""
        return self.client.infer(options.pop("model", self.model), inputs, headers=self.headers, **options)

    def about(self):
        """What the server says of itself and its models."""
        c, h, m = self.client, {"headers": self.headers}, self.model
        check("is_server_live", lambda: equal(c.is_server_live(**h), True))
        check("is_server_ready", lambda: equal(c.is_server_ready(**h), True))
        check("is_model_ready", lambda: equal(c.is_model_ready(m, **h), True))
        check("get_server_metadata", lambda: equal(c.get_server_metadata(**h).name, "adit"))
        check("get_model_metadata", lambda: equal(c.get_model_metadata(m, **h).outputs[0].datatype, "FP32"))
        check("get_model_metadata as_json", lambda: equal(c.get_model_metadata(m, as_json=True, **h)["name"], m))
        config = lambda: c.get_model_config(m, **h).config
        check("get_model_config", lambda: equal((config().name, config().input[0].name), (m, "image")))
        check("get_model_config max_batch_size", lambda: self.positive(config().max_batch_size))
        check("get_model_repository_index", lambda: equal(
            [row.state for row in c.get_model_repository_index(**h).models if row.name == m][0], "READY"))
        check("an unknown model", lambda: refused(lambda: c.get_model_metadata("nothing", **h), "NOT_FOUND", "nothing"))
        check("an unknown version", lambda: refused(lambda: c.get_model_metadata(m, "999", **h), "NOT_FOUND", "999"))
        for method in ["system", "cuda"]:
            status = getattr(c, f"get_{method}_shared_memory_status")
            check(f"get_{method}_shared_memory_status", lambda s=status: refused(lambda: s(**h), "UNIMPLEMENTED", "network"))

    @staticmethod
    def positive(number):
        """It is one."""
        assert number > 0, number

    def inferences(self):
        """Questions in every shape."""
        one = bmp()
        first = probabilities(self.ask([image(one)]))
        check("infer BYTES", lambda: equal(int(first.argmax()), 1))
        numbers = self.ask([prepared()])
        check("infer FP32", lambda: equal(int(probabilities(numbers).argmax()), 1))
        check("infer two pictures", lambda: equal(probabilities(self.ask([image(one, one)]), 2).argmax(axis=1).tolist(), [1, 1]))
        check("infer with an id", lambda: equal(self.ask([image(one)], request_id="r-7").get_response().id, "r-7"))
        check("infer a version", lambda: equal(self.ask([image(one)], model_version="1").get_response().model_version, "1"))

        def classes():
            wanted = [InferRequestedOutput("probabilities", class_count=3)]
            rows = self.ask([image(one)], outputs=wanted).as_numpy("probabilities")
            equal(rows.shape, (1, 3))
            value, index, label = rows[0][0].decode().split(":")
            equal((int(index), label), (1, "1"))
            assert abs(float(value) - float(first.max())) < TOLERANCE

        check("infer classification", classes)
        for coding in ["gzip", "deflate"]:
            options = {"compression_algorithm": coding}
            check(f"infer {coding}", lambda o=options: equal(int(probabilities(self.ask([image(one)], **o)).argmax()), 1))
        check("infer priority and timeout", lambda: probabilities(self.ask([image(one)], priority=1, timeout=20_000_000)))
        check("infer client_timeout", lambda: probabilities(self.ask([image(one)], client_timeout=20)))
        # A microsecond: long gone when the picture is decoded.
        check("a time that is too short", lambda: refused(lambda: self.ask([image(one)], timeout=1), "DEADLINE_EXCEEDED"))
        check("no picture", lambda: refused(lambda: self.ask([image(b"no picture")]), "INVALID_ARGUMENT", "JPEG"))
        check("infer an unknown model", lambda: refused(lambda: self.ask([image(one)], model="nothing"), "NOT_FOUND"))

        answers = queue.Queue()
        self.client.async_infer(
            self.model, [image(one)], callback=lambda result, error: answers.put((result, error)), headers=self.headers)
        result, error = answers.get(timeout=30)
        check("async_infer", lambda: equal((error, int(probabilities(result).argmax())), (None, 1)))

    def statistics(self):
        """Counters that grow with each inference."""
        def counted():
            rows = self.client.get_inference_statistics(self.model, headers=self.headers).model_stats
            return sum(row.inference_stats.success.count for row in rows), sum(row.inference_count for row in rows)

        before = counted()
        for _ in range(5):
            self.ask([image(bmp(), bmp())])
        after = counted()
        check("get_inference_statistics", lambda: equal((after[0] - before[0], after[1] - before[1]), (5, 10)))

    def stream(self):
        """A stream of requests, one of them wrong."""
        answers = queue.Queue()
        self.client.start_stream(lambda result, error: answers.put((result, error)), headers=self.headers)
        for turn in range(6):
            model = "nothing" if turn == 3 else self.model
            self.client.async_stream_infer(model, [image(bmp())], request_id=str(turn))
        found = [answers.get(timeout=30) for _ in range(6)]
        self.client.stop_stream()
        for turn, (result, error) in enumerate(found):
            if turn == 3:
                check("stream: a wrong request", lambda e=error: self.contains(str(e), "nothing"))
            else:
                check(f"stream: answer {turn}", lambda r=result, e=error, t=turn: (
                    equal(e, None), equal(r.get_response().id, str(t)), equal(int(probabilities(r).argmax()), 1)))

    @staticmethod
    def contains(text, part):
        """The one has the other."""
        assert part in text, text

    def control(self):
        """Loading and unloading, with the right to it or without."""
        c, h, m = self.client, {"headers": self.headers}, self.model
        if not self.arguments.control:
            check("get_log_settings without the right", lambda: refused(lambda: c.get_log_settings(**h), "PERMISSION_DENIED"))
            check("load_model without the right", lambda: refused(lambda: c.load_model(m, **h), "PERMISSION_DENIED"))
            check("unload_model without the right", lambda: refused(lambda: c.unload_model(m, **h), "PERMISSION_DENIED"))
            return
        log = lambda: c.get_log_settings(as_json=True, **h)["settings"]
        check("get_log_settings", lambda: equal(log()["log_error"]["bool_param"], True))
        check("update_log_settings", lambda: c.update_log_settings({"log_verbose_level": 0}, **h))
        check("update_log_settings a file", lambda: refused(
            lambda: c.update_log_settings({"log_file": "/tmp/log"}, **h), "INVALID_ARGUMENT", "standard error"))
        check("get_trace_settings", lambda: equal(
            c.get_trace_settings(as_json=True, **h)["settings"]["trace_level"]["value"], ["OFF"]))
        check("update_trace_settings", lambda: refused(
            lambda: c.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}, **h), "INVALID_ARGUMENT"))
        check("unload_model", lambda: c.unload_model(m, **h))
        check("an unloaded model is not ready", lambda: equal(c.is_model_ready(m, **h), False))
        check("load_model", lambda: c.load_model(m, **h))
        check("a loaded model is ready", lambda: equal(c.is_model_ready(m, **h), True))
        check("load_model an unknown one", lambda: refused(lambda: c.load_model("nothing", **h), "NOT_FOUND"))

    def references(self, data):
        """What other programs made of the same weights."""
        listed = {row.name for row in self.client.get_model_repository_index(headers=self.headers).models if row.state == "READY"}
        held = [model for model in CLASSIFIERS if model in listed]
        for model in held:
            ask = lambda photo, model=model: self.ask([image(photo)], model=model).as_numpy("probabilities")[0]
            check(f"{model} sees in every photo what its reference saw", lambda m=model, a=ask: agree(data, m, a))
        check("a classifier of the test data is served", lambda: equal(bool(held), True))


async def aio(arguments, channel, headers):
    """The asyncio client."""
    client = tritonclient.grpc.aio.InferenceServerClient(**channel)
    one = [image(bmp())]
    live, ready = await client.is_server_live(headers=headers), await client.is_server_ready(headers=headers)
    check("aio is_server_live and ready", lambda: equal((live, ready), (True, True)))
    result = await client.infer(arguments.model, one, headers=headers)
    check("aio infer", lambda: equal(int(probabilities(result).argmax()), 1))
    results = await asyncio.gather(*[client.infer(arguments.model, one, headers=headers) for _ in range(16)])
    check("aio sixteen at once", lambda: equal({int(probabilities(result).argmax()) for result in results}, {1}))
    metadata = await client.get_model_metadata(arguments.model, headers=headers)
    check("aio get_model_metadata", lambda: equal(metadata.name, arguments.model))
    statistics = await client.get_inference_statistics(arguments.model, headers=headers)
    check("aio get_inference_statistics", lambda: equal(statistics.model_stats[0].name, arguments.model))

    async def requests():
        for turn in range(3):
            yield {"model_name": arguments.model, "inputs": one, "request_id": str(turn)}

    heard = []
    async for answer, error in client.stream_infer(requests(), headers=headers):
        heard.append((answer.get_response().id, error))
    check("aio stream_infer", lambda: equal(heard, [("0", None), ("1", None), ("2", None)]))
    await client.close()


def services(channel, metadata):
    """grpcio's own clients: is it well, and what does it offer."""
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ["", "inference.GRPCInferenceService"]:
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), metadata=metadata)
        check(f"health of {service or 'all'}", lambda a=answer: equal(a.status, health_pb2.HealthCheckResponse.SERVING))
    try:
        stub.Check(health_pb2.HealthCheckRequest(service="nothing"), metadata=metadata)
    except grpc.RpcError as error:
        check("health of nothing", lambda e=error: equal(e.code(), grpc.StatusCode.NOT_FOUND))
    watch = stub.Watch(health_pb2.HealthCheckRequest(), metadata=metadata)
    check("health watched", lambda: equal(next(watch).status, health_pb2.HealthCheckResponse.SERVING))
    watch.cancel()

    class WithKey(grpc.StreamStreamClientInterceptor):
        """Puts an API key into the reflection client's calls, which take none."""

        def intercept_stream_stream(self, continuation, details, requests):
            return continuation(details._replace(metadata=metadata), requests)

    database = ProtoReflectionDescriptorDatabase(grpc.intercept_channel(channel, WithKey()))
    listed = set(database.get_services())
    check("reflection lists the services", lambda: equal(SERVICES - listed, set()))
    file = database.FindFileContainingSymbol("inference.ModelInferRequest")
    check("reflection knows the messages", lambda: equal(file.package, "inference"))


def main():
    """Reads the arguments and asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--ca", type=pathlib.Path)
    parser.add_argument("--key")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--data", type=pathlib.Path)
    arguments = parser.parse_args()
    key = arguments.key
    if key and pathlib.Path(key).is_file():
        key = pathlib.Path(key).read_text(encoding="utf-8").strip()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    channel = {"url": arguments.address, "ssl": arguments.ca is not None, "root_certificates": arguments.ca and str(arguments.ca)}
    run = Run(arguments, tritonclient.grpc.InferenceServerClient(**channel), headers)
    run.about()
    run.inferences()
    run.statistics()
    run.stream()
    run.control()
    if arguments.data:
        run.references(arguments.data)
    run.client.close()
    asyncio.run(aio(arguments, channel, headers))
    if arguments.ca:
        plain = grpc.secure_channel(arguments.address, grpc.ssl_channel_credentials(arguments.ca.read_bytes()))
    else:
        plain = grpc.insecure_channel(arguments.address)
    with plain:
        services(plain, list(headers.items()))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
