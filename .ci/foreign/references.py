"""What other programs made of the weights of ../shared/data, and whether an answer agrees with it. For the scripts beside it."""
import json

# How far a probability may be from the stored one, as in the house's own tests.
TOLERANCE = 1e-3
CLASSIFIERS = ["googlenet_bn", "mobilenet_v2", "squeezenet1_1"]


def agree(folder, model, ask):
    """Asks a model for every photograph; `ask` makes probabilities of a file's bytes. Fails where the reference says otherwise."""
    reference = json.loads((folder / "models" / model / "reference.json").read_text(encoding="utf-8"))
    photos = sorted((folder / "images" / "photos").iterdir())
    assert len(photos) >= 26, len(photos)
    for photo in photos:
        top = reference["images"][f"images/photos/{photo.name}"]["top5"]
        row = ask(photo.read_bytes())
        for stored in top:
            off = abs(row[stored["index"]] - stored["prob"])
            assert off < TOLERANCE, f"{photo.name}: class {stored['index']} is off by {off}"
        if top[0]["prob"] - top[1]["prob"] > TOLERANCE:
            assert int(row.argmax()) == top[0]["index"], photo.name
