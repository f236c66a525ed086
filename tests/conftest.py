"Run before every test module: shapes are checked at each call, each test draws the same random numbers."

from jaxtyping import install_import_hook

# Each shape in a signature is executed; as in Python's own type rules, a whole number may stand for a float.
install_import_hook(
    "transformer_nb",
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

import jaxtyping  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile(
    "transformer_nb", deadline=None, derandomize=True, max_examples=50, database=None
)
settings.load_profile("transformer_nb")


def pytest_runtest_setup(item):
    torch.manual_seed(0)


@pytest.fixture
def shapes_unchecked():
    "What a user meets, for whom nothing executes the annotations."
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    "Both precisions, for the tests of parity."
    return request.param
