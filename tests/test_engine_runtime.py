"""A checkpoint folder made ready to answer."""

import json
import shutil

import pytest

from ramet.engine import RequestError
from ramet.engine.runtime import Runtime
from tests.engine_support import checkpoint, request


def test_a_checkpoint_that_is_refused_leaves_the_sessions_free(tmp_path):
    folder, sessions = tmp_path / "model", tmp_path / "sessions"
    shutil.copytree(checkpoint(), folder)
    file = folder / "generation_config.json"
    good = json.loads(file.read_text())
    file.write_text(json.dumps({**good, "top_p": 7}))
    with pytest.raises(RequestError, match="top_p") as refusal:
        Runtime.load(folder, tree_dir=sessions)
    file.write_text(json.dumps(good))
    with Runtime.load(folder, tree_dir=sessions) as runtime:
        reply = runtime.engine.submit(request([1, 2, 3], store=True)).result()[0]
        assert reply.finish.reason == "length"
    with Runtime.load(folder, tree_dir=sessions) as runtime:
        assert runtime.tree.node(reply.finish.node).end == 15
    assert "generation_config.json" in str(refusal.value)  # kept so long: whatever its traceback holds on to was open
