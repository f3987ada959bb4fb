"""Without a GPU, Triton kernels run in its interpreter: see the tests' first conftest, which asks for it."""

import pytest
from triton_interpreter import repair

from wan_kernels.common import triton


@pytest.fixture(scope="session", autouse=True)
def repaired_interpreter() -> None:
    if triton.is_interpreting() and triton.missing() is None:
        repair()
