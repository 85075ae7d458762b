#!/usr/bin/env python3
"""Clients of the dialects of boxes, as they are: deepstack-python from the package index, and those of the two systems whose
dialects Adit speaks, with the calls, the reading and the prints of the originals. No line is shared with Adit.

    .ci/foreign/boxes.py URL CA_FILE KEY_FILE IMAGES [--model NAME] [--deepstack HOST:PORT] [--bench]

URL is a relay's (https://...; with http://, CA_FILE is not read) or an agent's local listener. IMAGES is a folder of photographs, of
which some show persons. --deepstack is where deepstack-python is to go: it speaks plain HTTP and sends its key in a form's field,
so that is an agent's local listener, or a relay's plain listener with `[auth] anonymous = ["infer"]`. --bench sends 20 batches of 16
images at one time. Needs the packages requests and, for --deepstack, deepstack-python 0.9 with pillow (which it does not name).
"""

import argparse
import base64
import json
import os
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import requests

PASSED, FAILED = [], []


def check(name, holds, why=""):
    (PASSED if holds else FAILED).append(name)
    print(f"{'ok   ' if holds else 'FAIL '} {name}{'' if holds else f': {why}'}", flush=True)


def is_box(found):
    """The shape of one row of the detection dialect."""
    sides = found["coordinates"]
    return (
        set(found) == {"ObjectClassName", "confidence", "coordinates", "ObjectClassId"}
        and isinstance(found["ObjectClassName"], str)
        and 0 <= found["confidence"] <= 100
        and isinstance(found["ObjectClassId"], int)
        and list(sides) == ["left", "top", "right", "bottom"]
        and all(isinstance(side, int) and side >= 0 for side in sides.values())
        and sides["left"] <= sides["right"]
        and sides["top"] <= sides["bottom"]
    )


class Asked:
    """What the clients share: a session with the key, as any of them can be told to have one."""

    def __init__(self, url, ca, key):
        self.url = url.rstrip("/")
        self.session = requests.Session()
        self.session.headers["x-api-key"] = key
        self.session.verify = ca
        # Whatever a proxy of this machine is for, it is not for this.
        self.session.trust_env = False

    def get(self, path, **more):
        return self.session.get(self.url + path, timeout=60, **more)

    def post(self, path, **more):
        return self.session.post(self.url + path, timeout=300, **more)


def detection(asked, model, images):
    """The client of the multi-model detection service: the walk of its documentation."""
    loaded = asked.get("/load").json()
    check("load: a uuid for each model", model in loaded and all(uuid.UUID(each) for each in loaded.values()), loaded)
    check("load: the same uuids again", asked.get("/load").json() == loaded)

    def envelope(answer):
        body = answer.json()
        if answer.status_code != 200 or list(body) != ["data", "error", "success"] or not body["success"]:
            raise ValueError(f"{answer.status_code} {answer.text[:200]}")
        return body["data"]

    check("models: the model is listed", model in envelope(asked.get("/models"))["models"])
    for force in ["", "?force=true", "?force=false"]:
        check(f"models/load{force}", envelope(asked.get(f"/models/{model}/load{force}")) is None)
    labels = envelope(asked.get(f"/models/{model}/labels"))
    check("models/labels: names", "person" in labels and all(isinstance(label, str) for label in labels), labels)
    config = envelope(asked.get(f"/models/{model}/config"))
    check("models/config: three fields", sorted(config) == ["framework", "network", "type"], config)
    ids = asked.post("/get_labels", data={"model": model}).json()
    check("get_labels: a uuid for each label", set(ids) == set(labels) and all(uuid.UUID(each) for each in ids.values()))

    most, best = None, -1
    for path in images:
        with open(path, "rb") as file:
            answer = asked.post(f"/models/{model}/predict", files={"input_data": (os.path.basename(path), file, "image/jpeg")})
        boxes = envelope(answer)["bounding-boxes"]
        if not all(is_box(found) for found in boxes):
            check(f"predict: {path}", False, boxes)
        if len(boxes) > best:
            most, best = path, len(boxes)
    check(f"predict: boxes on {len(images)} images, {best} on {os.path.basename(most)}", best > 0)
    expected = None
    for named in [model, loaded[model]]:
        with open(most, "rb") as file:
            boxes = asked.post("/detect", data={"model": named}, files={"image": file}).json()["bounding-boxes"]
        expected = expected or boxes
        check(f"detect: by {'uuid' if named != model else 'name'}", len(boxes) == best and boxes == expected, boxes)

    some = images[:4]
    files = [("input_data", (os.path.basename(path), open(path, "rb"), "image/jpeg")) for path in some]
    rows = envelope(asked.post(f"/models/{model}/predict_batch", files=files))
    check("predict_batch: in order, by name", [row["ImageName"] for row in rows] == [os.path.basename(path) for path in some], rows)
    with open(most, "rb") as file:
        drawn = asked.post(f"/models/{model}/predict_image", files={"input_data": file})
    quirk = drawn.headers["content-type"] == "image/jpg" and drawn.content.startswith(b"\x89PNG")
    check("predict_image: a PNG called image/jpg", drawn.status_code == 200 and quirk, drawn.headers)
    with open(most, "rb") as file:
        accept = {"accept": "image/jpeg"}
        drawn = asked.post(f"/models/{model}/predict_image", files={"input_data": file}, headers=accept)
    check("predict_image: a JPEG for who asks for one", drawn.content.startswith(b"\xff\xd8\xff"), drawn.headers)

    broken = asked.post(f"/models/{model}/predict", files={"input_data": b"no image"})
    error = {"data": None, "error": "Invalid input data: corrupted image", "success": False}
    check("predict: a broken image, told with status 200", (broken.status_code, broken.json()) == (200, error), broken.text)
    missing = asked.post("/detect", data={"model": model})
    detail = [{"loc": ["body", "image"], "msg": "field required", "type": "value_error.missing"}]
    check("detect: a missing field", (missing.status_code, missing.json()) == (422, {"detail": detail}), missing.text)


def payload(images, first=0):
    """What the feeders make of their frames: a number as id."""
    frames = [{"image": base64.b64encode(image).decode("utf-8"), "id": first + number} for number, image in enumerate(images)]
    return json.dumps({"input": frames})


def annotation(asked, images, batch=4, workers=3):
    """Both feeders of the human detection service, with photographs in place of a video's frames."""
    contents = [open(path, "rb").read() for path in images]
    # base_video_feed.py: one frame after another.
    began, changed = time.time(), 0
    for number, content in enumerate(contents):
        answer = asked.post("/request", data=payload([content], number))
        body = answer.json()
        frame = base64.b64decode(body["output"][0]["annotated_image"])
        if body["output"][0]["id"] != str(number) or body["errors"] != {"error_ids": [None]}:
            check(f"request: {images[number]}", False, answer.text[:200])
        changed += frame != content
    took = time.time() - began
    print("[INFO] elasped time: {:.2f}".format(took))
    print("[INFO] approx. FPS: {:.2f}".format(len(contents) / took))
    check(f"request: {changed} of {len(contents)} frames have persons", 0 < changed < len(contents))

    # async_video_feed.py: batches by several workers.
    print(f"\t - Calling Human Detection model using Batch Size: {batch}, with Async workers: {workers}")
    batches = [contents[at : at + batch] for at in range(0, len(contents), batch)]
    began = time.time()
    with ThreadPoolExecutor(workers) as pool:
        answers = list(pool.map(lambda images: asked.post("/request", data=payload(images)), batches))
    print(f"\t - TimeTaken for {len(contents)} frames {time.time() - began} sec")
    whole = all(
        answer.status_code == 200 and [each["id"] for each in answer.json()["output"]] == [str(at) for at in range(len(images))]
        for answer, images in zip(answers, batches)
    )
    check("request: batches by several workers", whole, [answer.text[:100] for answer in answers])

    some = asked.post("/request", data=payload([contents[0], b"no image"]))
    error = {"message": "Valid Image: JPEG or PNG (<5MB).", "error_ids": ["1"]}
    check("request: one of two is no image", some.status_code == 200 and some.json()["errors"] == error, some.text[-200:])
    none = asked.post("/request", data=payload([b"no image"]))
    check("request: none is an image", none.status_code == 400 and none.json()["error_ids"] == ["0"], none.text)
    many = asked.post("/request", data=payload([b""] * 17))
    message = {"message": "Maximum limit for batch processing is 16 images in single req."}
    check("request: seventeen are too many", (many.status_code, many.json()) == (406, message), many.text)


def bench(asked, images):
    """The published benchmark: 16 images a request, 1, 5, 10 and 20 requests at one time."""
    contents = [open(path, "rb").read() for path in images]
    text = payload([contents[at % len(contents)] for at in range(16)])
    for together in [1, 5, 10, 20]:
        began = time.time()
        with ThreadPoolExecutor(together) as pool:
            answers = list(pool.map(lambda _: asked.post("/request", data=text).status_code, range(together)))
        took = time.time() - began
        answered = answers.count(200)
        rate = answered * 16 / took
        print(f"{together:>3} x 16 images: {answered} answered in {took:6.2f} s, {rate:5.1f} images/s", flush=True)
        check(f"bench: {together} at one time are answered", answers == [200] * together, answers)


def recorders(host, images, model):
    """deepstack-python, as home automation calls it."""
    from deepstack.core import (
        DeepstackException,
        DeepstackFace,
        DeepstackObject,
        get_object_confidences,
        get_objects,
        get_objects_summary,
    )

    ip, port = host.rsplit(":", 1)
    detector = DeepstackObject(ip, int(port), "key", 60, min_confidence=0.4)
    seen, ordered = set(), True
    for path in images:
        predictions = detector.detect(open(path, "rb").read())
        confidences = [float(found["confidence"]) for found in predictions]
        ordered &= confidences == sorted(confidences, reverse=True) and len(confidences) <= 20
        for label in get_objects(predictions):
            assert len(get_object_confidences(predictions, label)) == get_objects_summary(predictions)[label]
            seen.add(label)
    check(f"deepstack: objects {sorted(seen)}", "person" in seen)
    check("deepstack: sorted by confidence, twenty at most", ordered)
    custom = DeepstackObject(ip, int(port), min_confidence=0.4, timeout=60, custom_model=model)
    check("deepstack: a custom model", custom.detect(open(images[0], "rb").read()) == detector.detect(open(images[0], "rb").read()))
    try:
        faces = max(len(DeepstackFace(ip, int(port), timeout=60).detect(open(path, "rb").read())) for path in images)
        check("deepstack: faces", faces > 0)
    except DeepstackException as error:
        # Without a detector of faces.
        check("deepstack: faces are not activated", "403" in str(error), error)
    try:
        detector.detect(b"no image")
        check("deepstack: a broken image", False, "no exception")
    except DeepstackException as error:
        check("deepstack: a broken image", "400" in str(error), error)


def recorders_by_form(asked, image):
    """The same request without the library, over TLS."""
    answer = asked.post("/v1/vision/detection", files={"image": open(image, "rb")}, data={"min_confidence": 0.4, "api_key": ""})
    body = answer.json()
    extras = {"message", "count", "inferenceMs", "processMs", "analysisRoundTripMs", "moduleId", "moduleName", "command", "code"}
    check("vision/detection: the fields of both systems", body["success"] and extras < set(body), body)
    shape = all(
        list(found) == ["confidence", "label", "y_min", "x_min", "y_max", "x_max"]
        and all(isinstance(found[side], int) for side in ["y_min", "x_min", "y_max", "x_max"])
        for found in body["predictions"]
    )
    check(f"vision/detection: {body['message']}", shape and body["count"] == len(body["predictions"]), body)
    missing = asked.post("/v1/vision/detection", data={"min_confidence": 0.4})
    failed = missing.json()
    check("vision/detection: no image", missing.status_code == 400 and failed["error"] == "No valid image file found", failed)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["url", "ca", "key", "images"]:
        parser.add_argument(name)
    parser.add_argument("--model", default="yolox_nano")
    parser.add_argument("--deepstack")
    parser.add_argument("--bench", action="store_true")
    args = parser.parse_args()
    with open(args.key, encoding="utf-8") as file:
        asked = Asked(args.url, args.ca, file.read().strip())
    images = [os.path.join(args.images, name) for name in sorted(os.listdir(args.images))]
    # What the dialect of annotated batches takes.
    small = [path for path in images if path.endswith((".jpg", ".png")) and os.path.getsize(path) <= 5_000_000]
    detection(asked, args.model, small)
    recorders_by_form(asked, small[0])
    annotation(asked, small)
    if args.deepstack:
        recorders(args.deepstack, small, args.model)
    if args.bench:
        bench(asked, small)
    print(f"{len(PASSED)} passed, {len(FAILED)} failed")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
