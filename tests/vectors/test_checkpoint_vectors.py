"""The vectors of checkpoints are what the generator writes, and mean what they say."""

import importlib.util
import json
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
VECTORS = HERE / "checkpoint"


def test_the_generator_reproduces_every_byte(tmp_path: Path) -> None:
    """Keys are fixed, signatures deterministic: the vault judges each note as is written there."""
    spec = importlib.util.spec_from_file_location("checkpoints", HERE / "checkpoint_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.generate_checkpoints(tmp_path)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {path.name: path.read_text() for path in VECTORS.iterdir()}


def test_there_are_notes_of_every_kind_and_every_answer() -> None:
    """Positive and negative; of each clause of the page one."""
    notes = json.loads((VECTORS / "notes.json").read_text())["notes"]
    kinds = Counter(note["is"] for note in notes.values())
    assert kinds == {"counts": 3, "logged": 6, "not logged": 3, "malformed": 14}
    requests = json.loads((VECTORS / "requests.json").read_text())
    answers = {request["answer"] for request in requests.values()}
    assert answers == {200, 400, 403, 409, 422}
