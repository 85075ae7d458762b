#!/usr/bin/env python3
"""Asks a relay or an agent with tritonclient, a client that nobody here wrote: every method of its http and http.aio clients.

    pip install 'tritonclient[http]==2.73.*'
    .ci/foreign/triton_http.py URL [--ca FILE] [--key KEY] [--model NAME] [--control] [--data DIR]

URL is that of a relay (https://localhost:8443) or of an agent's local listener (http://127.0.0.1:8080). KEY is an API key or a
file with one. The model must be one that reads digits of 28 x 28 pixels, as the built-in `digits` does. With --control models
are unloaded and loaded again and settings changed, which takes a key with the scope control; without it, it is checked that this is
refused. With --data, a folder as ../shared/data, the classifiers of its models that are served are held to its references.
"""
import argparse
import asyncio
import base64
import http.client
import json
import pathlib
import ssl
import struct
import sys
import urllib.parse

import gevent.ssl
import numpy
import tritonclient.http
import tritonclient.http.aio
from references import CLASSIFIERS, agree
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

SIDE = 28
TOLERANCE = 1e-5
passed, failed = 0, 0


class Key(tritonclient.http.InferenceServerClientPlugin):
    """Puts an API key into each request."""

    def __init__(self, key):
        self.key = key

    def __call__(self, request):
        request.headers["authorization"] = f"Bearer {self.key}"


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


def refused(call, status, *texts):
    """A call is refused with a status and a text that has all of these."""
    try:
        call()
    except InferenceServerException as error:
        assert str(error.status()) == status, f"status {error.status()}, not {status}: {error.message()}"
        for text in texts:
            assert text in error.message(), f"no {text!r} in {error.message()!r}"
    else:
        raise AssertionError("it was not refused")


def stroke():
    """A one, ink (1) on paper (0), SIDE x SIDE."""
    picture = numpy.zeros((SIDE, SIDE), numpy.float32)
    picture[5:23, 13:16] = 1.0
    return picture


def bmp(picture):
    """A picture as a BMP file, ink dark on light paper."""
    height, width = picture.shape
    stride = (width * 3 + 3) // 4 * 4
    head = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54 + stride * height, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    rows = bytearray()
    # Rows of a BMP go upwards.
    for row in picture[::-1]:
        row = bytes(byte for ink in row for byte in [int(235 - 215 * ink)] * 3)
        rows += row.ljust(stride, b"\0")
    return head + bytes(rows)


def images(encoded, binary=True):
    """The input of encoded images; JSON cannot carry bytes, so there they are base64."""
    elements = encoded if binary else [base64.b64encode(image) for image in encoded]
    tensor = InferInput("image", [len(encoded), 1], "BYTES")
    return tensor.set_data_from_numpy(numpy.array(elements, dtype=object).reshape(-1, 1), binary_data=binary)


def prepared(pictures, binary=True):
    """The input of prepared images."""
    array = numpy.stack(pictures).reshape(-1, 1, SIDE, SIDE).astype(numpy.float32)
    return InferInput("input", list(array.shape), "FP32").set_data_from_numpy(array, binary_data=binary)


class Place:
    """Where to ask."""

    def __init__(self, arguments):
        self.url = urllib.parse.urlsplit(arguments.url)
        self.secure = self.url.scheme == "https"
        self.ca = arguments.ca
        self.key = arguments.key
        if self.key and pathlib.Path(self.key).is_file():
            self.key = pathlib.Path(self.key).read_text(encoding="utf-8").strip()

    def sync(self):
        """tritonclient.http"""
        factory = lambda: gevent.ssl.create_default_context(cafile=self.ca)
        client = tritonclient.http.InferenceServerClient(
            self.url.netloc, concurrency=4, ssl=self.secure, ssl_context_factory=factory if self.secure else None)
        return self.keyed(client)

    async def aio(self):
        """tritonclient.http.aio"""
        context = ssl.create_default_context(cafile=self.ca) if self.secure else None
        client = tritonclient.http.aio.InferenceServerClient(self.url.netloc, ssl=self.secure, ssl_context=context)
        return self.keyed(client)

    def keyed(self, client):
        if self.key:
            client.register_plugin(Key(self.key))
        return client

    def post(self, path, body, headers):
        """Without tritonclient: status, headers and body."""
        if self.secure:
            context = ssl.create_default_context(cafile=self.ca)
            connection = http.client.HTTPSConnection(self.url.netloc, context=context)
        else:
            connection = http.client.HTTPConnection(self.url.netloc)
        if self.key:
            headers = {**headers, "authorization": f"Bearer {self.key}"}
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def methods(kind, call, model, control):
    """Every method that the two clients share; `call` calls one by its name."""
    one = stroke()

    def named(name, what):
        check(f"{kind} {name}", what)

    def health():
        for ready in [call("is_server_live"), call("is_server_ready"), call("is_model_ready", model),
                      call("is_model_ready", model, "1")]:
            equal(ready, True)
        for absent in [("nobody",), (model, "4711"), ("../etc",)]:
            equal(call("is_model_ready", *absent), False)

    named("health", health)

    def server():
        metadata = call("get_server_metadata", query_params={"one": "two"})
        assert metadata["name"] and metadata["version"], metadata
        for extension in ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"]:
            assert extension in metadata["extensions"], metadata

    named("get_server_metadata", server)

    def described():
        metadata, config = call("get_model_metadata", model), call("get_model_config", model, "1")
        equal(metadata, call("get_model_metadata", model, "1"))
        equal([metadata["name"], config["name"]], [model, model])
        assert "1" in metadata["versions"] and config["max_batch_size"] > 0, (metadata, config)
        equal(metadata["inputs"], [{"name": "image", "datatype": "BYTES", "shape": [-1, 1]}])
        equal([config["input"][0][key] for key in ["name", "data_type", "dims"]], ["image", "TYPE_STRING", [1]])
        # A configuration leaves out the dimension of the batch.
        equal([(tensor["name"], tensor["dims"]) for tensor in config["output"]],
              [(tensor["name"], tensor["shape"][1:]) for tensor in metadata["outputs"]])
        refused(lambda: call("get_model_metadata", "nobody"), "404", "nobody")
        refused(lambda: call("get_model_config", "nobody"), "404", "nobody")

    named("get_model_metadata, get_model_config", described)

    def index():
        entries = call("get_model_repository_index")
        states = [entry["state"] for entry in entries if entry["name"] == model]
        assert "READY" in states, entries

    named("get_model_repository_index", index)

    def probabilities(inputs, binary=True, **options):
        outputs = [InferRequestedOutput("probabilities", binary_data=binary)]
        return call("infer", model, [inputs], outputs=outputs, **options).as_numpy("probabilities")

    expected = {}

    def encodings():
        expected["image"] = probabilities(images([bmp(one)]))
        expected["input"] = probabilities(prepared([one]))
        for name, rows in expected.items():
            equal(rows.shape, (1, 10))
            equal(int(rows[0].argmax()), 1)
            assert abs(rows.sum() - 1.0) < 1e-4, (name, rows)
        combinations = 0
        for name, make in [("image", lambda binary: images([bmp(one)] * 3, binary)),
                           ("input", lambda binary: prepared([one] * 3, binary))]:
            for there in [True, False]:
                for back in [True, False]:
                    for packed in [None, "gzip", "deflate"]:
                        for wanted in [None, "gzip", "deflate"]:
                            rows = probabilities(make(there), back, request_compression_algorithm=packed,
                                                 response_compression_algorithm=wanted)
                            equal(rows.shape, (3, 10))
                            off = abs(rows - expected[name]).max()
                            assert off < TOLERANCE, f"{name} {there} {back} {packed} {wanted}: off by {off}"
                            combinations += 1
        equal(combinations, 72)
        # Long enough to be compressed on its way back.
        rows = probabilities(images([bmp(one)] * 32), False, response_compression_algorithm="gzip")
        equal(rows.shape, (32, 10))
        assert abs(rows - expected["image"]).max() < TOLERANCE

    named("infer: BYTES and FP32, binary and JSON, compressed both ways", encodings)

    def options():
        result = call("infer", model, [images([bmp(one)])], model_version="1", request_id="four two", priority=1,
                      timeout=60_000_000, sequence_id=7, sequence_start=True, sequence_end=True,
                      parameters={"whose": "mine", "how many": 3})
        equal(result.get_response()["id"], "four two")
        equal([result.get_response()[key] for key in ["model_name", "model_version"]], [model, "1"])
        # No outputs were named: all come, as binary data.
        assert result.get_output("probabilities")["parameters"]["binary_data_size"] == 40
        assert abs(result.as_numpy("probabilities") - expected["image"]).max() < TOLERANCE
        equal(result.as_numpy("nothing"), None)

    named("infer: version, id, priority, timeout, sequence and parameters", options)

    def classification():
        for binary in [True, False]:
            outputs = [InferRequestedOutput("probabilities", binary_data=binary, class_count=3)]
            found = call("infer", model, [images([bmp(one)] * 2)], outputs=outputs).as_numpy("probabilities")
            equal(found.shape, (2, 3))
            texts = [text.decode() if isinstance(text, bytes) else text for text in found[1]]
            value, number, label = texts[0].split(":")
            equal([number, label], ["1", "1"])
            assert abs(float(value) - expected["image"][0].max()) < TOLERANCE, texts

    named("infer: classification", classification)

    def wrong():
        ask = lambda inputs, **rest: lambda: call("infer", model, [inputs], **rest)
        refused(ask(images([bmp(one)]), timeout=1), "504", "deadline")
        refused(ask(images([b"no image"])), "400", "image")
        refused(ask(images([bmp(one)]), model_version="4711"), "404")
        refused(ask(images([bmp(one)]), outputs=[InferRequestedOutput("nothing")]), "400", "nothing")
        refused(ask(InferInput("image", [1, 1], "BYTES").set_shared_memory("one", 64)), "400")
        refused(lambda: call("infer", "nobody", [images([bmp(one)])]), "404", "nobody")

    named("infer: what is wrong is said", wrong)

    def statistics():
        read = lambda *which: call("get_inference_statistics", *which)["model_stats"]
        of = lambda: next(entry for entry in read(model, "1") if entry["version"] == "1")
        before = of()
        probabilities(images([bmp(one)] * 3))
        probabilities(prepared([one]))
        try:
            probabilities(images([b"no image"]))
        except InferenceServerException:
            pass
        after = of()
        delta = lambda key: after[key] - before[key]
        stage = lambda key, part: after["inference_stats"][key][part] - before["inference_stats"][key][part]
        equal([delta("inference_count"), delta("execution_count")], [4, 2])
        equal([stage(key, "count") for key in ["success", "fail", "queue", "compute_infer"]], [2, 1, 2, 2])
        stages = sum(stage(key, "ns") for key in ["queue", "compute_input", "compute_infer", "compute_output"])
        assert 0 < stages <= stage("success", "ns"), (stages, after)
        assert after["last_inference"] > before["last_inference"] > 0 and after["batch_stats"], after
        assert any(entry["name"] == model for entry in read()) and read(model), "all and one"
        refused(lambda: read("nobody"), "404", "nobody")

    named("get_inference_statistics", statistics)

    def trace():
        settings = call("get_trace_settings")
        equal(settings["trace_level"], ["OFF"])
        equal(call("get_trace_settings", model), settings)
        refused(lambda: call("get_trace_settings", "nobody"), "404", "nobody")
        if control:
            equal(call("update_trace_settings", settings={"trace_level": None}), settings)
            equal(call("update_trace_settings", model, settings={"trace_level": ["OFF"]}), settings)
            refused(lambda: call("update_trace_settings", settings={"trace_level": ["TIMESTAMPS"]}), "400", "trace_level")
        else:
            refused(lambda: call("update_trace_settings", settings={"trace_level": None}), "403")

    named("get_trace_settings, update_trace_settings", trace)

    def log():
        before = call("get_log_settings")
        equal(before["log_file"], "")
        if control:
            equal(call("update_log_settings", {"log_verbose_level": 1})["log_verbose_level"], 1)
            refused(lambda: call("update_log_settings", {"log_file": "/tmp/log"}), "400", "log_file")
            equal(call("update_log_settings", {"log_verbose_level": before["log_verbose_level"]}), before)
        else:
            refused(lambda: call("update_log_settings", {}), "403")

    named("get_log_settings, update_log_settings", log)

    def memory():
        for what in [
            lambda: call("get_system_shared_memory_status"),
            lambda: call("get_system_shared_memory_status", "one"),
            lambda: call("register_system_shared_memory", "one", "/one", 64),
            lambda: call("unregister_system_shared_memory"),
            lambda: call("unregister_system_shared_memory", "one"),
            lambda: call("get_cuda_shared_memory_status"),
            lambda: call("get_cuda_shared_memory_status", "one"),
            lambda: call("register_cuda_shared_memory", "one", "aGFuZGxl", 0, 64),
            lambda: call("unregister_cuda_shared_memory"),
            lambda: call("unregister_cuda_shared_memory", "one"),
        ]:
            refused(what, "400", "there is no shared memory")

    named("shared memory is refused with its reason", memory)

    def repository():
        if not control:
            refused(lambda: call("unload_model", model), "403")
            refused(lambda: call("load_model", model), "403")
            return
        count = call("get_inference_statistics", model)["model_stats"][0]["inference_count"]
        call("unload_model", model, unload_dependents=True)
        equal(call("is_model_ready", model), False)
        refused(lambda: probabilities(images([bmp(one)])), "503", model)
        call("load_model", model)
        equal(call("is_model_ready", model), True)
        assert abs(probabilities(images([bmp(one)])) - expected["image"]).max() < TOLERANCE
        equal(call("get_inference_statistics", model)["model_stats"][0]["inference_count"], count + 1)
        refused(lambda: call("load_model", model, config="{}"), "400", "config")
        refused(lambda: call("load_model", "nobody"), "404", "nobody")

    named("load_model, unload_model", repository)


def only_sync(place, client, model):
    """What the synchronous client has alone."""
    one = stroke()

    def asynchronous():
        requests = [client.async_infer(model, [images([bmp(one)])], request_id=str(number),
                                       request_compression_algorithm="gzip", response_compression_algorithm="deflate")
                    for number in range(20)]
        for number, request in enumerate(requests):
            result = request.get_result()
            equal(result.get_response()["id"], str(number))
            equal(int(result.as_numpy("probabilities").argmax()), 1)

    check("http async_infer", asynchronous)

    def bodies():
        http_client = tritonclient.http.InferenceServerClient
        body, length = http_client.generate_request_body([images([bmp(one)])])
        path = f"/v2/models/{model}/infer"
        status, headers, answer = place.post(path, body, {"Inference-Header-Content-Length": str(length)})
        equal(status, 200)
        result = http_client.parse_response_body(answer, header_length=int(headers["Inference-Header-Content-Length"]))
        equal(int(result.as_numpy("probabilities").argmax()), 1)
        # The whole body is the one image.
        status, headers, answer = place.post(path, bmp(one), {"Inference-Header-Content-Length": "0"})
        equal(status, 200)
        raw = http_client.parse_response_body(answer, header_length=int(headers["Inference-Header-Content-Length"]))
        assert abs(raw.as_numpy("probabilities") - result.as_numpy("probabilities")).max() < TOLERANCE

    check("http generate_request_body, parse_response_body, raw bodies", bodies)

    def codings():
        tensor = [{"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": [base64.b64encode(bmp(one)).decode()]}]
        body = json.dumps({"inputs": tensor}).encode()
        status, _, answer = place.post(f"/v2/models/{model}/infer", body, {"Content-Encoding": "br"})
        equal(status, 415)
        assert "br" in json.loads(answer)["error"], answer
        status, _, answer = place.post(f"/v2/models/{model}/infer", body, {"Content-Encoding": "gzip"})
        equal(status, 400)
        assert json.loads(answer)["error"], answer

    check("http other codings are refused in JSON", codings)

    def answers():
        body, length = tritonclient.http.InferenceServerClient.generate_request_body([images([bmp(one)] * 32)])
        asked = {"Inference-Header-Content-Length": str(length)}
        rows = []
        for accepted, coding in [("identity", None), ("gzip", "gzip"), ("deflate;q=0.9, gzip;q=0.1", "deflate")]:
            status, headers, answer = place.post(f"/v2/models/{model}/infer", body, {**asked, "Accept-Encoding": accepted})
            equal([status, headers["Content-Encoding"]], [200, coding])
            # The length is that of the JSON before it was compressed.
            length = int(headers["Inference-Header-Content-Length"])
            result = tritonclient.http.InferenceServerClient.parse_response_body(
                answer, header_length=length, content_encoding=coding)
            rows.append(result.as_numpy("probabilities"))
        assert (rows[0] == rows[1]).all() and (rows[0] == rows[2]).all()

    check("http answers are compressed as it is preferred", answers)


def references(call, folder):
    """Every classifier of the test data that is served, against what other programs made of its weights."""
    served = {entry["name"] for entry in call("get_model_repository_index") if entry["state"] == "READY"}
    held = [model for model in CLASSIFIERS if model in served]
    for model in held:
        ask = lambda photo, model=model: call("infer", model, [images([photo])]).as_numpy("probabilities")[0]
        check(f"{model} sees in every photo what its reference saw", lambda m=model, a=ask: agree(folder, m, a))
    check("a classifier of the test data is served", lambda: equal(bool(held), True))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--ca", help="the authority of the relay's certificate, a PEM file")
    parser.add_argument("--key", help="an API key, or a file with one")
    parser.add_argument("--model", default="digits", help="a model that reads digits (digits)")
    parser.add_argument("--control", action="store_true", help="models may be unloaded and settings changed")
    parser.add_argument("--data", type=pathlib.Path, help="a folder with images, models and references")
    arguments = parser.parse_args()
    place = Place(arguments)

    client = place.sync()
    call = lambda name, *values, **options: getattr(client, name)(*values, **options)
    methods("http", call, arguments.model, arguments.control)
    only_sync(place, client, arguments.model)
    if arguments.data:
        references(call, arguments.data)
    client.close()

    with asyncio.Runner() as runner:
        client = runner.run(place.aio())

        async def answer(method, values, options):
            return await method(*values, **options)

        wait = lambda name, *values, **options: runner.run(answer(getattr(client, name), values, options))
        methods("http.aio", wait, arguments.model, arguments.control)
        runner.run(client.close())

    print(f"\n{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
