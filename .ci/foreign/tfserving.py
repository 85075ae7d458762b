#!/usr/bin/env python3
"""Asks a running agent or relay as clients of TensorFlow Serving do that nobody here wrote, and says what was not as it should be.

    .ci/foreign/tfserving.py --grpc HOST:PORT --rest URL [--ca CA_FILE --key KEY_FILE] [--mnist FOLDER] [--model NAME]

Without --ca over plain HTTP and an insecure channel, as to an agent's local listener; with it over TLS and with the key, as to a
relay. MODEL (`digits`) is the one that is part of the agent. With --mnist, a folder of MNIST's files, digits that people
wrote are read; without, one that is in this file.

Needs: pip install min-tfs-client==1.0.2 'protobuf<3.21' 'grpcio<1.60' 'numpy<2' requests, and, to be asked too,
pip install --no-deps ovmsclient==2023.1
"""

import argparse
import base64
import gzip
import importlib.util
import json
import os
import re
import struct
import sys
import zlib

import grpc
import numpy as np
import requests
from min_tfs_client.requests import TensorServingClient
from min_tfs_client.tensors import ndarray_to_tensor_proto, tensor_proto_to_ndarray
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (
    classification_pb2, get_model_metadata_pb2, get_model_status_pb2, model_service_pb2_grpc, predict_pb2,
    prediction_service_pb2_grpc,
)

# A seven as MNIST has them, a character a pixel: the strokes of one that was written by hand.
SEVEN = """
............................
............................
............................
............................
............................
............................
............................
......99998.................
......9999999999999999......
......6899999999999999......
...........3666699.999......
.................#..998.....
..................3998......
..................8993......
.................4998.......
.................9995.......
................5998........
................9993........
...............8998.........
..............3999..........
..............9998..........
.............3999...........
.............8998...........
............3999............
............8999............
............9999............
............8985............
............................
"""


def seven():
    rows = SEVEN.strip("\n").split("\n")
    level = lambda char: 0 if char in ".#" else int(char) * 28
    return np.array([[level(char) for char in row] for row in rows], dtype=np.uint8)


def mnist(folder):
    """The first images of MNIST's test set, with what they show."""
    def read(name, head):
        path = os.path.join(folder, name)
        opened = gzip.open(path + ".gz") if os.path.exists(path + ".gz") else open(path, "rb")
        with opened as file:
            return np.frombuffer(file.read()[head:], dtype=np.uint8)
    images = read("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28)
    # As many as an agent takes in one request.
    return images[:32], read("t10k-labels-idx1-ubyte", 8)[:32]


def png(image):
    """The image as a PNG file, ink on paper as it would be photographed."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + row.tobytes() for row in 255 - image)
    head = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Key(grpc.AuthMetadataPlugin):
    def __init__(self, key):
        self.key = key

    def __call__(self, context, callback):
        callback((("authorization", f"Bearer {self.key}"),), None)


class Checks:
    def __init__(self):
        self.passed, self.failed = 0, 0

    def is_(self, what, right, found=""):
        if right:
            self.passed += 1
            print(f"ok    {what}")
        else:
            self.failed += 1
            print(f"FAIL  {what}: {found}")

    def run(self, what, check):
        try:
            check()
        except Exception as error:  # Whatever a client throws is what is looked for.
            self.is_(what, False, repr(error)[:600])


def reference(channel, model, image):
    """Reference system 4's client: its own calls in their order, and its own prints."""
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    pixels = image.astype(np.float32) / 255.0
    pixels = np.expand_dims(np.expand_dims(pixels, axis=0), axis=-1)
    # What tf.make_tensor_proto makes of more than one number.
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=pixels.tobytes())
    for length in pixels.shape:
        proto.tensor_shape.dim.add(size=length)
    request.inputs["flatten_input"].CopyFrom(proto)
    result = stub.Predict(request, 10.0)
    values = np.array(result.outputs["dense"].float_val)
    digit = int(np.argmax(values))
    print("Predicted Digit: ", digit)
    print("Predicted Confidence: ", np.max(values))
    return digit


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--grpc", required=True)
    arguments.add_argument("--rest", required=True)
    arguments.add_argument("--ca")
    arguments.add_argument("--key")
    arguments.add_argument("--mnist")
    arguments.add_argument("--model", default="digits")
    asked = arguments.parse_args()
    host, port = asked.grpc.rsplit(":", 1)
    model, checks = asked.model, Checks()

    key, credentials, session = None, None, requests.Session()
    # No certificates but those that are named, whatever the environment says.
    session.trust_env = False
    if asked.key:
        with open(asked.key) as file:
            key = file.read().strip()
        session.headers["authorization"] = f"Bearer {key}"
    if asked.ca:
        session.verify = asked.ca
        with open(asked.ca, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        if key:
            credentials = grpc.composite_channel_credentials(credentials, grpc.metadata_call_credentials(Key(key)))
        channel = grpc.secure_channel(asked.grpc, credentials)
    else:
        channel = grpc.insecure_channel(asked.grpc)

    images, labels = mnist(asked.mnist) if asked.mnist else (np.array([seven()]), np.array([7]))
    pixels = images.astype(np.float32) / 255.0

    def reference_system_4():
        digit = reference(channel, model, images[0])
        checks.is_("reference system 4: the digit of its picture", digit == labels[0], digit)

    def many_digits():
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        request.inputs["flatten_input"].CopyFrom(ndarray_to_tensor_proto(pixels))
        output = tensor_proto_to_ndarray(stub.Predict(request, 10.0).outputs["dense"])
        right = int((output.argmax(axis=1) == labels).sum())
        checks.is_(f"a batch: {right} of {len(labels)} digits right", right >= 0.95 * len(labels), output)

    def min_tfs():
        client = TensorServingClient(host=host, port=int(port), credentials=credentials)
        for shape in [(1, 28, 28), (1, 28, 28, 1), (28, 28), (1, 784)]:
            result = client.predict_request(model_name=model, timeout=10,
                                            input_dict={"flatten_input": pixels[0].reshape(shape)})
            output = tensor_proto_to_ndarray(result.outputs["dense"])
            checks.is_(f"min-tfs-client: predict {shape}", output.shape == (1, 10) and output.argmax() == labels[0], output)
        result = client.predict_request(model_name=model, model_version=1, timeout=10,
                                        # It sends text alone as DT_STRING.
                                        input_dict={"image": np.array([base64.b64encode(png(images[0])).decode()])})
        output = tensor_proto_to_ndarray(result.outputs["dense"])
        checks.is_("min-tfs-client: predict an image of a version", output.argmax() == labels[0], output)
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, 10.0)
        versions = [(version.version, version.state) for version in status.model_version_status]
        checks.is_("gRPC: status", versions == [(1, 30)], status)
        try:
            client.predict_request(model_name="nobody", timeout=10, input_dict={"x": pixels[0]})
            checks.is_("min-tfs-client: an unknown model", False, "was answered")
        except grpc.RpcError as error:
            right = (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND,
                                                        "Servable not found for request: Latest(nobody)")
            checks.is_("min-tfs-client: an unknown model", right, error)

    def metadata():
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = model
        answer = stub.GetModelMetadata(request, 10.0)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        unpacked = answer.metadata["signature_def"].Unpack(signatures)
        default = signatures.signature_def["serving_default"]
        sizes = [dim.size for dim in default.inputs["flatten_input"].tensor_shape.dim]
        checks.is_("gRPC: metadata", unpacked and sizes == [-1, 28, 28] and "dense" in default.outputs, answer)

    def classify():
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = classification_pb2.ClassificationRequest()
        request.model_spec.name = model
        example = request.input.example_list.examples.add()
        example.features.feature["image"].bytes_list.value.append(png(images[0]))
        classes = stub.Classify(request, 10.0).result.classifications[0].classes
        best = max(classes, key=lambda found: found.score)
        checks.is_("gRPC: classify", (len(classes), best.label) == (10, str(labels[0])), best)

    def ovms():
        from ovmsclient import make_grpc_client, make_http_client
        # Its keys are client certificates; a bearer's key it cannot send.
        if asked.key:
            print("skip  ovmsclient: it has no way to send a key")
            return
        for kind, client in [("gRPC", make_grpc_client(asked.grpc)),
                             ("HTTP", make_http_client(re.sub("^https?://", "", asked.rest)))]:
            status = client.get_model_status(model_name=model)
            checks.is_(f"ovmsclient: {kind} status", status[1]["state"] == "AVAILABLE", status)
            # Over HTTP it reads the names of OpenVINO's own server, `signatureDef`, which TensorFlow's does not write.
            if kind == "gRPC":
                told = client.get_model_metadata(model_name=model)
                right = told["inputs"]["flatten_input"]["shape"] == [-1, 28, 28] and "dense" in told["outputs"]
                checks.is_(f"ovmsclient: {kind} metadata", right, told)
            output = client.predict(inputs={"flatten_input": pixels[:1]}, model_name=model)
            output = output["dense"] if isinstance(output, dict) else output
            checks.is_(f"ovmsclient: {kind} predict", output.argmax() == labels[0], output)

    def rest():
        base = f"{asked.rest}/v1/models/{model}"
        status = session.get(base, timeout=10)
        version = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        checks.is_("REST: status", status.json() == {"model_version_status": [version]}, status.text)
        told = session.get(f"{base}/metadata", timeout=10).json()
        default = told["metadata"]["signature_def"]["signature_def"]["serving_default"]
        checks.is_("REST: metadata", list(default["inputs"]) == ["flatten_input"], told)
        numbers, encoded = pixels[0].tolist(), {"b64": base64.b64encode(png(images[0])).decode()}
        for what, where, body, answer in [
            ("rows", f"{base}:predict", {"instances": [numbers]}, "predictions"),
            ("columns", f"{base}/versions/1:predict", {"inputs": {"flatten_input": [numbers]}}, "outputs"),
            ("encoded images", f"{base}:predict", {"signature_name": "serving_default", "instances": [encoded]}, "predictions"),
        ]:
            found = session.post(where, data=json.dumps(body), timeout=10)
            digit = int(np.argmax(found.json().get(answer, [[0]])[0]))
            checks.is_(f"REST: {what}", found.status_code == 200 and digit == labels[0], found.text)
        found = session.post(f"{base}:classify", json={"examples": [{"image": encoded}]}, timeout=10).json()
        best = max(found.get("results", [[["", 0]]])[0], key=lambda pair: pair[1])
        checks.is_("REST: classify", best[0] == str(labels[0]), found)
        for what, where, code, error in [
            ("an unknown model", f"{asked.rest}/v1/models/nobody:predict", 404, "Servable not found for request: Latest(nobody)"),
            ("an unknown version", f"{base}/versions/99:predict", 404, f"Servable not found for request: Specific({model}, 99)"),
            ("an unknown label", f"{base}/labels/none:predict", 400, "Unrecognized servable version label: none"),
            ("regress", f"{base}:regress", 400, "Expected regression signature method_name to be "
             "tensorflow/serving/regress. Was: tensorflow/serving/predict"),
        ]:
            found = session.post(where, json={"examples": [{"image": encoded}]}, timeout=10)
            checks.is_(f"REST: {what}", (found.status_code, found.json()) == (code, {"error": error}), found.text)

    checks.run("reference system 4", reference_system_4)
    checks.run("a batch", many_digits)
    checks.run("min-tfs-client", min_tfs)
    checks.run("gRPC: metadata", metadata)
    checks.run("gRPC: classify", classify)
    if importlib.util.find_spec("ovmsclient"):
        checks.run("ovmsclient", ovms)
    else:
        print("skip  ovmsclient: it is not installed")
    checks.run("REST", rest)
    print(f"{checks.passed} passed, {checks.failed} failed")
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
