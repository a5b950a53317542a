"""Shared by the tests of untrusted artifacts: an artifact must be refused before an engine sees it."""

import pytest

from runtime import Predictor
from runtime.errors import ArtifactError

NO_ENGINE = "the engine must not see an untrusted artifact"
VERIFY = pytest.mark.parametrize("verify", [True, False], ids=["verified", "not verified"])


def refusal(path, verify=True):
    """The message with which a predictor refuses an artifact, in one line that names it."""
    with pytest.raises(ArtifactError) as refused:
        Predictor(path, "cpu", verify_digest=verify)
    message = str(refused.value)
    assert str(path) in message
    assert "\n" not in message
    return message
